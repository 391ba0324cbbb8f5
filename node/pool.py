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


class Pool:
    """Keys by session and size, each with the slot in which it was pooled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, int], deque[tuple[str, Secret, int]]] = {}
        self._refills: dict[str, threading.Lock] = {}

    def refill_lock(self, ksid: str) -> threading.Lock:
        """Held by who looks and refills, so that two requests of a session do not refill both."""
        with self._lock:
            return self._refills.setdefault(ksid, threading.Lock())

    def put(self, ksid: str, key_bytes: int, keys: Sequence[tuple[str, Secret]], slot: int) -> None:
        """Have `keys` wait."""
        with self._lock:
            self._keys.setdefault((ksid, key_bytes), deque()).extend((key_id, key, slot) for key_id, key in keys)

    def count(self, ksid: str, key_bytes: int, slot: int, ttl_slots: int) -> int:
        """How many keys of that size wait that are not older than `ttl_slots` in `slot`; older ones are erased."""
        with self._lock:
            return len(self._fresh(ksid, key_bytes, slot, ttl_slots))

    def take(self, ksid: str, key_bytes: int, number: int) -> Keys:
        """The `number` oldest keys; the caller has counted them under the refill lock."""
        with self._lock:
            waiting = self._keys[ksid, key_bytes]
            return [waiting.popleft()[:2] for _ in range(number)]

    def drop(self, ksid: str) -> None:
        """Erase all keys of a session that ended."""
        with self._lock:
            for place in [p for p in self._keys if p[0] == ksid]:
                for _, key, _ in self._keys.pop(place):
                    key.wipe()
            self._refills.pop(ksid, None)

    def expire(self, slot: int, ttl_slots: int) -> None:
        """Erase all keys older than `ttl_slots` in `slot`."""
        with self._lock:
            for ksid, key_bytes in list(self._keys):
                self._fresh(ksid, key_bytes, slot, ttl_slots)

    def _fresh(self, ksid: str, key_bytes: int, slot: int, ttl_slots: int) -> deque[tuple[str, Secret, int]]:
        waiting = self._keys.get((ksid, key_bytes), deque())
        while waiting and slot - waiting[0][2] > ttl_slots:
            waiting.popleft()[1].wipe()
        return waiting
