"""Opens the key sessions of a workload, each at its time, in a running network."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from mtls.call import Unreachable
from scenario.workload import Arrival
from telemetry import bugs
from testbed.network.emulation import Emulation
from testbed.planning.plan import SaePlan

_log = logging.getLogger(__name__)
_LOOK_S = 0.05


class OfferedLoad:
    """Applications that arrive in a thread; what no session came of is said. Nothing arrives before `start()`."""

    def __init__(self, emulation: Emulation, arrivals: Sequence[Arrival[SaePlan]], say: Callable[[str], None]) -> None:
        self._emulation = emulation
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
        for arrival in self._arrivals:
            if self._stop.wait(max(0.0, begin + arrival.at_s - time.monotonic())):
                break
            answer = self._emulation.open_session(arrival.master, arrival.slave, arrival.qos, arrival.length_s)
            opening.append((arrival, answer))
        for arrival, answer in opening:
            who = f"{arrival.master.name} with {arrival.slave.name}"
            while not answer.done():
                if self._stop.wait(_LOOK_S):
                    return
            try:
                reply = answer.result()
                if not reply.ok:
                    self._say(f"no session of {who}: {reply.message}")
            except Unreachable as error:
                self._say(f"no session of {who}: {error}")


def lasts_s(arrivals: Sequence[Arrival[SaePlan]]) -> float:
    """Seconds until the last session with a given length has ended."""
    return max((a.at_s + (a.length_s or 0.0) for a in arrivals), default=0.0)
