"""What several callers want at the same moment is done once, and its outcome is that of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Steps by what they are about. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[T]] = {}

    def do(self, about: Hashable, step: Callable[[], T]) -> T:
        """What `step` gives or raises; of callers that come while one is at it, the first one's step is everybody's."""
        mine: Future[T] = Future()
        with self._lock:
            first = self._running.setdefault(about, mine)
        if first is mine:
            try:
                mine.set_result(step())
            except Exception as failure:
                mine.set_exception(failure)
            finally:
                with self._lock:
                    del self._running[about]
        return first.result()
