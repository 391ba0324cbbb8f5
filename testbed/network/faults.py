"""Faults for the classroom: a fibre, a QC, a node, the shared database or the controller fails, and is healed again.

A fibre carries both light and traffic: cut, it takes its QCs along. A QC that fails alone leaves the traffic; its
devices say that there is no key, unless they have lost their power. An eavesdropper on the fibre raises its QCs' error
rate, and lowers their rate until no key comes. A process that fails is killed, as a crash would,
and healed by starting it again on what it left on disk; or it is paused, and sleeps until it is healed, while its
connections look alive.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from mtls.call import Unreachable
from mtls.identity import Identity
from scenario.machines import places
from scenario.quantum.qc_models import in_a_row
from telemetry.journal import Journal
from testbed.database.replicated_database import ReplicatedDatabase
from testbed.database.shared_database import Database
from testbed.errors import UserError
from testbed.machine.processes import Processes, ProcessFailed
from testbed.planning.databases import SINGLE
from testbed.planning.fault import (
    CONTROLLER,
    CUT,
    DATABASE,
    DEVICE,
    EVE,
    KINDS,
    MACHINE,
    NODE,
    PARTITION,
    PAUSE,
    PRIMARY,
    QC,
    STANDBY,
    Fault,
)
from testbed.planning.plan import CONTROLLERS, LinkPlan, Plan, process_of

_OF_QCS = (CUT, QC, DEVICE)
_OF_LIGHT = (CUT, EVE)


def check(plan: Plan, kind: str, where: Sequence[str]) -> tuple[str, ...]:
    """The datacenters or hosts that a fault of that kind names, in the plan's own order; UserError. PURE.

    None for a DATABASE that fails over means the host that takes writes. Of several controllers one may be named, or
    what it is, PRIMARY or STANDBY.
    """
    if kind not in KINDS:
        raise UserError(f"fault {kind}: expected one of {', '.join(KINDS)}")
    controllers = [each.name for each in plan.controllers]
    if kind == CONTROLLER:
        return _which_controller(controllers, where)
    if kind in (STANDBY, PARTITION) or (kind == DATABASE and plan.database != SINGLE):
        return _which_host(plan, kind, where)
    if kind == EVE:
        where, _ = _with_fraction(where)
    if kind == PAUSE and len(where) == 1 and where[0] in controllers:
        return tuple(where)
    machines = [machine.name for machine in plan.topology.machines]
    if kind == MACHINE and not machines:
        raise UserError(f"fault {kind}: all of this network is on one machine")
    what, known = ("machine", machines) if kind == MACHINE else ("datacenter", plan.nodes)
    if len(where) != KINDS[kind]:
        raise UserError(f"fault {kind}: expected {('nothing', f'a {what}', 'two datacenters')[KINDS[kind]]} after it")
    for name in where:
        if name not in known:
            raise UserError(f"fault {kind}: no {what} {name!r}: expected one of {', '.join(known)}")
    if len(where) == 2:
        fibre = _link_between(plan, *where).link
        if kind in (QC, DEVICE, EVE) and {qc.name for qc in fibre.qcs} <= device_qcs(plan):
            raise UserError(f"fault {kind}: the QCs of {fibre.name} are devices of yours, which nothing here breaks")
        return fibre.a, fibre.b
    return tuple(where)


def _which_controller(controllers: Sequence[str], where: Sequence[str]) -> tuple[str, ...]:
    """The controller that is named; nothing where there is one. UserError. PURE."""
    if len(where) > 1 or (where and where[0] not in (PRIMARY, STANDBY, *controllers)):
        words = f"{PRIMARY}, {STANDBY}, {', '.join(controllers)}"
        raise UserError(f"fault {CONTROLLER}: expected one of {words} after it, or nothing, which is {PRIMARY}")
    if len(controllers) == 1 and STANDBY in where:
        raise UserError(f"fault {CONTROLLER}: there is one controller: 'run.py --controller ha' has another stand by")
    return tuple(where) if len(controllers) > 1 else ()


def _which_host(plan: Plan, kind: str, where: Sequence[str]) -> tuple[str, ...]:
    """The host of the database that is named, if one is; UserError. PURE."""
    if kind == STANDBY and plan.database != SINGLE:
        text = "the database has a standby, which takes over by itself: 'qkd fault database' kills what takes writes"
        raise UserError(f"fault {kind}: {text} (--database {plan.database})")
    if kind == STANDBY and where:
        raise UserError(f"fault {kind}: expected nothing after it")
    if len(where) > 1 or (kind == PARTITION and not where) or not {*where} <= {*plan.database_hosts}:
        hosts = f"a host of the database after it: {', '.join(plan.database_hosts)}"
        raise UserError(f"fault {kind}: expected {'' if kind == PARTITION else 'nothing, or '}{hosts}")
    return tuple(where)


def _with_fraction(where: Sequence[str]) -> tuple[Sequence[str], float]:
    """The datacenters, and the fraction that may stand behind them, else all; UserError. PURE."""
    if len(where) < 3:
        return where, 1.0
    try:
        fraction = float(where[2])
    except ValueError:
        fraction = math.nan
    if len(where) > 3 or not 0 < fraction <= 1:
        raise UserError("fault eve: expected two datacenters and a fraction above 0 and up to 1 after it")
    return where[:2], fraction


def _link_between(plan: Plan, a: str, b: str) -> LinkPlan:
    """The fibre between two datacenters; UserError. PURE."""
    for link in plan.links:
        if {link.link.a, link.link.b} == {a, b}:
            return link
    raise UserError(f"no fibre between {a} and {b}: there are {', '.join(p.link.name for p in plan.links)}")


def device_qcs(plan: Plan) -> set[str]:
    """The QCs whose key material comes from devices of the user's. PURE."""
    return {qc.name for link in plan.topology.links for qc in link.qcs if qc.source is not None}


