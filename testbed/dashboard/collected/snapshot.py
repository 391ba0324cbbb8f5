"""What is known of a running network at one moment. Frozen values, made by the watch, read by the view.

`Curves` has the last minutes of every QC, slot by slot, out of the totals that the nodes at its ends tell. `Tally`
counts keys delivered and failed out of events as they come; memory does not grow with the run.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scenario.shape import Shape
from testbed.dashboard.collected.timeline import Happening
from testbed.planning.fault import Fault

KEPT_SLOTS = 180
# After so many slots without a word from the end that is listened to, the other end is.
_PATIENCE_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Totals:
    """What a node has of a QC: bytes stored now, and bytes generated, used and expired since the start."""

    slot: int
    stored: int
    generated: int
    used: int
    expired: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Totals:
        """Out of a member of `qcs` in a node's status."""
        names = ("stored_bytes", "generated_bytes", "used_bytes", "expired_bytes")
        return cls(document["slot"], *(document[name] for name in names))


@dataclass(frozen=True, slots=True)
class Sample:
    """A QC in a slot: bytes made, used and expired in it, and bytes stored at its end."""

    slot: int
    made: float
    used: float
    expired: float
    stored: int


class Curves:
    """Samples of all QCs. Of each, one end is listened to, because the two count at different moments."""

    def __init__(self) -> None:
        self._samples: dict[str, collections.deque[Sample]] = {}
        self._heard: dict[str, str] = {}
        self._last: dict[tuple[str, str], Totals] = {}

    def take(self, node: str, qc: str, totals: Totals) -> None:
        """A node's totals; nothing new in a slot that was heard of."""
        before = self._last.get((qc, node))
        if before is not None and totals.slot <= before.slot:
            return
        self._last[qc, node] = totals
        listened = self._heard.setdefault(qc, node)
        if node != listened:
            if totals.slot - self._last[qc, listened].slot <= _PATIENCE_SLOTS:
                return
            self._heard[qc] = node
        if before is not None:
            self._add(qc, _between(before, totals))

    def of(self, qc: str) -> tuple[Sample, ...]:
        """The samples of a QC, the oldest first."""
        return tuple(self._samples.get(qc, ()))

    def _add(self, qc: str, sample: Sample) -> None:
        samples = self._samples.setdefault(qc, collections.deque(maxlen=KEPT_SLOTS))
        if not samples or sample.slot > samples[-1].slot:
            samples.append(sample)


def _between(before: Totals, after: Totals) -> Sample:
    slots = after.slot - before.slot
    made, used, expired = (
        max(0, b - a) / slots
        for a, b in (
            (before.generated, after.generated), (before.used, after.used), (before.expired, after.expired),
        )
    )  # fmt: skip
    return Sample(after.slot, made, used, expired, after.stored)


def total(curves: Iterable[Sequence[Sample]]) -> tuple[Sample, ...]:
    """The sum of several QCs, over the slots of which all have a sample."""
    by_slot = [{s.slot: s for s in samples} for samples in curves]
    common = set.intersection(*(set(found) for found in by_slot)) if by_slot else set()
    return tuple(_sum(slot, [found[slot] for found in by_slot]) for slot in sorted(common))


def _sum(slot: int, samples: Sequence[Sample]) -> Sample:
    made, used, expired = (sum(getattr(s, name) for s in samples) for name in ("made", "used", "expired"))
    return Sample(slot, made, used, expired, sum(s.stored for s in samples))


