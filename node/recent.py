"""IDs that a node had to do with lately: of keys that it relayed from here, of key sessions that ended here."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable

# Some megabytes at most. What is older is unknown here, as it is after a restart.
_MOST = 1 << 15


class RecentIds:
    """A set of the last IDs put into it. Thread-safe."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._ids: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, ids: Iterable[str]) -> None:
        """Remember these, at the cost of the oldest ones."""
        with self._lock:
            self._ids.update(dict.fromkeys(ids))
            while len(self._ids) > self._most:
                self._ids.popitem(last=False)

    def any_of(self, ids: Iterable[str]) -> bool:
        """Whether one of these is remembered."""
        with self._lock:
            return any(i in self._ids for i in ids)
