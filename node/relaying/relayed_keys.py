"""What relays have brought to this node as the last one of a path, until the first node claims it. In memory only."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from documents.secret import Secret
from node.limits import CLAIM_S, CLAIMS, PARTS_BYTES_PER_NODE, REST_S

# What came along a chain has no sender: who claims it does not know the one before the last node.
CHAIN = ""
_KEEPING_BYTES = 1024
_Piece = tuple[str, int]  # a sender, and which of the pieces that it sends for a request


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

    Of a request there is what came along a chain, or pieces of each of several senders.
    """

    def __init__(self, life_s: Callable[[], float], clock: Callable[[], float]) -> None:
        self._life_s = life_s
        self._clock = clock
        self._changed = threading.Condition()
        self.waiting = 0  # who claim something that has not come
        self._found: dict[tuple[str, _Piece], tuple[float, Relayed]] = {}  # by request
        self._kept: Counter[str] = Counter()  # bytes of each sender's pieces

    def put(self, request: str, relayed: Relayed, *, sender: str = CHAIN, number: int = 0) -> bool:
        """Have it wait to be claimed, as the piece of that number of that sender.

        False, and it is wiped, if it is there, or that sender has too many here; never of what came along a chain.
        """
        with self._changed:
            place, cost = (request, (sender, number)), _cost(relayed)
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
        found, _ = self.claim_parts(request, ksid, {0: [(CHAIN, 0)]}, enough=1, patiently=patiently)
        return found[0][0] if found else None

    def claim_parts(
        self, request: str, ksid: str, parts: Mapping[int, Sequence[_Piece]], *, enough: int, patiently: bool
    ) -> tuple[dict[int, list[Relayed]], list[str]]:
        """Pieces of those of the `parts` of which all have come, if these are `enough`, and they are not here any more.

        Beside them the senders of pieces that have not come. `patiently`: wait for them, unless too many wait; when
        enough have come, for the rest only a moment.
        """
        self.expire()

        def absent() -> dict[int, list[_Piece]]:
            return {
                part: gone
                for part, pieces in parts.items()
                if (gone := [p for p in pieces if (f := self._found.get((request, p))) is None or f[1].ksid != ksid])
            }

        with self._changed:
            if patiently and absent() and self.waiting < CLAIMS:
                self.waiting += 1
                try:
                    if self._changed.wait_for(lambda: len(parts) - len(absent()) >= enough, CLAIM_S):
                        self._changed.wait_for(lambda: not absent(), REST_S)
                finally:
                    self.waiting -= 1
            gone = absent()
            there = {part: pieces for part, pieces in parts.items() if part not in gone}
            if len(there) < enough:
                there = {}
            found = {part: [self._pop((request, piece)) for piece in pieces] for part, pieces in there.items()}
            return found, list(dict.fromkeys(sender for pieces in gone.values() for sender, _ in pieces))

    def expire(self) -> None:
        """Erase what is too old to be claimed."""
        oldest = self._clock() - self._life_s()
        with self._changed:
            for place in [place for place, (since, _) in self._found.items() if since < oldest]:
                self._pop(place).wipe()

    def _pop(self, place: tuple[str, _Piece]) -> Relayed:
        """The caller holds the lock."""
        _, relayed = self._found.pop(place)
        self._kept[place[1][0]] -= _cost(relayed)
        return relayed


def _cost(relayed: Relayed) -> int:
    """Bytes, with those of what keeps it."""
    return len(relayed.secret) + len(relayed.new_keys) + _KEEPING_BYTES