def mean(values: list[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


Event = Mapping[str, Any]
# The events that are counted.
EVENTS = frozenset({
    "key_delivered", "key_failed", "key_not_fetched", "relays_learned", "tunnel_keyed", "tunnel_held", "tunnel_closed",
    "tunnel_ended",
})  # fmt: skip
_TUNNELS = {"tunnel_keyed": "up", "tunnel_held": "held", "tunnel_closed": "closed"}

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
class TunnelEnd:
    """The end at `node` of a tunnel: the last key that it was under, since when (wall clock), how many there were.

    `state`: up; held, of a key that has lapsed; closed.
    """

    node: str
    peer: str
    kind: str
    state: str
    key_id: str
    since: float
    keys: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted so far. `deliveries` and the two lists are the latest only, the newest last."""

    single_hop: int
    multi_hop: int
    failed: int
    by_session: Mapping[str, tuple[int, int]]  # KSID -> keys delivered, requests failed
    by_node: Mapping[str, int]  # keys delivered that have an end there
    by_relay: Mapping[str, Mapping[tuple[str, str], int]]  # relay -> mode and what it learned -> of how many keys
    deliveries: tuple[Delivery, ...]
    keys: tuple[Event, ...]
    failures: tuple[Event, ...]
    tunnels: tuple[TunnelEnd, ...]

    def durations_ms(self, now: float, *, several_hops: bool) -> list[float]:
        """Delivery times of the last minutes."""
        return [
            d.duration_ms for d in self.deliveries if (d.hops > 1) == several_hops and d.time > now - RECENT_S
        ]


class Tally:
    """Takes events in, as operators are told them, and tells the figures.

    `node_of`: the node of an SAE, by its name; empty if there is no such SAE.
    """

    def __init__(self, node_of: Callable[[str], str] = lambda _: "") -> None:
        self._node_of = node_of
        self._single = self._multi = self._failed = 0
        self._by_session: collections.OrderedDict[str, tuple[int, int]] = collections.OrderedDict()
        self._by_node: collections.Counter[str] = collections.Counter()
        self._by_relay: dict[str, collections.Counter[tuple[str, str]]] = collections.defaultdict(collections.Counter)
        self._deliveries: collections.deque[Delivery] = collections.deque(maxlen=_KEPT_TIMES)
        self._keys: collections.deque[Event] = collections.deque(maxlen=_KEPT_LISTED)
        self._failures: collections.deque[Event] = collections.deque(maxlen=_KEPT_LISTED)
        self._tunnels: dict[tuple[str, str], TunnelEnd] = {}  # of two nodes, the end at the first one

    def take(self, event: Event) -> None:
        """Count an event."""
        name = event["event"]
        if name in ("key_failed", "key_not_fetched"):
            self._failed += 1
            self._failures.append(event)
            self._count(event.get("ksid"), 0, 1)
        elif name == "key_delivered":
            self._take_delivery(event)
        elif name == "relays_learned":
            for relay, what in event["learned"].items():
                self._by_relay[relay][event["mode"], what] += event["number"]
        elif name.startswith("tunnel_"):
            self._take_tunnel(event)

    def figures(self) -> Figures:
        """What was counted so far."""
        return Figures(
            self._single, self._multi, self._failed, dict(self._by_session), dict(self._by_node),
            {relay: dict(counts) for relay, counts in self._by_relay.items()},
            tuple(self._deliveries), tuple(self._keys), tuple(self._failures), tuple(self._tunnels.values()),
        )  # fmt: skip

    def _take_delivery(self, event: Event) -> None:
        keys, hops = len(event["key_ids"]), int(event["hops"])
        if hops > 1:
            self._multi += keys
        else:
            self._single += keys
        for node in {event["node"], self._node_of(event.get("slave", ""))} - {""}:
            self._by_node[node] += keys
        self._deliveries.append(Delivery(float(event["time"]), float(event["duration_ms"]), hops))
        self._keys.append(event)
        self._count(event.get("ksid"), keys, 0)

    def _take_tunnel(self, event: Event) -> None:
        ends = event["node"], event["peer"]
        before = self._tunnels.pop(ends, None)
        state = _TUNNELS.get(event["event"])
        if state == "up":
            keys = 1 if before is None else before.keys + 1
            self._tunnels[ends] = TunnelEnd(*ends, event["kind"], state, event["key_id"], event["time"], keys)
        elif state is not None and before is not None:
            self._tunnels[ends] = replace(before, state=state)

    def _count(self, ksid: str | None, keys: int, failed: int) -> None:
        if ksid is None:
            return
        before = self._by_session.pop(ksid, (0, 0))
        self._by_session[ksid] = before[0] + keys, before[1] + failed
        if len(self._by_session) > _KEPT_SESSIONS:
            self._by_session.popitem(last=False)


Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """The last answer of a controller or node, None if there was none yet, and for how long it has been silent."""

    answer: Document | None = None
    silent_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FibreNow:
    """A fibre now: whether both its ends see light, and how its two directions are shaped, a to b first."""

    lit: bool
    shapes: tuple[Shape, Shape]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the page shows, as it was at `time` (wall clock). `controller` answers with all that it shows."""

    number: int = 0
    time: float = 0.0
    controller: Heard = field(default_factory=Heard)
    nodes: Mapping[str, Heard] = field(default_factory=dict)
    fibres: Mapping[str, FibreNow] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    figures: Figures = field(default_factory=lambda: Tally().figures())
    away: Mapping[str, str] = field(default_factory=dict)  # processes that do not serve, each with a word why
    happenings: Sequence[Happening] = ()  # of the last minutes, the oldest first

    def told(self, what: str) -> Any:
        """What the controller last told of `status`, `qcs`, `sessions` or `refusals`; empty if nothing yet."""
        return (self.controller.answer or {}).get(what) or ({} if what == "status" else [])

    @property
    def parameters(self) -> Document:
        """The network's parameters; empty if they are not known yet."""
        return dict(self.told("status").get("parameters", {}))
