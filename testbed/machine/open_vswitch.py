"""An Open vSwitch of the run's own: its database and daemon live in the run directory and in the run's namespaces.

One that the machine runs already is never asked, stopped or reconfigured. Mininet finds ours by the environment
variable that Open vSwitch's own tools obey.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from testbed.machine.processes import Processes, ProcessFailed, run_tool

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_QUIET = ("--no-chdir", "-vsyslog:off", "-vconsole:info")
_PROBE = "probe"
# Open vSwitch counts the processors every ten seconds of the clock that starts with the machine, hence none before. It
# gives a kernel's datapath a thread a processor for packets that match no flow: a bridge of that time would lose them.
_COUNTED_S = 10.1


class OpenVSwitch:
    """The database server and the switch daemon, with `directory` (which is made) for their files."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self._directory = directory
        self._processes = processes

    def start(self) -> str:
        """Start both daemons; the kind of datapath ("kernel" or "user") that bridges can have here."""
        self._directory.mkdir(mode=0o700)
        os.environ["OVS_RUNDIR"] = str(self._directory)
        database = self._directory / "conf.db"
        run_tool("ovsdb-tool", "create", str(database), _SCHEMA)
        # The socket lies in OVS_RUNDIR; Open vSwitch itself knows how to reach one whose path is long.
        self._daemon("ovsdb-server", "--remote=punix:db.sock", str(database))
        self._wait_for_database()
        run_tool("ovs-vsctl", "--no-wait", "init")
        self._daemon("ovs-vswitchd")
        return self._probe()

    def _daemon(self, name: str, *arguments: str) -> None:
        self._processes.start(name, [name, *_QUIET, f"--unixctl={name}.ctl", *arguments], says_ready=False)

    def _wait_for_database(self) -> None:
        deadline = time.monotonic() + 10
        # The socket is there before it listens.
        look = ["ovs-vsctl", "--timeout=1", "--no-wait", "show"]
        while subprocess.run(look, capture_output=True, check=False).returncode:
            dead = self._processes.dead()
            if dead or time.monotonic() > deadline:
                raise ProcessFailed(f"ovsdb-server does not start: {dead[0].last_words() if dead else 'it is silent'}")
            time.sleep(0.01)

    def _probe(self) -> str:
        """Make a bridge in the kernel and look whether it is really there: a failure is not an error of ovs-vsctl."""
        run_tool("ovs-vsctl", "--timeout=20", "add-br", _PROBE)
        port = run_tool("ovs-vsctl", "get", "Interface", _PROBE, "ofport")
        run_tool("ovs-vsctl", "--timeout=20", "del-br", _PROBE)
        if port.strip() != "65534":
            return "user"
        time.sleep(max(0.0, _COUNTED_S - time.monotonic()))
        return "kernel"
