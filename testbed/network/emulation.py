"""A running QKD network, and what is done to it. How it comes to run: `testbed.stages.bring_up`."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtls.credentials import Credentials
from mtls.identity import Identity
from testbed.database.shared_database import SharedDatabase
from testbed.fibres.captures import Captures
from testbed.fibres.fibres import Fibres, MeasuredLink
from testbed.machine.processes import Process, Processes
from testbed.machine.run_directory import RunDirectory
from testbed.network.fabric import Network
from testbed.network.faults import Faults
from testbed.network.operator_calls import ControlRoom
from testbed.planning.plan import Plan
from testbed.vpn.tunnels import Tunnels


@dataclass(frozen=True, slots=True)
class Emulation:
    """The network of `plan` in run directory `run`; `outside` is the machine's own network namespace.

    `shaper`, `datapath`: what shapes links and forwards frames. `links`: as they were measured at the start. `exposed`:
    what expose.json says, if servers are published.
    """

    plan: Plan
    run: RunDirectory
    outside: int
    processes: Processes
    network: Network
    shaper: str
    datapath: str
    fibres: Fibres
    links: Sequence[MeasuredLink]
    database: SharedDatabase
    control_room: ControlRoom
    faults: Faults
    captures: Captures
    tunnels: Tunnels
    exposed: Mapping[str, Any] | None
    identities: Mapping[Identity, Credentials]

    def credentials(self, identity: Identity) -> Credentials:
        """The certificate and key that this run issued to `identity`."""
        return self.identities[identity]

    def dead(self) -> list[Process]:
        """Processes that ended on their own."""
        return self.processes.dead()

    def versions(self) -> dict[str, str]:
        """Versions of what a measurement may depend on."""
        # What the controller itself says that it runs on: it may have an environment of its own.
        framework = str(self.control_room.controller("GET", "/qkd/v1/status").body["framework"])
        packages = ("qkd-testbed", "mininet", "Flask", "networkx", "cryptography")
        found = {name: importlib.metadata.version(name) for name in packages}
        switch = subprocess.run(["ovs-vsctl", "--version"], capture_output=True, text=True, check=False).stdout
        return {
            **found,
            **dict([framework.split(" ")]),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "open_vswitch": switch.splitlines()[0].rpartition(" ")[2] if switch else "unknown",
            "postgresql": self.database.version(),
        }
