"""Opens the key sessions of a workload, each at its time, by the requests that every operator makes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenario.workload import Arrival
from telemetry import bugs
from testbed.errors import UserError
from testbed.planning.plan import SaePlan

_log = logging.getLogger(__name__)
_LOOK_S = 0.05
_AT_ONCE = 16  # openings under way; an operator makes no more calls at a time


class OfferedLoad:
    """Applications that arrive in a thread; what no session came of is said. Nothing arrives before `start()`.

    `do` does the requests of the operator's interface.
    """

    def __init__(
        self, do: Callable[..., Any], arrivals: Sequence[Arrival[SaePlan]], say: Callable[[str], None]
    ) -> None:
        self._do = do
        self._arrivals = arrivals
        self._say = say
        self._stop = threading.Event()
        # Not by Thread.join(): after Ctrl-C in one, the next one returns at once.
        self._done = threading.Event()
        self._done.set()

    def start(self) -> None:
        """Time begins."""
        self._done.clear()
        threading.Thread(target=self._run, name="arrivals", daemon=True).start()

    def stop(self) -> None:
        """Nothing arrives any more, and no answer is awaited."""
        self._stop.set()
        self._done.wait()

    def join(self) -> None:
        """Return when all have arrived and know their KSID, or that they get none."""
        self._done.wait()

    def _run(self) -> None:
        try:
            self._open_all()
        except Exception as error:
            bugs.report(_log, "opening key sessions", error)
        finally:
            self._done.set()

    def _open_all(self) -> None:
        begin = time.monotonic()
        opening = []
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="opening")
        try:
            for arrival in self._arrivals:
                if self._stop.wait(max(0.0, begin + arrival.at_s - time.monotonic())):
                    return
                opening.append(pool.submit(self._open, arrival))
            for answer in opening:
                while not answer.done():
                    if self._stop.wait(_LOOK_S):
                        return
                answer.result()  # a bug of ours, if it raises
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _open(self, arrival: Arrival[SaePlan]) -> None:
        wanted = {"duration_s": arrival.length_s, **arrival.qos.to_json()}
        try:
            self._do("open", master=arrival.master.id, slave=arrival.slave.id, **wanted)
        except UserError as error:
            if not self._stop.is_set():
                self._say(f"{arrival.master.name} with {arrival.slave.name}: {error}")


def lasts_s(arrivals: Sequence[Arrival[SaePlan]]) -> float:
    """Seconds until the last session with a given length has ended."""
    return max((a.at_s + (a.length_s or 0.0) for a in arrivals), default=0.0)
