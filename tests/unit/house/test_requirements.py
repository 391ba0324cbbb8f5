"""The two Python environments: one with os-ken, one with Ryu, otherwise alike."""

from __future__ import annotations

from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements"


def pinned(lock: str) -> dict[str, str]:
    """Versions by package."""
    lines = (REQUIREMENTS / lock).read_text().splitlines()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}


def test_what_both_environments_have_is_of_the_same_version():
    """But for setuptools, of which Ryu needs an old one to be built."""
    usual, ryu = pinned("lock.txt"), pinned("ryu-lock.txt")
    common = set(usual) & set(ryu)

    assert {name for name in common if usual[name] != ryu[name]} == {"setuptools"}
    assert {"flask", "aiohttp", "urllib3", "networkx", "cryptography", "prometheus_client"} <= common


def test_each_environment_has_one_framework():
    """So that the controller runs on what was asked for."""
    assert ("os-ken" in pinned("lock.txt"), "ryu" in pinned("lock.txt")) == (True, False)
    assert ("os-ken" in pinned("ryu-lock.txt"), "ryu" in pinned("ryu-lock.txt")) == (False, True)
