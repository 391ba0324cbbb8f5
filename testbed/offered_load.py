"""Opens the key sessions of a workload, each at its time, in a running network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mtls.call import Unreachable
from testbed.emulation import Emulation
from testbed.workload import Arrival


class OfferedLoad:
    """Applications that arrive in a thread; what no session came of is said. Nothing arrives before `start()`."""

    def __init__(self, emulation: Emulation, arrivals: Sequence[Arrival], say: Callable[[str], None]) -> None:
        self._emulation = emulation
        self._arrivals = arrivals
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._open_all, name="arrivals", daemon=True)

    def start(self) -> None:
        """Time begins."""
        self._thread.start()

    def stop(self) -> None:
        """Nothing arrives any more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def join(self) -> None:
        """Return when all have arrived and know their KSID, or that they get none."""
        self._thread.join()

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
            try:
                reply = answer.result()
                if not reply.ok:
                    self._say(f"no session of {who}: {reply.message}")
            except Unreachable as error:
                self._say(f"no session of {who}: {error}")


def lasts_s(arrivals: Sequence[Arrival]) -> float:
    """Seconds until the last session with a given length has ended."""
    return max((a.at_s + (a.length_s or 0.0) for a in arrivals), default=0.0)
