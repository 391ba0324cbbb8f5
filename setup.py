"""Makes the rooms importable in the project's own environment; dependencies are pinned in requirements/."""

from setuptools import setup

setup(
    name="qkd-testbed",
    version="0.1.0",
    description="Emulated QKD network: real SD-QKD nodes, SDN controller and applications on Mininet",
    python_requires=">=3.11",
    packages=[
        "etsi", "telemetry", "decisions", "mtls", "node", "controller", "sae", "testbed", "testbed.dashboard",
        "testbed.audit", "testbed.experiments", "testbed.storm", "testbed.stories",
    ],
    package_data={
        "node": ["*.sql"], "etsi": ["*.yang"], "testbed.dashboard": ["assets/*"],
        "testbed.experiments": ["*.yaml", "*.j2"],
    },
)
