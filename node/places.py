"""Places for those who wait for another party: so many in all, and so many for each party."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """`most` places in all, of which each party has `each` at most. Thread-safe."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._lock = threading.Lock()
        self._taken = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def taken(self, *parties: str, full: Exception) -> Iterator[None]:
        """A place while the block lasts, which counts for each of `parties`; if there is none, `full` is raised."""
        counts = dict.fromkeys(parties, 1)
        with self._lock:
            if self._taken >= self._most or any(self._of[party] >= self._each for party in counts):
                raise full
            self._taken += 1
            self._of.update(counts)
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1
                self._of -= Counter(counts)
