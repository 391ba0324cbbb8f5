"""Does to a running network what a storm draws, and undoes it.

What operators can do is asked for as they ask for it. By the machine's own means fail: applications and the QC
emulator, which are parts of the testbed, and no place of the network; real devices, which are no part of it at all;
full disks, since a disk can be full only in a run whose directories lie on file systems made for that before its start;
and pauses, which are drawn to a tenth of a second, while an operator's faults begin and end one after another, each as
long as it takes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from etsi.gs004 import QoS
from mtls.call import Unreachable
from mtls.identity import Identity
from testbed.database.replicated_database import ReplicatedDatabase
from testbed.errors import UserError
from testbed.machine.processes import Process, ProcessFailed
from testbed.network.emulation import Emulation
from testbed.network.operator_calls import ControlRoom
from testbed.operation.operator import Operator
from testbed.operation.words import rate_of
from testbed.planning.fault import PARTITION, PRIMARY, STANDBY
from testbed.planning.plan import OPERATOR, Plan, process_of
from testbed.storm import gusts
from testbed.storm.devices import Devices
from testbed.storm.disks import Disks
from testbed.storm.gusts import Blow

# So frequent that a session which gets no keys shows within the time that the network has to heal.
QOS = QoS(key_size_bits=128, interval_s=1.0)
# An operator who hears nothing for so long tries again later.
_OPERATOR_S = 10.0
_NODE = "node-"
# What `qkd fault` calls by the same word.
_FAULTS = (gusts.CUT, gusts.QC, gusts.DEVICE)


class Victims:
    """Which of several a blow on the leader, on the host that takes writes, or on another one, is for. Thread-safe.

    Two blows on controllers hit both. `leader`: the controller that leads; Unreachable. `primary`: the host of the
    database that takes writes, None if none does.
    """

    def __init__(self, plan: Plan, leader: Callable[[], Identity], primary: Callable[[], str | None]) -> None:
        self._names = {gusts.CONTROLLER: [each.name for each in plan.controllers],
                       gusts.HOST: [host.name for host in plan.database_servers]}  # fmt: skip
        self._leader = leader
        self._primary = primary
        self._lock = threading.Lock()
        self._hit: dict[tuple[str, ...], tuple[str, ...]] = {}

    def hit(self, on: tuple[str, ...]) -> tuple[str, ...]:
        """What a blow on that hits now: the same, with a name for a part that one of several has."""
        kind, *which = on
        if kind not in self._names or which not in ([PRIMARY], [STANDBY]):
            return on
        with self._lock:
            first = self._first(kind)
            others = [name for name in self._names[kind] if name != first]
            chosen = [first, *others] if which == [PRIMARY] else [*others, first]
            name = next(name for name in chosen if (kind, name) not in self._hit.values())
            self._hit[on] = kind, name
            return self._hit[on]

    def hit_by(self, on: tuple[str, ...]) -> tuple[str, ...]:
        """What that blow has hit."""
        return self._hit.get(on, on)

    def forget(self, on: tuple[str, ...]) -> None:
        """It is over."""
        self._hit.pop(on, None)

    def _first(self, kind: str) -> str:
        try:
            found = self._leader().name if kind == gusts.CONTROLLER else self._primary()
        except Unreachable:
            found = None
        return found or self._names[kind][0]


class Injector:
    """Breaks and heals. Thread-safe for faults that hit different things; all of it raises UserError, in one line."""

    def __init__(self, emulation: Emulation, disks: Disks, devices: Devices | None) -> None:
        self._emulation = emulation
        self._room = ControlRoom(
            emulation.plan, emulation.credentials(OPERATOR), emulation.network.pid("ctl"), timeout_s=_OPERATOR_S
        )
        self._operator = Operator(emulation, room=self._room)
        self.do = self._operator.do
        database = emulation.database.breakable
        self._victims = Victims(
            emulation.plan, self._room.leader,
            lambda: database.in_command if isinstance(database, ReplicatedDatabase) else None,
        )  # fmt: skip
        self.standard: Mapping[str, Any] = self.do("parameters")
        self._ways: Mapping[str, tuple[Callable[..., object], Callable[..., object]]] = {
            gusts.KILL: (self._kill, self._start),
            gusts.PAUSE: (self._pause, self._wake),
            **{k: (functools.partial(self._break, k), functools.partial(self._mend, k)) for k in _FAULTS},
            gusts.ONE_WAY: (self._lose, self._reset),
            gusts.DISK: (disks.fill, disks.empty),
            gusts.PARTITION: (self._cut_off, self._join),
            gusts.STANDBY: (lambda _: self._break("standby"), lambda _: self._mend("standby")),
            gusts.SET: (self._set, self._unset),
            gusts.OPEN: (self.open, _nothing),
            gusts.END: (self.end, _nothing),
        }
        if devices is not None:
            self._ways = {
                **self._ways,
                gusts.DEVICE_KILL: (devices.kill, devices.restart),
                gusts.DEVICE_SLOW: (devices.slow, devices.quick),
                gusts.DEVICE_CUT: (devices.cut, devices.join),
            }

    def close(self) -> None:
        """Hang up."""
        self._operator.close()
        self._room.close()

    def break_(self, blow: Blow) -> None:
        """Have that fault happen."""
        try:
            self._ways[blow.kind][0](*self._victims.hit(blow.on))
        except UserError:
            self._victims.forget(blow.on)
            raise

    def heal(self, blow: Blow) -> None:
        """Undo it; returns when what was killed says that it is ready."""
        self._ways[blow.kind][1](*self._victims.hit_by(blow.on))
        self._victims.forget(blow.on)

    def open(self, master: str, slave: str) -> None:
        """Have two applications open a key session; both by name."""
        self.do("open", master=master, slave=slave, **QOS.to_json())

    def end(self, master: str, slave: str) -> None:
        """Have their key session end."""
        self.do("close", **self.do("ksid", master=master, slave=slave))

    def sessions_of(self, master: str) -> list[dict[str, Any]]:
        """The key sessions of which an application is the master, as it sees them itself."""
        return [s for s in self.do("sae", name=master)["sessions"] if s["side"] == "master"]

    def _break(self, kind: str, *where: str) -> None:
        self.do("break", kind=kind, where=list(where))

    def _mend(self, kind: str, *where: str) -> None:
        self.do("heal", kind=kind, where=list(where))

    def _cut_off(self, _: str, host: str) -> None:
        self._break(PARTITION, host)

    def _join(self, _: str, host: str) -> None:
        self._mend(PARTITION, host)

    def _kill(self, *on: str) -> None:
        fault, name = _fault_of(*on), on[0]
        if fault is not None:
            self._break(*fault)
        else:
            self._process(name).kill()

    def _start(self, *on: str) -> None:
        fault, name = _fault_of(*on), on[0]
        if fault is not None:
            self._mend(*fault)
            return
        try:
            self._emulation.processes.restart(name).wait_ready()
        except ProcessFailed as error:
            raise UserError(f"start {name}: {error}") from None

    def _pause(self, *on: str) -> None:
        self._process(_process_of(*on)).pause()

    def _wake(self, *on: str) -> None:
        self._process(_process_of(*on)).wake()

    def _process(self, name: str) -> Process:
        return self._emulation.processes.named(name)

    def _lose(self, source: str, target: str) -> None:
        fibre = self._fibre(source, target)
        self.do("change_fibre", fibre=fibre, shape={"loss_percent": 100}, towards=target, measure=False)

    def _reset(self, source: str, target: str) -> None:
        self.do("reset_fibre", fibre=self._fibre(source, target), measure=False)

    def _fibre(self, *ends: str) -> str:
        (name,) = (link.name for link in self._emulation.plan.topology.links if {link.a, link.b} == {*ends})
        return name

    def _set(self, name: str, *value: str) -> None:
        if name == gusts.RATE:
            low, high = rate_of(value[1])
            self.do("set_rate", qc=value[0], low=low, high=high)
        elif name == gusts.GENERATION:
            self.do("set_generation", qc=value[0], enabled=value[1] == "on")
        else:
            self.do("set", name=name, value=value[0])

    def _unset(self, name: str, *value: str) -> None:
        if name == gusts.RATE:
            qcs = (qc for link in self._emulation.plan.topology.links for qc in link.qcs)
            qc = next(qc for qc in qcs if qc.name == value[0])
            self.do("set_rate", qc=qc.name, low=qc.low_bytes_per_slot, high=qc.high_bytes_per_slot)
        elif name == gusts.GENERATION:
            self.do("set_generation", qc=value[0], enabled=True)
        else:
            self.do("set", name=name, value=str(self.standard[name]))


def _nothing(*_: object) -> None:
    """What is done at once has nothing to heal."""


def _fault_of(process: str, *which: str) -> tuple[str, ...] | None:
    """What `qkd fault` calls it to kill that process, or that one of several, if it does."""
    if which:
        return process, *which
    if process.startswith(_NODE):
        return "node", process.removeprefix(_NODE)
    return {gusts.CONTROLLER: ("controller",), gusts.DATABASE: ("database",)}.get(process)


def _process_of(process: str, *controller: str) -> str:
    """The name of a process, which may be that of a controller."""
    return process_of(*controller) if controller else process
