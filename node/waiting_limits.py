"""Places for those who wait for another party: so many for each party, and of what holds a thread so many in all.

`Once`: what several callers want at the same moment is done once, and its outcome is that of all of them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar


class Places:
    """`most` places in all, of which each party has `each` at most. Thread-safe."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._lock = threading.Lock()
        self._taken = 0
        self._of: Counter[str] = Counter()

    def take(self, *parties: str) -> bool:
        """Take a place, which counts for each of `parties`, until it is given back; False if there is none."""
        counts = dict.fromkeys(parties, 1)
        with self._lock:
            if self._taken >= self._most or any(self._of[party] >= self._each for party in counts):
                return False
            self._taken += 1
            self._of.update(counts)
        return True

    def give_back(self, *parties: str) -> None:
        """The place that was taken for the same is free again."""
        with self._lock:
            self._taken -= 1
            self._of -= Counter(dict.fromkeys(parties, 1))

    @contextmanager
    def taken(self, *parties: str, full: Exception) -> Iterator[None]:
        """A place while the block lasts, which counts for each of `parties`; if there is none, `full` is raised."""
        if not self.take(*parties):
            raise full
        try:
            yield
        finally:
            self.give_back(*parties)


class Turns:
    """`each` places at each thing, for which those who find none wait. Thread-safe.

    Who came first goes first, of those that find all their places free: nobody waits for longer than the others take.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()
        self._waiting: dict[threading.Event, Collection[str]] = {}  # in the order in which they came

    @contextmanager
    def taken(self, things: Collection[str], wait_s: float, *, full: Exception) -> Iterator[None]:
        """A place at all of `things` at once while the block lasts; if there is none in time, `full` is raised."""
        wanted, given = set(things), threading.Event()
        with self._lock:
            self._waiting[given] = wanted
            self._give()
        if not given.wait(wait_s):
            with self._lock:
                if self._waiting.pop(given, None) is not None:
                    raise full
        try:
            yield
        finally:
            with self._lock:
                self._of -= Counter(wanted)
                self._give()

    def _give(self) -> None:
        """Whoever waits and finds all its places free has them from now on."""
        for given, wanted in list(self._waiting.items()):
            if all(self._of[thing] < self._each for thing in wanted):
                self._of.update(wanted)
                del self._waiting[given]
                given.set()


class HalfOpen:
    """Registrations of pairs of SAEs that wait for their other side: `each` of a party. Thread-safe.

    One that is older than `age_s` waits no more. `now` gives seconds that only grow.
    """

    def __init__(self, each: int, age_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._each = each
        self._age_s = age_s
        self._now = now
        self._lock = threading.Lock()
        self._of: dict[str, dict[tuple[str, str], float]] = {}  # party -> its pairs -> since when they wait

    def add(self, party: str, pair: tuple[str, str], *, full: Exception) -> None:
        """The pair waits from now on, or still does; if too many of that party do, `full` is raised."""
        now = self._now()
        with self._lock:
            waiting = self._of.get(party, {})
            if pair not in waiting and len(waiting) >= self._each:
                waiting = {p: since for p, since in waiting.items() if since > now - self._age_s}
                if len(waiting) >= self._each:
                    raise full
            self._of[party] = waiting | {pair: now}

    def remove(self, pair: tuple[str, str], party: str | None = None) -> bool:
        """The pair waits no more, as that party or any has it; whether it did, as far as is known."""
        with self._lock:
            of = self._of.values() if party is None else [self._of.get(party, {})]
            return sum(waiting.pop(pair, None) is not None for waiting in of) > 0


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
