"""What a machine lacks of what a tunnel takes is told in one line, before anything changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from decisions.tunnels import IPSEC, KINDS, TLS, WIREGUARD
from sae.vpn import kernel
from testbed.errors import UserError
from testbed.vpn import tunnels


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose kernel has nothing and that has no TUN; the folder in which its programs are."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(tunnels, "_TUN", str(tmp_path / "tun"))
    return programs


def install(machine: Path, *programs: str) -> None:
    """Have them be there: files that end at once, and well."""
    for program in programs:
        (machine / program).write_text("#!/bin/sh\n")
        (machine / program).chmod(0o755)


def lacking(kind: str) -> str:
    """What is said."""
    with pytest.raises(UserError) as error:
        tunnels.check_machine(kind)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "package"), [(WIREGUARD, "wireguard-tools"), (IPSEC, "charon-systemd"), (TLS, "stunnel4")]
)
def test_program_that_is_missing_is_named_with_its_package(machine, kind, package):
    assert lacking(kind).endswith(f"run 'make setup', or 'apt-get install {package}'")


def test_wireguard_go_is_wanted_where_the_kernel_has_no_wireguard(machine):
    install(machine, "wg")

    assert lacking(WIREGUARD).startswith("cannot find wireguard-go")


@pytest.mark.parametrize(("kind", "lacks"), [(WIREGUARD, "WireGuard"), (IPSEC, "ESP")])
def test_tun_that_is_missing_is_told_with_what_the_kernel_lacks(machine, kind, lacks):
    install(machine, "wg", "wireguard-go", "charon-systemd")

    said = lacking(kind)

    assert said == f"a tunnel needs {machine.parent}/tun, as this kernel has no {lacks}: No such file or directory"


def test_tls_takes_nothing_of_the_kernel(machine):
    install(machine, "stunnel")

    tunnels.check_machine(TLS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tun_is_wanted_where_the_kernel_carries_packets(machine, kind):
    """It can do what `unshare` can have it do."""
    install(machine, "wg", "charon-systemd", "stunnel", "unshare")

    tunnels.check_machine(kind)


def test_kernel_is_asked_without_a_change_to_this_machine():
    """In a network of its own, whatever the answer is."""
    before = Path("/proc/net/dev").read_text().count(":")

    assert {kernel.has_esp(), kernel.has_wireguard()} <= {True, False}
    assert Path("/proc/net/dev").read_text().count(":") == before
