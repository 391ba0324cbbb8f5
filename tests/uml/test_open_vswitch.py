"""The kernel's Open vSwitch on a machine that has only just been started."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from testbed.virtual_machine.user_mode_linux import Machine
from tests.support.running import ROOT

BRIDGE = """
import time
from pathlib import Path
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Processes, run_tool

folder = Path("/run/switch")
folder.mkdir()
print("up for", time.monotonic(), "seconds")
print("datapath", OpenVSwitch(folder / "ovs", Processes(folder)).start())
run_tool("ovs-vsctl", "--timeout=20", "add-br", "bridge")
"""
TWO_HOSTS = """
for n in 1 2; do
    ip netns add host$n
    ip link add port$n type veth peer name eth0 netns host$n
    ip -n host$n address add 10.0.0.$n/24 dev eth0
    ip -n host$n link set eth0 up
    ip link set port$n up
    OVS_RUNDIR=/run/switch/ovs ovs-vsctl --timeout=20 add-port bridge port$n
done
ip netns exec host1 ping -c 5 10.0.0.2
"""


@pytest.mark.timeout(120)
def test_packets_cross_a_switch_of_a_machine_that_is_seconds_old(tmp_path: Path):
    """Open vSwitch counts no processor in a machine's first ten seconds, and would handle no packet for ever."""
    log = tmp_path / "log"
    python = shlex.join([sys.executable, "-c", BRIDGE])
    script = f"mkdir -p /run/netns; cd {shlex.quote(str(ROOT))}\n{python} || exit 9\n{TWO_HOSTS}"

    with log.open("wb") as out, Machine(script, tmp_path, stdin=None, stdout=out.fileno()) as machine:
        status = machine.wait(100)

    shown = log.read_text(errors="replace")
    assert status == 0, shown
    assert "datapath kernel" in shown
