"""The IDs of keys that this KME made lately: it answers for them by 401, for nobody at its site may collect them."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable

# Some megabytes at most. What is older is unknown here, as it is after a restart.
_MOST = 1 << 15


class RecentIds:
    """A set of the last key IDs put into it. Thread-safe."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._ids: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, key_ids: Iterable[str]) -> None:
        """Remember these, at the cost of the oldest ones."""
        with self._lock:
            self._ids.update(dict.fromkeys(key_ids))
            while len(self._ids) > self._most:
                self._ids.popitem(last=False)

    def any_of(self, key_ids: Iterable[str]) -> bool:
        """Whether one of these is remembered."""
        with self._lock:
            return any(key_id in self._ids for key_id in key_ids)
