"""What relays have brought to this node as the last one of a path, until the first node claims it. In memory only."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from documents.secret import Secret
from node.limits import CLAIM_S, CLAIMS, PARTS_BYTES_PER_NODE

CHAIN = ""  # what came along a chain has no sender: who claims it does not know the one before the last node
_KEEPING_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Relayed:
    """A secret, and the session that it is for.

    `new_keys`: what lay behind its pad, where the last QC gives the new keys.
    """

    secret: Secret
    ksid: str
    new_keys: Secret = field(default_factory=lambda: Secret(b""))

    def wipe(self) -> None:
        """Nobody needs any of it any more."""
        self.secret.wipe()
        self.new_keys.wipe()


class Arrivals:
    """By request; nothing older than `life_s()` by `clock` is given out: no request lives so long. Thread-safe.

    Of a request there is what came along a chain, or a part of each of several senders.
    """

    def __init__(self, life_s: Callable[[], float], clock: Callable[[], float]) -> None:
        self._life_s = life_s
        self._clock = clock
        self._changed = threading.Condition()
        self.waiting = 0  # who claim something that has not come
        self._found: dict[tuple[str, str], tuple[float, Relayed]] = {}  # by request and sender
        self._kept: Counter[str] = Counter()  # bytes of each sender's parts

    def put(self, request: str, relayed: Relayed, *, sender: str = CHAIN) -> bool:
        """Have it wait to be claimed; False, and it is wiped, if it is a part and that sender has too many here."""
        with self._changed:
            place, cost = (request, sender), _cost(relayed)
            if sender != CHAIN and (place in self._found or self._kept[sender] + cost > PARTS_BYTES_PER_NODE):
                relayed.wipe()
                return False
            self._kept[sender] += cost
            self._found[place] = self._clock(), relayed
            self._changed.notify_all()
            return True

    def claim(self, request: str, ksid: str, *, patiently: bool = False) -> Relayed | None:
        """What was relayed for that request of that session, which is not here any more; None if nothing was.

        `patiently`: wait for it, unless too many wait.
        """
        found, _ = self.claim_parts(request, ksid, [CHAIN], patiently=patiently)
        return found[0] if found else None

    def claim_parts(
        self, request: str, ksid: str, senders: Sequence[str], *, patiently: bool
    ) -> tuple[list[Relayed], list[str]]:
        """Parts of all of these senders, which are not here any more; or none, and the senders whose has not come."""
        self.expire()

        def missing() -> list[str]:
            there = (self._found.get((request, sender)) for sender in senders)
            return [s for s, part in zip(senders, there, strict=True) if part is None or part[1].ksid != ksid]

        with self._changed:
            if patiently and missing() and self.waiting < CLAIMS:
                self.waiting += 1
                try:
                    self._changed.wait_for(lambda: not missing(), CLAIM_S)
                finally:
                    self.waiting -= 1
            absent = missing()
            return [] if absent else [self._pop((request, sender)) for sender in senders], absent

    def expire(self) -> None:
        """Erase what is too old to be claimed."""
        oldest = self._clock() - self._life_s()
        with self._changed:
            for place in [place for place, (since, _) in self._found.items() if since < oldest]:
                self._pop(place).wipe()

    def _pop(self, place: tuple[str, str]) -> Relayed:
        """The caller holds the lock."""
        _, relayed = self._found.pop(place)
        self._kept[place[1]] -= _cost(relayed)
        return relayed


def _cost(relayed: Relayed) -> int:
    """Bytes, with those of what keeps it."""
    return len(relayed.secret) + len(relayed.new_keys) + _KEEPING_BYTES
