"""The server's event loop: workers wake it when it sleeps, and only then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtls.connections.tls_loop import Loop


class Counting(Loop):
    """Counts how often it was woken."""

    woken = 0

    def _write_to_self(self) -> None:
        asleep = self._sleep.asleep
        super()._write_to_self()
        self.woken += asleep


@pytest.fixture
def loop() -> Iterator[Counting]:
    """It runs in a thread of its own."""
    made = Counting()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


def test_no_step_that_another_thread_has_for_it_is_slept_through(loop):
    """However close to its falling asleep that comes: each thread waits for its step before the next one."""

    def ask(_: int) -> bool:
        for _ in range(3000):
            done = threading.Event()
            loop.call_soon_threadsafe(done.set)
            if not done.wait(20):
                return False
        return True

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(ask, range(3)))


def test_loop_that_is_at_work_is_not_woken(loop):
    """At the end of its turn it sees what there is to do."""
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()

    loop.call_soon_threadsafe(work)
    assert begun.wait(20)
    before = loop.woken
    for _ in range(100):
        loop.call_soon_threadsafe(lambda: None)
    loop.call_soon_threadsafe(over.set)
    go_on.set()

    assert over.wait(20)
    assert loop.woken == before
