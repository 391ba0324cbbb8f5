"""How this node's QCs and applications fare: rates measured over the last seconds, bits consumed by period."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from decisions.rhythm import Coming
from node.material.key_stream import Held
from node.tree.operational_state import AppState, QcState, State

_WINDOW_S = 15.0
# A QC that has been silent for so long is down; slots last a second.
SILENCE_S = 5.0
_MOST_SLOTS = 3600  # that are remembered for the gaps between a QC's blocks
_PERIOD_S = 10.0
_KEPT_PERIODS = 30


class Performance:
    """What was seen of QCs and applications. Thread-safe. `now`: seconds that only grow; `wall`: the time of day."""

    def __init__(
        self,
        held: Callable[[], Sequence[Held]],
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._held = held
        self._now = now
        self._wall = wall
        self._lock = threading.Lock()
        self._blocks: dict[str, _Blocks] = {}  # by QC
        self._qber: dict[str, float] = {}
        self._apps: dict[str, _Consumption] = {}

    def qber(self) -> dict[str, float]:
        """By QC, in percent, as far as devices have told."""
        with self._lock:
            return dict(self._qber)

    def block(self, qc: str, n_bytes: int, qber_percent: float | None) -> None:
        """A block came, with the error rate that was measured when it was made."""
        now = self._now()
        with self._lock:
            self._blocks.setdefault(qc, _Blocks()).add(now, n_bytes)
            if qber_percent is not None:
                self._qber[qc] = qber_percent

    def app_made(self, app_id: str) -> None:
        """An application was configured."""
        with self._lock:
            self._apps.setdefault(app_id, _Consumption(self._wall()))

    def app_gone(self, app_id: str) -> None:
        """An application is over."""
        with self._lock:
            self._apps.pop(app_id, None)

    def consumed(self, app_id: str, bits: int) -> None:
        """An application took key material."""
        with self._lock:
            app = self._apps.get(app_id)
            if app is not None:
                app.add(bits, self._wall())

    def state(self, ttl_slots: int) -> State:
        """Everything as it is now, where key material lives for so long."""
        held = {h.qc: h for h in self._held()}
        with self._lock:
            qcs = {qc: self._qc(qc, held.get(qc), ttl_slots) for qc in {*held, *self._blocks}}
            wall = self._wall()
            return State(qcs, {app_id: app.state(wall) for app_id, app in self._apps.items()})

    def _qc(self, qc: str, held: Held | None, ttl_slots: int) -> QcState:
        blocks = self._blocks.get(qc, _Blocks())
        alive = bool(blocks.seen) and self._now() - blocks.seen[-1][0] < SILENCE_S
        if held is None:
            return QcState(alive=alive)
        going_on = alive and held.generated > 0 and blocks.coming.generates(ttl_slots)
        return QcState(
            held.slot, held.generated, held.used, held.expired, held.stored, blocks.rate_bps if going_on else 0.0,
            self._qber.get(qc), alive, going_on,
        )  # fmt: skip


class _Blocks:
    """What a QC has brought lately."""

    def __init__(self) -> None:
        # (moment of the block, bytes generated before it or with it)
        self.seen: collections.deque[tuple[float, int]] = collections.deque()
        self.coming = Coming()

    def add(self, now_s: float, n_bytes: int) -> None:
        before = self.seen[-1][1] if self.seen else 0
        self.seen.append((now_s, before + n_bytes))
        self.coming.add(n_bytes)
        wanted = min(_MOST_SLOTS, sum(self.coming.gaps) + self.coming.silent_slots + 1)
        while len(self.seen) > max(2, wanted) and self.seen[0][0] < now_s - _WINDOW_S:
            self.seen.popleft()

    @property
    def rate_bps(self) -> float:
        """In the mean of the last seconds, or of the last gaps where those are longer."""
        (first, before), (last, after) = self.seen[0], self.seen[-1]
        return 8 * (after - before) / max(1e-9, last - first)


class _Consumption:
    def __init__(self, created: float) -> None:
        self.created = created
        self._start = created
        self._bits = 0
        self._periods: collections.deque[tuple[float, float, int]] = collections.deque(maxlen=_KEPT_PERIODS)

    def add(self, bits: int, wall: float) -> None:
        self._close(wall)
        self._bits += bits

    def state(self, wall: float) -> AppState:
        """With the period that is not over yet, if it has something to show."""
        self._close(wall)
        running = [(self._start, wall, self._bits)] if self._bits else []
        return AppState(self.created, [*self._periods, *running])

    def _close(self, wall: float) -> None:
        if wall - self._start >= _PERIOD_S:
            if self._bits:
                self._periods.append((self._start, wall, self._bits))
            self._start, self._bits = wall, 0


class Watch:
    """PURE but for its memory: which notifications a change in the links' state calls for."""

    def __init__(self) -> None:
        self._status: dict[str, str] = {}
        self._rate: dict[str, int] = {}
        self._overloaded: set[str] = set()

    def changes(self, links: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
        """(kind, link ID) for physical links: "status", "performance" (by a fifth), "overloaded"."""
        found = []
        for key, link in links.items():
            performance = link["qkdl_performance"]
            assert isinstance(performance, Mapping)  # noqa: S101 - as model.link_states makes it
            status, skr = str(link["qkdl_status"]), int(performance["skr"])
            if self._status.setdefault(key, status) != status:
                self._status[key] = status
                found.append(("status", key))
            told = self._rate.setdefault(key, skr)
            if abs(skr - told) > max(1, told) / 5:
                self._rate[key] = skr
                found.append(("performance", key))
            overloaded = performance["expected_consumption"] > skr
            if overloaded and key not in self._overloaded:
                found.append(("overloaded", key))
            self._overloaded = self._overloaded | {key} if overloaded else self._overloaded - {key}
        for gone in set(self._status) - set(links):
            del self._status[gone]
            self._rate.pop(gone, None)
            self._overloaded.discard(gone)
        return found
