"""The QKP pool of a session's first node: keys made ahead, which wait for the next rekeying. Thread-safe.

In memory only. A node that restarts forgets its pool; the same keys at the slave's node are then never asked for, and
are dropped there after the TTL.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from etsi.secret import Secret

Keys = list[tuple[str, Secret]]
# KSID, bytes of a key, and the QC that is the keys' clock. When a session moves, another QC may be its clock, with
# other numbers of slots: what was pooled before is then left to grow old.
Place = tuple[str, int, str]


class Pool:
    """Keys by session and size, each with the slot in which it was pooled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[Place, deque[tuple[str, Secret, int]]] = {}
        self._refills: dict[str, threading.Lock] = {}

    def refill_lock(self, ksid: str) -> threading.Lock:
        """Held by who looks and refills, so that two requests of a session do not refill both."""
        with self._lock:
            return self._refills.setdefault(ksid, threading.Lock())

    def put(self, place: Place, keys: Sequence[tuple[str, Secret]], slot: int) -> None:
        """Have `keys` wait; they are as old as the place's QC has begun slots since `slot`."""
        with self._lock:
            self._keys.setdefault(place, deque()).extend((key_id, key, slot) for key_id, key in keys)

    def count(self, place: Place, slot: int, ttl_slots: int) -> int:
        """How many keys wait that are not older than `ttl_slots` in `slot`; older ones are erased."""
        with self._lock:
            return len(self._fresh(place, slot, ttl_slots))

    def take(self, place: Place, number: int, slot: int, ttl_slots: int) -> Keys | None:
        """The `number` oldest keys that are not too old; None, and none is taken, if there are fewer."""
        with self._lock:
            waiting = self._fresh(place, slot, ttl_slots)
            if len(waiting) < number:
                return None
            return [waiting.popleft()[:2] for _ in range(number)]

    def levels(self) -> dict[str, int]:
        """How many keys wait, by the QC that is their clock."""
        with self._lock:
            found: dict[str, int] = {}
            for place, keys in self._keys.items():
                found[place[2]] = found.get(place[2], 0) + len(keys)
            return found

    def drop(self, ksid: str) -> None:
        """Erase all keys of a session that ended."""
        with self._lock:
            for place in [p for p in self._keys if p[0] == ksid]:
                for _, key, _ in self._keys.pop(place):
                    key.wipe()
            self._refills.pop(ksid, None)

    def expire(self, qc: str, slot: int, ttl_slots: int) -> None:
        """Erase what is older than `ttl_slots` now that `qc` has begun `slot`."""
        with self._lock:
            for place in [p for p in self._keys if p[2] == qc]:
                self._fresh(place, slot, ttl_slots)

    def _fresh(self, place: Place, slot: int, ttl_slots: int) -> deque[tuple[str, Secret, int]]:
        waiting = self._keys.get(place, deque())
        while waiting and slot - waiting[0][2] > ttl_slots:
            waiting.popleft()[1].wipe()
        return waiting
