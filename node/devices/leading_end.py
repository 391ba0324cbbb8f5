"""The end of a QC with devices that asks for new keys, lays them, and offers them to the other end."""

from __future__ import annotations

import secrets
import time
from typing import Any

from node.devices.device_end import DeviceEnd
from node.devices.device_kme import BadAnswer, DeviceFailure
from node.devices.offers import Answer, Told, is_behind, settled
from node.limits import DEVICE_BAD_S, MOST_OFFERS, WANTED_S


class LeadingEnd(DeviceEnd):
    """Asks its device only while the other end wants more and has laid what was offered before: else keys stay there.

    What was answered to the node before its end and not laid is lost: GS QKD 014 gives a key once.
    """

    role = "leads"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._due = 0.0  # monotonic, as is the next one
        self._wanted_until = 0.0
        self._new_epoch = 0  # that the next block begins

    def answer(self, said: Told) -> Answer:
        """What the other end is told, when it has said what it has."""
        self.hear(said.suspicion)
        suspicion = self._store.suspicion(self.qc)
        with self.lock:
            epoch, head = self._place()
            if is_behind(said, epoch, head):
                self._begin_anew()
                epoch, head = self._place()
            offers, now = self._store.offers(self.qc), self._store.clock()
            gone = offers if suspicion else settled(offers, said, epoch=epoch, oldest=now - self._store.ttl_s)
            if gone:
                self._store.withdraw(self.qc, gone)
            left = [offer for offer in offers if offer not in gone]
            if said.ready:
                self._wanted_until = time.monotonic() + WANTED_S
            if len(left) < MOST_OFFERS:
                self._woken.set()
            if not left:
                return Answer(epoch, head, suspicion=suspicion)
            return Answer(epoch, left[0].start, left[0], max(0.0, now - left[0].made))

    def _place(self) -> tuple[int, int]:
        """The epoch and its head."""
        return (self._new_epoch, 0) if self._new_epoch else self._store.place(self.qc)[:2]

    def _begin_anew(self) -> None:
        self._new_epoch = 1 + secrets.randbelow((1 << 63) - 1)

    def step(self) -> float:
        """Ask the device for new keys if it is time, and lay them."""
        now = time.monotonic()
        wanted = now < self._wanted_until and len(self._store.offers(self.qc)) < MOST_OFFERS
        if not (wanted and self._may_make):
            return self._slot_s
        if now < self._due:
            return self._due - now
        made = self._store.clock()  # or before: how long a device has had a key, it does not say
        try:
            keys = self._device.get_keys()
        except DeviceFailure as failure:
            self._failed(failure)
            pause_s = DEVICE_BAD_S if isinstance(failure, BadAnswer) else min(self._every_s, self._slot_s)
            self._due = time.monotonic() + pause_s
            return pause_s
        self._answered()
        with self.lock:
            if self._stopped or not self.trusted:
                for key in keys.values():
                    key.wipe()
                return self._slot_s
            epoch, start = self._place()
            if not epoch:
                self._begin_anew()
                epoch, start = self._place()
            if self._lay(keys, epoch, start, made, offered=True):
                self._new_epoch = 0
            else:
                self._begin_anew()
        self._due = max(self._due + self._every_s, now)
        return max(0.0, self._due - time.monotonic())
