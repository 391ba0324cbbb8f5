"""PoliQI over two machines that have a kernel each: user-mode Linux, with netem and the kernel's Open vSwitch.

Their network is a bridge of a namespace, with a TAP for each. Home reaches the other one by SSH, as users do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.machine.namespaces import call_in_network
from testbed.virtual_machine.user_mode_linux import Machine
from tests.support import host_clocks
from tests.support.machines import placement, write_client, write_server
from tests.support.running import PYTHON, ROOT
from tests.support.waiting import until

BRIDGE, HOME, WEST = "198.51.100.1", "198.51.100.2", "198.51.100.3"  # RFC 5737: of nobody
PORT = 7000
DELAY_MS = 200
LIMIT_S = float(os.environ.get("QKD_UML_LIMIT_S", "900"))
NETWORK = f"""
ip link set lo up
ip link add net type bridge && ip address add {BRIDGE}/24 dev net && ip link set net up
for tap in home west; do ip tuntap add $tap mode tap && ip link set $tap master net up; done
echo ready && exec sleep infinity
"""


@pytest.fixture
def network() -> Iterator[Path]:
    """The file of a network namespace with a bridge and two TAPs."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-ec", NETWORK], stdout=subprocess.PIPE, text=True
    ) as holder:  # fmt: skip
        try:
            assert holder.stdout.readline() == "ready\n"
            yield Path(f"/proc/{holder.pid}/ns/net")
        finally:
            holder.kill()


def clocks(network: Path) -> socket.socket:
    """What tells machines on that network the time."""
    def bound() -> socket.socket:
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        found.bind((BRIDGE, PORT))
        return found

    fd = os.open(network, os.O_RDONLY)
    try:
        asked = call_in_network(fd, bound)
    finally:
        os.close(fd)
    host_clocks.serve(asked, time.monotonic())
    return asked


def begin(address: str) -> str:
    """The part of a machine's script that puts it on the network and gives it the clocks of the host."""
    return (
        f"ip address add {address}/24 dev vec0 && ip link set vec0 up && modprobe vxlan || exit 9\n"
        f"cd {shlex.quote(str(ROOT))}\n{PYTHON} -P tests/support/host_clocks.py {BRIDGE} {PORT} || exit 9\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
def test_poliqi_over_two_kernels_is_shaped_by_netem_and_switched_in_the_kernel(network: Path, tmp_path: Path):
    """On both; keys between all, round trips as configured, a clean audit."""
    lab, west, home = (tmp_path / name for name in ("lab", "west", "home"))
    for folder in (lab, west, home):
        folder.mkdir()
    server = write_server(lab, "west", WEST)
    client = write_client(lab, {"west": WEST})
    placed = placement(lab / "machines.yaml", west=["finance", "university"])
    options = ["--machines", placed, "--delay", DELAY_MS, "--sessions", 10, "--duration", 20, "--seed", 5, "--no-vm",
               "--qc-rate", "900-1000", "--no-dashboard", "--no-cli", "--run-dir", "/run/qkd"]  # fmt: skip
    run = shlex.join(map(str, [PYTHON, "-P", "-m", "testbed", *options]))
    at_home = (
        f"mkdir -p runs && mount -t tmpfs tmpfs runs\nQKD_SSH='ssh -F {client}' {run}\nstatus=$?\n"
        f"cp /run/qkd/summary.json {home}\ncp -r /run/qkd/logs {home}\n"
        f"exit $status\n"
    )
    at_west = f"mkdir -p /run/sshd\necho serving >{west}/serving\n/usr/sbin/sshd -D -e -f {server}\n"

    with (
        contextlib.closing(clocks(network)),
        (west / "log").open("wb") as west_log, (home / "log").open("wb") as home_log,
        Machine(begin(WEST) + at_west, west, stdin=None, stdout=west_log.fileno(), network=(network, "west")),
    ):  # fmt: skip
        until((west / "serving").exists, LIMIT_S, else_tell=(west / "log").read_text)
        script = begin(HOME) + at_home
        with Machine(script, home, stdin=None, stdout=home_log.fileno(), network=(network, "home")) as machine:
            status = machine.wait(LIMIT_S)

    shown = (home / "log").read_text(errors="replace") + (west / "log").read_text(errors="replace")
    assert status == 0, shown[-8000:]
    found = json.loads((home / "summary.json").read_text())
    assert (found["shaper"], found["datapath"]) == ("netem", "kernel")
    assert found["audit"]["verdict"] == "clean"
    assert found["sessions"]["admitted"] == 10
    assert min(found["keys"]["single_hop"], found["keys"]["multi_hop"]) > 0
    assert found["pairs"]["compared"] == found["pairs"]["identical"]
    for link in found["links"]:
        assert abs(link["measured_rtt_ms"] - 2 * DELAY_MS) < 120, found["links"]