def broken_qcs(plan: Plan, faults: Iterable[Fault]) -> set[str]:
    """The QCs of which nothing comes under these faults: those that failed, and those of fibres that are cut. PURE."""
    return _qcs(plan, (f for f in faults if f.kind in _OF_QCS))


def silent_qcs(plan: Plan, faults: Iterable[Fault]) -> set[str]:
    """The QCs of which not a word comes: their devices are without power. PURE."""
    return _qcs(plan, (f for f in faults if f.kind == DEVICE))


def intercepted_qcs(plan: Plan, faults: Iterable[Fault]) -> dict[str, float]:
    """The QCs on whose fibres somebody listens, and the part of the pulses that is intercepted. PURE."""
    found: dict[str, list[float]] = {}
    for fault in faults:
        for qc in _qcs(plan, [fault]) if fault.kind == EVE else ():
            found.setdefault(qc, []).append(fault.fraction)
    return {qc: in_a_row(eves) for qc, eves in found.items()}


def _qcs(plan: Plan, faults: Iterable[Fault]) -> set[str]:
    """Those of the fibres that are named; and where light itself is concerned, those whose light takes these. PURE."""
    found = set()
    for fault in faults:
        for link in plan.topology.links:
            if (link.a, link.b) == fault.where:
                found |= {qc.name for qc in link.qcs}
                found |= set(plan.topology.qcs_over(link.name)) if fault.kind in _OF_LIGHT else set()
    return found


