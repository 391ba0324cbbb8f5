"""Keys delivered and failed, counted out of journal events as they come; memory does not grow with the run. PURE."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]
# The events that are counted; nothing else needs to be read.
EVENTS = frozenset({"key_delivered", "key_failed"})

RECENT_S = 180.0
_KEPT_TIMES = 5000
_KEPT_LISTED = 50
_KEPT_SESSIONS = 5000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery of keys to a master: when (wall clock), how long it took in ms, over how many hops."""

    time: float
    duration_ms: float
    hops: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted so far. `deliveries` and the two lists are the latest only, the newest last."""

    single_hop: int
    multi_hop: int
    failed: int
    by_session: Mapping[str, tuple[int, int]]  # KSID -> keys delivered, requests failed
    by_node: Mapping[str, int]  # keys delivered to masters there
    deliveries: tuple[Delivery, ...]
    keys: tuple[Event, ...]
    failures: tuple[Event, ...]

    def durations_ms(self, now: float, *, several_hops: bool) -> list[float]:
        """Delivery times of the last minutes."""
        return [
            d.duration_ms for d in self.deliveries if (d.hops > 1) == several_hops and d.time > now - RECENT_S
        ]


class Tally:
    """Takes events in and tells the figures."""

    def __init__(self) -> None:
        self._single = self._multi = self._failed = 0
        self._by_session: collections.OrderedDict[str, tuple[int, int]] = collections.OrderedDict()
        self._by_node: collections.Counter[str] = collections.Counter()
        self._deliveries: collections.deque[Delivery] = collections.deque(maxlen=_KEPT_TIMES)
        self._keys: collections.deque[Event] = collections.deque(maxlen=_KEPT_LISTED)
        self._failures: collections.deque[Event] = collections.deque(maxlen=_KEPT_LISTED)

    def take(self, event: Event) -> None:
        """Count an event."""
        if event["event"] == "key_failed":
            self._failed += 1
            self._failures.append(event)
            self._count(event.get("ksid"), 0, 1)
        elif event["event"] == "key_delivered" and event["request"] == "enc_keys":
            self._take_delivery(event)

    def figures(self) -> Figures:
        """What was counted so far."""
        return Figures(
            self._single, self._multi, self._failed, dict(self._by_session), dict(self._by_node),
            tuple(self._deliveries), tuple(self._keys), tuple(self._failures),
        )  # fmt: skip

    def _take_delivery(self, event: Event) -> None:
        keys, hops = len(event["key_ids"]), int(event["hops"])
        if hops > 1:
            self._multi += keys
        else:
            self._single += keys
        self._by_node[str(event["who"]).removeprefix("node:")] += keys
        self._deliveries.append(Delivery(float(event["time"]), float(event["duration_ms"]), hops))
        self._keys.append(event)
        self._count(event.get("ksid"), keys, 0)

    def _count(self, ksid: str | None, keys: int, failed: int) -> None:
        if ksid is None:
            return
        before = self._by_session.pop(ksid, (0, 0))
        self._by_session[ksid] = before[0] + keys, before[1] + failed
        if len(self._by_session) > _KEPT_SESSIONS:
            self._by_session.popitem(last=False)
