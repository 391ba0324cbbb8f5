"""Signals as a process waits for them: one after the other, in its main thread, at a place of its choosing.

A handler may run at any instruction of the main thread. One that sets an event while the main thread holds this event's
own lock, at the beginning or the end of a wait, waits for its own thread for ever. SimpleQueue's put() may interrupt
its get().
"""

from __future__ import annotations

import queue
import signal


class Signals:
    """Those signals, from now on. To be made, and waited for, by the main thread."""

    def __init__(self, *wanted: signal.Signals) -> None:
        self._come: queue.SimpleQueue[int] = queue.SimpleQueue()
        for signum in wanted:
            signal.signal(signum, lambda number, _: self._come.put(number))

    def next(self, timeout_s: float | None = None) -> int | None:
        """Wait for the next one, for so many seconds or for ever; None if none came."""
        try:
            return self._come.get(timeout=timeout_s)
        except queue.Empty:
            return None
