"""Stage one of a network that comes up: certificates of all parties, and processes that import what they need."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity
from telemetry import bugs
from testbed.database.shared_database import UserDatabase
from testbed.machine.processes import Processes
from testbed.machine.run_directory import RunDirectory
from testbed.network.expose import LOOPBACK
from testbed.network.faults import device_qcs
from testbed.planning.plan import COMPONENTS, NOBODY, Plan

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a network beyond its plan.

    `parameters`: of the controller, at the start. `seed`: of all QCs. `habits`: of the applications, see
    `Plan.sae_config`. `expose`: the first port of the machine at which servers can be reached, ANY_PORT for whatever is
    free, None for no port at all. `controller_python` runs the controller. `first_bytes`: key material that each QC has
    to have had before the network counts as up; None if nobody knows what will be asked for first.
    `policies`: those of the user's own, FILE.py:NAME by parameter.
    """

    parameters: Mapping[str, Any]
    seed: int | None = None
    habits: Mapping[str, str] = field(default_factory=dict)
    user_database: UserDatabase | None = None
    expose: int | None = None
    controller_python: str = sys.executable
    first_bytes: int | None = None
    policies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    """What has been prepared. `identities`: the credentials of each party."""

    plan: Plan
    run: RunDirectory
    wishes: Wishes
    outside: int
    say: Callable[[str], None]
    down: contextlib.ExitStack
    processes: Processes
    identities: Mapping[Identity, Credentials]
    ca_key: Path

    def write_qcs(
        self, broken: Collection[str] = (), off: Collection[str] = (), eve: Mapping[str, float] = NOBODY
    ) -> Path:
        """The file that tells the QC emulators which QCs are broken or off, and what is intercepted, by QC."""
        nodes, qcs = self.run.make("nodes"), self.run.make("qcs")
        document = self.plan.qc_config(qcs, nodes, seed=self.wishes.seed, broken=broken, off=off, eve=eve)
        return self.run.write("config/qcs.json", document)

    @property
    def outside_network(self) -> str:
        """The file of the machine's own network namespace, as this process (the run's first) holds it open."""
        return f"/proc/1/fd/{self.outside}"


def prepare(
    plan: Plan, run: RunDirectory, wishes: Wishes, *, outside: int, say: Callable[[str], None],
    down: contextlib.ExitStack,
) -> Machine:  # fmt: skip
    """Stage one: certificates of all parties, and processes that import what they need."""
    processes = Processes(run.make("logs"), COMPONENTS)
    down.callback(processes.stop)
    # Before this process has a log. A fork has one thread of this process's, and all of its memory. So where this
    # process has other threads, or a secret of the user's (for a database, for devices), the server starts afresh.
    secrets = wishes.user_database is not None or device_qcs(plan)
    processes.prepare(forked=threading.active_count() == 1 and not secrets)
    log_to(run.make("logs") / "run.log")
    say("issuing certificates")
    authority = Authority(run.make("pki"))
    # Files are named as people know the party, so that a page can print them: an SAE by no random UUID.
    identities = {
        identity: authority.issue(
            identity, addresses=[plan.hosts[host].ip, LOOPBACK], stem=f"{identity.role}-{name}"
        )
        for identity, host, name in plan.identities()
    }
    return Machine(plan, run, wishes, outside, say, down, processes, identities, authority.ca_key)


def log_to(path: Path) -> None:
    """Have the file `path` tell of bugs in this process, whichever thread they strike: the terminal is the user's."""
    logging.basicConfig(
        filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.raiseExceptions = False  # a log that cannot be written is no news on the terminal
    threading.excepthook = _report


def _report(uncaught: threading.ExceptHookArgs) -> None:
    bugs.report(_log, f"thread {uncaught.thread.name if uncaught.thread else 'of no name'}", uncaught.exc_value)
