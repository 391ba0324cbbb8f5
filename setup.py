"""Makes the rooms importable in the project's own environment; dependencies are pinned in requirements/."""

from setuptools import find_packages, setup

setup(
    name="qkd-testbed",
    version="0.1.0",
    description="Emulated QKD network: real SD-QKD nodes, SDN controller and applications on Mininet",
    python_requires=">=3.11",
    packages=find_packages(exclude=["tests", "tests.*"]),
    package_data={
        "node.material": ["*.sql"], "controller.leading": ["*.sql"], "scenario": ["*.yaml"], "etsi": ["*.yang"],
        "testbed.dashboard": ["assets/*"],
        "testbed.experiments": ["*.j2"], "testbed.experiments.evaluation": ["*.yaml"],
    },
)
