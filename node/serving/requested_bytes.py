"""What is asked of each QC, as admission control counts it: each request once, however often it is tried."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

# A session that has not declared how often it wants keys is taken for one that wants them as often as others do.
USUAL_INTERVAL_S = 5.0

_Kind = tuple[str, int]  # KSID, bytes of a key


class Requested:
    """Bytes asked of each QC since the start, granted or not. `now` gives seconds that only grow. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()
        # Requests that were not met: until when a try is of the same, and what has been counted for it.
        self._unmet: dict[_Kind, tuple[float, dict[str, int]]] = {}

    def add(
        self, ksid: str, key_bytes: int, needs: Sequence[tuple[str, int]], *, met: bool, interval_s: float
    ) -> None:
        """Count a request of a session for keys of `key_bytes`, which needs so much of each QC, and was met or not.

        What follows an unmet one sooner than the session's interval of `interval_s` seconds is the same tried again:
        of that only counts what it needs beyond what was counted before.
        """
        now, kind, wanted = self._now(), (ksid, key_bytes), dict(needs)
        with self._lock:
            until, counted = self._unmet.pop(kind, (now, {}))
            if now >= until:
                until, counted = now + interval_s, {}
            self._bytes.update({qc: max(0, n - counted.get(qc, 0)) for qc, n in wanted.items()})
            if not met:
                self._unmet[kind] = until, {qc: max(n, counted.get(qc, 0)) for qc, n in wanted.items()}

    def forget(self, ksid: str) -> None:
        """That session is over."""
        with self._lock:
            self._unmet = {kind: unmet for kind, unmet in self._unmet.items() if kind[0] != ksid}

    def totals(self) -> dict[str, int]:
        """The counts. What was tried for the last time is forgotten: its session may be over."""
        now = self._now()
        with self._lock:
            self._unmet = {kind: unmet for kind, unmet in self._unmet.items() if unmet[0] > now}
            return dict(self._bytes)
