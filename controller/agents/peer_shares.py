"""Steps on behalf of peers, in threads that all share: whoever keeps its own steps waiting holds up nobody else's."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from telemetry import bugs, trace
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
Step = Callable[[], object]


class Turns:
    """At most `threads` steps at a time, `for_one` of them for one peer, of whose steps `waiting` more are kept.

    Thread-safe.
    """

    def __init__(self, name: str, journal: Journal, *, threads: int, for_one: int, waiting: int) -> None:
        self._journal = journal
        self._for_one = for_one
        self._most = waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._stopping = False
        self._lock = threading.Lock()
        self._running: collections.Counter[str] = collections.Counter()
        self._waiting: dict[str, collections.deque[Step]] = {}

    def take(self, peer: str, step: Callable[..., object], *arguments: Any, **named: Any) -> bool:
        """Have `step` done for `peer`, in the trace of now, when it is its turn; False if too many wait already."""

        def run() -> None:
            try:
                step(*arguments, **named)
            except Exception as error:
                bugs.report(_log, f"step {getattr(step, '__name__', step)}", error, self._journal, peer=peer)

        carried = trace.carried(run)
        with self._lock:
            queue = self._waiting.setdefault(peer, collections.deque())
            if len(queue) >= self._most:
                return False
            queue.append(carried)
            self._start(peer)
        return True

    def stop(self) -> None:
        """Take no step that is not under way yet."""
        self._stopping = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, peer: str) -> None:
        queue = self._waiting[peer]
        if queue and self._running[peer] < self._for_one:
            self._running[peer] += 1
            try:
                self._pool.submit(self._run, peer, queue.popleft())
            except RuntimeError as error:
                if self._stopping:
                    queue.clear()
                else:  # the machine gives it no thread now; the pool has the step, for its next thread that is free
                    bugs.report(_log, "a thread for a step", error, self._journal, peer=peer)

    def _run(self, peer: str, step: Step) -> None:
        step()
        with self._lock:
            self._running[peer] -= 1
            self._start(peer)
            if not self._running[peer]:
                del self._running[peer], self._waiting[peer]
