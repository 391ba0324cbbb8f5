"""The QKP pool of a session's first node: keys made ahead, which wait for the next rekeying. Thread-safe.

In memory only. A node that restarts forgets its pool; the same keys at the slave's node are then never asked for, and
are dropped there after the TTL.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence

from documents.secret import Secret

Keys = list[tuple[str, Secret]]
Place = tuple[str, int]  # KSID, bytes of a key
_Waiting = deque[tuple[str, Secret, float, str]]  # key ID, key, when it was made, first QC of the path


class Pool:
    """Keys by session and size, each with the time at which it was made, in seconds of a clock of the caller's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[Place, _Waiting] = {}

    def put(self, place: Place, keys: Sequence[tuple[str, Secret]], *, made: float, qc: str) -> None:
        """Have `keys` wait, which were made at `made` over a path that begins with `qc`."""
        with self._lock:
            self._keys.setdefault(place, deque()).extend((key_id, key, made, qc) for key_id, key in keys)

    def count(self, place: Place, oldest: float) -> int:
        """How many keys wait that were made after `oldest`; the others are erased."""
        with self._lock:
            return len(self._fresh(place, oldest))

    def take(self, place: Place, number: int, oldest: float) -> Keys | None:
        """The `number` oldest keys made after `oldest`; None, and none is taken, if there are fewer."""
        with self._lock:
            waiting = self._fresh(place, oldest)
            if len(waiting) < number:
                return None
            return [waiting.popleft()[:2] for _ in range(number)]

    def levels(self) -> dict[str, int]:
        """How many keys wait, by the first QC of the path over which they were made."""
        with self._lock:
            return dict(Counter(qc for keys in self._keys.values() for *_, qc in keys))

    def drop(self, ksid: str) -> None:
        """Erase all keys of a session that ended."""
        with self._lock:
            for place in [p for p in self._keys if p[0] == ksid]:
                for _, key, *_ in self._keys.pop(place):
                    key.wipe()

    def expire(self, oldest: float) -> None:
        """Erase what was made at `oldest` or before."""
        with self._lock:
            for place in list(self._keys):
                if not self._fresh(place, oldest):
                    del self._keys[place]

    def _fresh(self, place: Place, oldest: float) -> _Waiting:
        waiting = self._keys.get(place, deque())
        while waiting and waiting[0][2] <= oldest:
            waiting.popleft()[1].wipe()
        return waiting
