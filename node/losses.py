"""Key material that was allocated and came to nothing: told in the journal, counted by QC for metrics and summary."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from node import told
from node.failures import KeyFailure
from telemetry.journal import Journal


class Losses:
    """What was allocated for keys of this node's masters and lost, since the node's start. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def counted(self, request: str, uses: Sequence[told.Use]) -> Iterator[None]:
        """If the block fails, no key comes of what was allocated for `request`."""
        try:
            yield
        except Exception as failure:
            self.add(request, failure.cause if isinstance(failure, KeyFailure) else KeyFailure.cause, uses)
            raise

    def add(self, request: str, cause: str, uses: Sequence[told.Use] = ()) -> None:
        """No key comes of what was allocated for `request`. No `uses`: this node never heard what that was."""
        self._journal.event("lost", request=request, cause=cause, ranges=told.as_json(uses))
        with self._lock:
            for where, _ in uses:
                self._bytes[where.qc] += len(where)

    def by_qc(self) -> dict[str, int]:
        """Bytes lost of each QC on the paths of those keys."""
        with self._lock:
            return dict(self._bytes)
