"""The end of a QC with devices that lays what the other end offers, if its own device gives the same."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Any

from documents.checks import Malformed
from mtls.call import Unreachable
from node.devices.device_end import DeviceEnd
from node.devices.device_kme import BadAnswer, DeviceFailure, Refused
from node.devices.offers import DIFFERS, Answer, Told, answer
from node.limits import DEVICE_BAD_S, KEYS_LATE_S
from node.material.key_store import Offer

AskPeer = Callable[[dict[str, Any]], Any]


class FollowingEnd(DeviceEnd):
    """`ask` brings the other end's answer to what it is told; Unreachable.

    A block that its device does not give any more is given up: it stays at the other end, and becomes no key.
    """

    role = "follows"

    def __init__(self, *arguments: Any, ask: AskPeer, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ask = ask
        self._at: tuple[int, int] = self._store.place(self.qc)[:2]  # what is done: laid, or given up
        self._refused: int | None = None
        self._is_there = False  # the device
        self._rests_until = 0.0  # monotonic
        self._there_since = 0.0  # monotonic

    def step(self) -> float:
        """Lay what the other end offers, one block after the other."""
        while self._take_one():
            pass
        return min(self._slot_s, self._every_s)

    def _take_one(self) -> bool:
        """Whether there may be more at once."""
        ready = self._may_make and self._device_is_there()
        asked = self._store.clock()
        said = Told(*self._at, ready, self._refused, self._store.suspicion(self.qc))
        try:
            heard = answer(self._ask(said.to_json(self.qc)))
        except (Unreachable, Malformed):
            return False
        self._refused = None
        self.hear(heard.suspicion)
        if not self._note(heard) or heard.offer is None or not (ready and self._may_make):
            return False
        return self._fetch(heard.offer, asked - heard.age_s)

    def _device_is_there(self) -> bool:
        if not self._is_there and time.monotonic() >= self._rests_until:
            try:
                self._device.check()
            except DeviceFailure as failure:
                self._failed(failure)
            else:
                self._is_there, self._there_since = True, time.monotonic()
                self._answered()
        return self._is_there

    def _note(self, heard: Answer) -> bool:
        """What the other end offers no more is given up. False if it offers what is done: it does not know better."""
        epoch, done = self._at
        if not heard.epoch:
            return False
        if heard.epoch != epoch:
            stored, head, _ = self._store.place(self.qc)
            self._at = epoch, done = heard.epoch, head if heard.epoch == stored else 0
        if heard.begins > done:
            self._give_up(epoch, done, heard.begins)
        return heard.begins >= done

    def _give_up(self, epoch: int, start: int, end: int) -> None:
        self._journal.event("device_gap", qc=self.qc, epoch=epoch, start=start, end=end)
        self._at = epoch, end

    def _fetch(self, offer: Offer, made: float) -> bool:
        try:
            keys = self._device.get_keys_with_ids(offer.key_ids)
        except DeviceFailure as failure:
            self._failed(failure)
            # When it is back, it may need a moment.
            waited_s = min(self._store.clock() - made, time.monotonic() - self._there_since)
            late = waited_s >= KEYS_LATE_S
            self._is_there = isinstance(failure, Refused) and failure.for_good
            if isinstance(failure, BadAnswer):
                self._rests_until = time.monotonic() + DEVICE_BAD_S
            if isinstance(failure, BadAnswer) or (self._is_there and late):
                self._give_up(offer.epoch, offer.start, offer.end)
            return False
        self._answered()

        def is_same(digest: bytes, end: int) -> bool:
            if end == offer.end and hmac.compare_digest(digest, offer.digest):
                return True
            self._suspect(DIFFERS)
            return False

        with self.lock:
            if self._stopped:
                for key in keys.values():
                    key.wipe()
                return False
            if not self._lay(keys, offer.epoch, offer.start, made, offered=False, is_right=is_same):
                self._give_up(offer.epoch, offer.start, offer.end)
                self._refused = offer.epoch
            elif self.trusted:
                self._at = offer.epoch, offer.end
            else:
                self._give_up(offer.epoch, offer.start, offer.end)
        return self.trusted