class Faults:
    """What is broken in a running network. Thread-safe; all of it raises UserError, in one line.

    `kill_machine` ends all that is on one, if there are several.
    `set_carrier` puts out a fibre or lights it, `set_port` the cable of a host. `database`: None if it is the user's.
    `break_qcs` has exactly these QCs make nothing, and of those the second ones say nothing either;
    of the third ones that part is intercepted. `leader` says which controller leads; Unreachable.
    """

    def __init__(
        self,
        plan: Plan,
        processes: Processes,
        journal: Journal,
        *,
        set_carrier: Callable[[LinkPlan, bool], None],
        set_port: Callable[[str, bool], None],
        break_qcs: Callable[[Collection[str], Collection[str], Mapping[str, float]], None],
        database: Database | ReplicatedDatabase | None,
        leader: Callable[[], Identity],
        kill_machine: Callable[[str], None] | None = None,
    ) -> None:
        self._leader = leader
        self._plan = plan
        self._processes = processes
        self._journal = journal
        self._carrier = set_carrier
        self._set_port = set_port
        self._break_qcs = break_qcs
        self._database = database
        self._kill_machine = kill_machine
        self._lock = threading.Lock()
        self._active: dict[tuple[str, tuple[str, ...]], Fault] = {}

    def active(self) -> list[Fault]:
        """What is broken now, the oldest first."""
        return sorted(self._active.values(), key=lambda f: f.since)

    def inject(self, kind: str, *where: str) -> Fault:
        """Break something: KINDS says how many datacenters it names."""
        names = check(self._plan, kind, where)
        if kind == CONTROLLER and len(self._plan.controllers) > 1:
            names = (self._controller(*names),)
        how = {"fraction": _with_fraction(where)[1]} if kind == EVE else {}
        with self._lock:
            if kind == DATABASE and isinstance(self._database, ReplicatedDatabase) and not names:
                if self._database.in_command is None:
                    raise UserError(f"fault {kind}: no host of the database takes writes now; name the one you mean")
                names = (self._database.in_command,)
            if (kind, names) in self._active:
                raise UserError(f"{' '.join((kind, *names))} is broken already")
            fault = Fault(kind, names, time.time(), **how)
            self._break(fault)
            self._active[kind, names] = fault
            self._journal.event("fault", kind=kind, where=list(names), **how)
        return fault

    def heal(self, kind: str | None = None, *where: str) -> list[Fault]:
        """Heal that, or everything; what is healed now. Returns when what was killed serves again."""
        with self._lock:
            if kind is None:
                chosen = sorted(self.active(), key=lambda f: f.kind == STANDBY)  # killed, it must live to be promoted
                chosen = [fault for fault in chosen if fault.kind != MACHINE]
            else:
                names = check(self._plan, kind, where)
                # Which controller leads, or which host takes writes, says nothing of the one that was broken because it
                # did: there is one to heal.
                one_of = kind == CONTROLLER and set(names) <= {PRIMARY, STANDBY}
                chosen = [f for f in self.active() if f.kind == kind and (one_of or names in (f.where, ()))]
                if not chosen:
                    raise UserError(f"{' '.join((kind, *names))} is not broken: 'qkd fault' lists what is")
            for fault in chosen:
                self._mend(fault)
                self._journal.event("healed", kind=fault.kind, where=list(fault.where))
        return chosen

    def _controller(self, which: str = PRIMARY) -> str:
        """The name of the controller that is meant."""
        if which not in (PRIMARY, STANDBY):
            return which
        try:
            leader = self._leader()
        except Unreachable:
            raise UserError("fault controller: no controller leads now: name the one that you mean") from None
        others = [each.name for each in self._plan.controllers if each != leader]
        return leader.name if which == PRIMARY else others[0]

    def heal_database(self) -> None:
        """At the end of a run: its records are in the database."""
        of_database = (DATABASE, PARTITION, STANDBY)
        for fault in sorted(self.active(), key=lambda f: f.kind == STANDBY):
            if fault.kind in of_database:
                self.heal(fault.kind, *fault.where)

    def _break(self, fault: Fault) -> None:
        if fault.kind in (*_OF_QCS, EVE):
            self._set_qcs([*self._active.values(), fault])
            if fault.kind == CUT:
                self._set_carrier(fault, up=False)
            return
        if fault.kind == MACHINE and self._kill_machine is not None:
            self._kill_machine(*fault.where)
            # What was broken there before is gone with it, and is not there to be healed.
            at = places(self._plan.topology.machines, self._plan.nodes)
            there = {node for node in self._plan.nodes if at[node] == fault.where[0]}
            self._active = {
                key: f for key, f in self._active.items() if f.kind not in (NODE, PAUSE) or not there & {*f.where}
            }
            return
        if fault.kind == PARTITION:
            self._set_cable(fault, up=False)
            return
        if isinstance(self._database, ReplicatedDatabase) and fault.kind == DATABASE:
            self._database.kill(*fault.where)
            return
        if fault.kind in (DATABASE, STANDBY):
            self._own_database(fault)
        process = self._processes.named(_process(fault))
        if not process.alive():
            how = "has ended on its own already" if process.wanted else "is down by another fault: heal that first"
            raise UserError(f"fault {fault.name}: {process.name} {how}")
        if fault.kind == PAUSE:
            process.pause()
        elif fault.kind == STANDBY:
            self._own_database(fault).fail_over()
        else:
            process.kill()

    def _mend(self, fault: Fault) -> None:
        """Also forgets the fault, unless what was killed does not start."""
        if fault.kind == CUT:
            self._set_carrier(fault, up=True)
        elif fault.kind == PARTITION:
            self._set_cable(fault, up=True)
        elif fault.kind == PAUSE:
            self._processes.named(_process(fault)).wake()
        elif isinstance(self._database, ReplicatedDatabase) and fault.kind == DATABASE:
            self._database.restart(*fault.where)
        elif fault.kind == DATABASE:
            self._own_database(fault).restart()
        elif fault.kind == STANDBY:
            self._own_database(fault).promote()
        elif fault.kind in (NODE, CONTROLLER):
            self._restart(fault)
        elif fault.kind == MACHINE:
            raise UserError(f"heal {fault.name}: a machine that was killed stays away until the run ends")
        del self._active[fault.kind, fault.where]
        if fault.kind in (*_OF_QCS, EVE):
            self._set_qcs(self._active.values())

    def _set_qcs(self, faults: Collection[Fault]) -> None:
        self._break_qcs(
            broken_qcs(self._plan, faults), silent_qcs(self._plan, faults), intercepted_qcs(self._plan, faults)
        )

    def _own_database(self, fault: Fault) -> Database:
        if self._database is None or isinstance(self._database, ReplicatedDatabase):
            raise UserError(f"fault {fault.name}: the database is yours (--shared-db): the testbed does not break it")
        return self._database

    def _restart(self, fault: Fault) -> None:
        try:
            process = self._processes.restart(_process(fault))
        except ProcessFailed as error:
            raise UserError(f"heal {fault.name}: {error}") from None
        try:
            process.wait_ready()
        except ProcessFailed as error:
            process.kill()  # it is still the fault that is to blame
            raise UserError(f"heal {fault.name}: {error}") from None

    def _set_carrier(self, fault: Fault, *, up: bool) -> None:
        try:
            self._carrier(_link_between(self._plan, *fault.where), up)
        except ProcessFailed as error:
            raise UserError(f"{fault.name}: {error}") from None


    def _set_cable(self, fault: Fault, *, up: bool) -> None:
        try:
            self._set_port(fault.where[0], up)
        except ProcessFailed as error:
            raise UserError(f"{fault.name}: {error}") from None


def _process(fault: Fault) -> str:
    """The name of the process that a fault kills or pauses."""
    where = "".join(fault.where)
    if fault.kind == CONTROLLER or where in [each.name for each in CONTROLLERS]:
        return process_of(where or CONTROLLERS[0].name)
    names = {NODE: "node-", PAUSE: "node-", DATABASE: "postgres", STANDBY: "postgres"}
    return names[fault.kind] + where
