"""Under load, a server's threads share one processor.

Python computes in one thread of a process at a time. At each call of the kernel another thread may take over, and the
first one waits for its turn afterwards. On one processor that seldom happens: who waits for its turn is not run before
the other one has to wait for something. On several processors it happens nearly always. With 16 clients a key costs 16
changes of thread then, in place of 5, and a KME serves a third fewer.

With one client there is nothing to take over, and on a processor of its own each thread and each process goes on at
once. So the threads are gathered only while several requests are being answered, and for a while afterwards.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

_MANY = 3  # requests at a time
_LASTS_S = 1.0


class Gathering:
    """`app` for the workers of a server: with many requests they and the event loop share processor `number`.

    Processors are counted round. `extensions` are those of `app`. Thread-safe.
    """

    def __init__(self, app: WSGIApplication, number: int) -> None:
        self.extensions: dict[str, Any] = getattr(app, "extensions", {})
        self.loop_thread: int | None = None  # its native ID, once it runs
        self._app = app
        self._everywhere = frozenset(os.sched_getaffinity(0))
        self._here = frozenset([sorted(self._everywhere)[number % len(self._everywhere)]])
        self._lock = threading.Lock()
        self._running = 0
        self._until = 0.0  # monotonic seconds
        self._places: dict[int, frozenset[int]] = {}  # by thread, where it is not everywhere

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        now = time.monotonic()
        with self._lock:
            self._running += 1
            if self._running >= _MANY:
                self._until = now + _LASTS_S
        place = self._here if now < self._until else self._everywhere
        for thread in (threading.get_native_id(), self.loop_thread):
            if thread is not None and self._places.get(thread, self._everywhere) is not place:
                with suppress(OSError):  # a processor was taken away
                    os.sched_setaffinity(thread, place)
                self._places[thread] = place
        try:
            return self._app(environ, start_response)
        finally:
            with self._lock:
                self._running -= 1
