"""One end of a QC whose key material comes from a device: what both ends have in common."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from documents.secret import Secret
from node.config import Neighbour
from node.devices.device_kme import Device, DeviceFailure
from node.devices.offers import CAUSES, REPEATED
from node.material.blocks import Block
from node.material.key_store import KeyStore, LaidAlready, Suspicion
from node.material.quantum_module import OnBlock
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_STOP_S = 0.3  # for what is under way when the node ends
_WAITS, _ANSWERS, _REFUSES, _SUSPECTED = "waits", "answers", "refuses", "suspected"
_SHORTEST_WAIT_S = 0.02


class DeviceEnd:
    """Works in a thread of its own. What it lays, it lays under `lock`, and never after `stop`. Keys are to come every
    `every_s` seconds.

    `role`: "leads" or "follows". A device that answers begins a slot with an empty block when it gave none in the slot
    before, as others do; one that does not answer says nothing.
    """

    role = ""

    def __init__(
        self, neighbour: Neighbour, device: Device, *, every_s: float, store: KeyStore, journal: Journal, slot_s: float
    ) -> None:
        self.qc = neighbour.qc
        self.peer = neighbour.peer
        self.lock = threading.RLock()
        self._key = neighbour.authentication_key
        self._device = device
        self._every_s = every_s
        self._store = store
        self._journal = journal
        self._slot_s = slot_s
        self._on_block: OnBlock = lambda *_: None
        self._enabled: bool | None = None
        self._state, self._why = _WAITS, ""
        self._counted = (0, 0, time.monotonic())  # an epoch, and which slot it was when
        self._woken = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"device-{self.qc}", daemon=True)

    def start(self, on_block: OnBlock) -> None:
        """Ask the device; `on_block` is called after each block."""
        self._on_block = on_block
        if (suspicion := self._store.suspicion(self.qc)) is not None:
            self._set_state(_SUSPECTED, CAUSES[suspicion.cause])
        self._thread.start()

    def stop(self) -> None:
        """Lay nothing more."""
        self._stopped = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        with self.lock:
            self._device.close()

    def set_enabled(self, enabled: bool) -> None:
        """Whether keys are wanted. Who switches the QC on again trusts its devices."""
        if enabled and self._enabled is False and self._store.suspicion(self.qc) is not None:
            self._store.trust(self.qc)
            self._journal.event("device_trusted", qc=self.qc)
            self._set_state(_WAITS, "")
        self._enabled = enabled
        self._woken.set()

    @property
    def status(self) -> dict[str, Any]:
        """For operators: how the device is, and why."""
        return {"role": self.role, "state": self._state, "why": self._why}

    @property
    def why_silent(self) -> str | None:
        """Why no block comes, if that is known."""
        return self._why or None

    @property
    def trusted(self) -> bool:
        """Whether the devices are trusted."""
        return self._store.suspicion(self.qc) is None

    def hear(self, suspicion: Suspicion | None) -> None:
        """What the other end suspects."""
        if suspicion is not None and self._store.suspect(self.qc, suspicion):
            self._tell(suspicion.cause)

    def _suspect(self, cause: str) -> None:
        if self._store.suspect(self.qc, Suspicion(str(uuid.uuid4()), cause)):
            self._tell(cause)

    def _tell(self, cause: str) -> None:
        _log.error("QC %s is switched off: %s", self.qc, CAUSES[cause])
        self._journal.event("device_suspected", qc=self.qc, cause=cause)
        self._set_state(_SUSPECTED, CAUSES[cause])

    def _set_state(self, state: str, why: str) -> None:
        if self._state == _SUSPECTED and state != _WAITS:
            return  # until it is trusted again
        if state != self._state:
            self._journal.event("device", qc=self.qc, state=state, why=why)
            if state not in (_ANSWERS, _WAITS, _REFUSES, _SUSPECTED):  # it refuses whenever it has too few keys
                _log.warning("QC %s: %s", self.qc, why)
        self._state, self._why = state, why

    def _answered(self) -> None:
        self._set_state(_ANSWERS, "")

    def _failed(self, failure: DeviceFailure) -> None:
        self._set_state(failure.state, f"{failure.meaning}: {failure}")

    @property
    def _may_make(self) -> bool:
        """Whether keys may be laid: they are wanted, trusted, and go on record."""
        return self._enabled is not False and not self._stopped and self.trusted and not self._journal.is_behind

    def _run(self) -> None:
        while not self._stopped:
            wait_s = self._slot_s
            try:
                self._begin_slot()
                wait_s = self.step()
            except Exception as error:
                bugs.report(_log, f"QC {self.qc}: asking its device", error, self._journal)
            self._woken.wait(max(_SHORTEST_WAIT_S, min(wait_s, self._slot_s)))
            self._woken.clear()

    def step(self) -> float:
        """Do what there is to do; in how many seconds there may be more."""
        raise NotImplementedError

    def _slot(self, epoch: int, last: int) -> int:
        """The slot of an epoch that it is now, where the last one that something came in was `last`."""
        now = time.monotonic()
        if self._counted[0] != epoch:
            self._counted = epoch, last, now
        _, slot, since = self._counted
        return max(last, slot + 1 + int((now - since) / self._slot_s))

    def _begin_slot(self) -> None:
        """If nothing came in the slot before this one, say so."""
        with self.lock:
            epoch, head, last = self._store.place(self.qc)
            slot = self._slot(epoch, last) - 1
            if not epoch or slot <= last or self._state not in (_ANSWERS, _REFUSES) or self._stopped:
                return
            # It makes nothing younger: its own age is that of what came before.
            self._store.store(Block(self.qc, 0, slot, head, Secret(b""), epoch=epoch), b"")
        self._on_block(self.qc, slot, 0, None)

    def _lay(
        self, keys: dict[str, Secret], epoch: int, start: int, made: float, *, offered: bool,
        is_right: Callable[[bytes, int], bool] = lambda *_: True,
    ) -> bool:  # fmt: skip
        """Lay keys, in their order, at byte `start` of an epoch; call with the lock. They are wiped.

        False: the epoch was left behind. Nothing is laid of devices that are not trusted, be it since `is_right` was
        asked whether the block's digest and end are as they should be.
        """
        current, _, last = self._store.place(self.qc)
        slot = self._slot(epoch, last if epoch == current else 0)
        payload = _joined(list(keys.values()))
        block = Block(self.qc, 0, slot, start, payload, epoch=epoch, made=made)
        digest, n_bytes = block.digest(self._key), len(payload)
        try:
            if not is_right(digest, start + n_bytes):
                return True
            # First: what is laid is on record.
            self._journal.event(
                "device_block", qc=self.qc, epoch=epoch, start=start, end=start + n_bytes, made=round(made, 6),
                at=round(self._store.clock(), 6),
            )  # fmt: skip
            if not self._store.lay(block, digest, list(keys), offered=offered):
                return False
        except LaidAlready:
            self._suspect(REPEATED)
            return True
        finally:
            payload.wipe()
        self._on_block(self.qc, slot, n_bytes, None)
        return True


def _joined(keys: Sequence[Secret]) -> Secret:
    data = bytearray()
    for key in keys:
        data += key.reveal()
        key.wipe()
    joined = Secret(data)
    data[:] = bytes(len(data))  # joined is a copy
    return joined
