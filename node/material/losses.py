"""Key material that was allocated and came to nothing: told in the journal, counted by QC for metrics and summary."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from decisions.ranges import Range
from node.failures import KeyFailure
from node.limits import LOST_KEYS_KEPT, LOST_KEYS_PER_CALL, LOST_OPEN_S
from node.material import key_events
from telemetry.journal import Journal


class Losses:
    """What was allocated for keys that this node made, or had for its SAEs, and lost since its start. Thread-safe."""

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()
        self._open: dict[str, tuple[str, float]] = {}  # by key ID: the cause, and since when

    @contextmanager
    def counted(self, request: str, uses: Sequence[key_events.Use]) -> Iterator[None]:
        """If the block fails, no key comes of what was allocated for `request`."""
        try:
            yield
        except Exception as failure:
            self.add(request, failure.cause if isinstance(failure, KeyFailure) else KeyFailure.cause, uses)
            raise

    def add(self, request: str, cause: str, uses: Sequence[key_events.Use] = ()) -> None:
        """No key comes of what was allocated for `request`. No `uses`: this node never heard what that was."""
        self._journal.event("lost", allocation=request, cause=cause, ranges=key_events.as_json(uses))
        with self._lock:
            for where, _ in uses:
                self._bytes[where.qc] += len(where)

    def add_keys(self, cause: str, key_ids: Iterable[str]) -> None:
        """These keys are lost, if they were ever allocated; `settle` finds out what they have cost."""
        with self._lock:
            self._open |= dict.fromkeys(key_ids, (cause, self._clock()))
            for key_id in list(islice(self._open, max(0, len(self._open) - LOST_KEYS_KEPT))):
                del self._open[key_id]

    def settle(self, cost: Callable[[Sequence[str]], Iterable[tuple[str, str, Range]]]) -> None:
        """Tell what keys of `add_keys` have cost, as `cost` says (see SharedDatabase.cost); raises what it raises.

        Of which it says nothing, for them it is asked again for LOST_OPEN_S: they may be allocated yet.
        """
        with self._lock:
            asked = dict(islice(self._open.items(), LOST_KEYS_PER_CALL))
        if not asked:
            return
        at = self._clock()
        parts: dict[tuple[str, str], list[key_events.Use]] = {}
        settled = {key_id for key_id, (_, since) in asked.items() if at - since >= LOST_OPEN_S}
        for key_id, request, where in cost(list(asked)):
            if key_id in asked:
                parts.setdefault((request, asked[key_id][0]), []).append((where, key_events.PART))
                settled.add(key_id)
        with self._lock:
            for key_id, since in asked.items():
                self._open.pop(key_id, None)  # those that stay open go behind the others
                if key_id not in settled:
                    self._open[key_id] = since
        for (request, cause), uses in parts.items():
            self.add(request, cause, uses)

    def by_qc(self) -> dict[str, int]:
        """Bytes lost, of each QC on the paths of those keys."""
        with self._lock:
            return dict(self._bytes)
