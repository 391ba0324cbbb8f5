"""Does to a running network what a storm draws, and undoes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from etsi.gs004 import QoS
from mtls.call import Unreachable
from testbed.errors import UserError
from testbed.machine.processes import Process, ProcessFailed
from testbed.network.emulation import Emulation
from testbed.network.operator_calls import ControlRoom
from testbed.operation.desk import Desk, NotDone
from testbed.operation.words import rate_of
from testbed.planning.plan import OPERATOR
from testbed.storm import gusts
from testbed.storm.disks import Disks
from testbed.storm.gusts import Blow

# So frequent that a session which gets no keys shows within the time that the network has to heal.
QOS = QoS(key_size_bits=128, interval_s=1.0)
# An operator who hears nothing for so long tries again later.
_OPERATOR_S = 10.0
_NODE = "node-"
# What `qkd fault` calls by the same word.
_FAULTS = (gusts.CUT, gusts.QC, gusts.DEVICE)


class Injector:
    """Breaks and heals. Thread-safe for faults that hit different things; all of it raises UserError, in one line."""

    def __init__(self, emulation: Emulation, disks: Disks) -> None:
        self._emulation = emulation
        self._room = ControlRoom(
            emulation.plan, emulation.credentials(OPERATOR), emulation.network.pid("ctl"), timeout_s=_OPERATOR_S
        )
        self.desk = Desk.of(emulation, self._room)
        self.standard = self.desk.parameters()
        faults = self.desk.faults
        self._ways: Mapping[str, tuple[Callable[..., object], Callable[..., object]]] = {
            gusts.KILL: (self._kill, self._start),
            gusts.PAUSE: (self._pause, self._wake),
            **{k: (functools.partial(faults.inject, k), functools.partial(faults.heal, k)) for k in _FAULTS},
            gusts.ONE_WAY: (self._lose, self._reset),
            gusts.DISK: (disks.fill, disks.empty),
            gusts.STANDBY: (lambda _: faults.inject("standby"), lambda _: faults.heal("standby")),
            gusts.SET: (self._set, self._unset),
            gusts.OPEN: (self.open, _nothing),
            gusts.END: (self.end, _nothing),
        }

    def close(self) -> None:
        """Hang up."""
        self._room.close()

    def break_(self, blow: Blow) -> None:
        """Have that fault happen."""
        self._ways[blow.kind][0](*blow.on)

    def heal(self, blow: Blow) -> None:
        """Undo it; returns when what was killed says that it is ready."""
        self._ways[blow.kind][1](*blow.on)

    def open(self, master: str, slave: str) -> None:
        """Have two applications open a key session; both by name."""
        asks, answers = self.desk.sae(master), self.desk.sae(slave)
        wanted = {"peer": answers.id, "qos": QOS.to_json()}
        try:
            reply = self._room.sae(asks, "POST", "/sae/v1/sessions", wanted).result()
        except Unreachable as error:
            raise NotDone(f"{master} with {slave}: {error}") from None
        if not reply.ok:
            raise NotDone(f"{master} with {slave}: not opened: {reply.message}")

    def end(self, master: str, slave: str) -> None:
        """Have their key session end."""
        self.desk.close(self.desk.ksid(master, slave))

    def sessions_of(self, master: str) -> list[dict[str, Any]]:
        """The key sessions of which an application is the master, as it sees them itself."""
        try:
            reply = self._room.sae(self.desk.sae(master), "GET", "/sae/v1/sessions").result()
        except Unreachable as error:
            raise NotDone(f"{master}: {error}") from None
        if not reply.ok:
            raise NotDone(f"{master}: {reply.message}")
        return [s for s in reply.body["sessions"] if s["side"] == "master"]

    def _kill(self, name: str) -> None:
        fault = _fault_of(name)
        if fault is not None:
            self.desk.faults.inject(*fault)
        else:
            self._process(name).kill()

    def _start(self, name: str) -> None:
        fault = _fault_of(name)
        if fault is not None:
            self.desk.faults.heal(*fault)
            return
        try:
            self._emulation.processes.restart(name).wait_ready()
        except ProcessFailed as error:
            raise UserError(f"start {name}: {error}") from None

    def _pause(self, name: str) -> None:
        self._process(name).pause()

    def _wake(self, name: str) -> None:
        self._process(name).wake()

    def _process(self, name: str) -> Process:
        return self._emulation.processes.named(name)

    def _lose(self, source: str, target: str) -> None:
        (fibre,) = self.desk.fibres.between(source, target)
        self.desk.fibres.change(fibre.name, {"loss_percent": 100}, towards=target)

    def _reset(self, source: str, target: str) -> None:
        (fibre,) = self.desk.fibres.between(source, target)
        self.desk.fibres.reset(fibre.name)

    def _set(self, name: str, *value: str) -> None:
        if name == gusts.RATE:
            self.desk.set_rate(value[0], *rate_of(value[1]))
        elif name == gusts.GENERATION:
            self.desk.set_generation(value[0], enabled=value[1] == "on")
        else:
            self.desk.set_parameter(name, value[0])

    def _unset(self, name: str, *value: str) -> None:
        if name == gusts.RATE:
            qcs = (qc for link in self._emulation.plan.topology.links for qc in link.qcs)
            qc = next(qc for qc in qcs if qc.name == value[0])
            self.desk.set_rate(qc.name, qc.low_bytes_per_slot, qc.high_bytes_per_slot)
        elif name == gusts.GENERATION:
            self.desk.set_generation(value[0], enabled=True)
        else:
            self.desk.set_parameter(name, str(self.standard[name]))


def _nothing(*_: object) -> None:
    """What is done at once has nothing to heal."""


def _fault_of(process: str) -> tuple[str, ...] | None:
    """What `qkd fault` calls it to kill that process, if it does."""
    if process.startswith(_NODE):
        return "node", process.removeprefix(_NODE)
    return {gusts.CONTROLLER: ("controller",), gusts.DATABASE: ("database",)}.get(process)
