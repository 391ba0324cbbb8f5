"""What a phase showed: its journals' events turned into figures. PURE."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from documents.paths import paths_of
from testbed.evidence.summary import Event, relays_of

# What is kept of a phase's events: nothing that a figure does not need.
_ALWAYS = ("time", "mono", "who", "event")
KEPT = {
    "session_requested": ("master_sae", "slave_sae"),
    "session_open": ("master_sae", "slave_sae", "ksid", "hops", "path", "ask_connection_ms",
                     "open_key_session_ms", "total_ms"),
    "session_refused": ("master_sae", "slave_sae", "cause", "qc", "message"),
    "session_failed": ("master_sae", "slave_sae", "cause", "message"),
    "session_closed": ("ksid", "reason", "keys", "errors"),
    "open_key_session": ("master_sae", "slave_sae", "duration_ms"),
    "new_app_answered": ("master_sae", "slave_sae", "side", "duration_ms"),
    "key_delivered": ("ksid", "hops", "source", "duration_ms", "method"),
    "key": ("ksid", "side"),
    "key_error": ("ksid", "side", "cause"),
    "statement": ("statement", "cipher", "at_once", "path", "paths", "enough", "key_ids", "ranges"),
}
_ALLOCATE = "allocate"
# All that an event may have of it.
FACTS = tuple(dict.fromkeys((*_ALWAYS, *(name for names in KEPT.values() for name in names))))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A key that a node handed out: over how many hops, made for the request ("direct") or ahead ("pool"), in ms."""

    ksid: str
    hops: int
    source: str
    ms: float


@dataclass(frozen=True, slots=True)
class Made:
    """Keys that were made at once: how many, over how many hops, of how many bytes of all QCs together.

    `learned`: how many relays learned the key, and how many the shared key.
    """

    keys: int
    hops: int
    n_bytes: int
    learned: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Initialisation:
    """A key session's initialisation, in ms; t1 to t4 are those of the paper (section IV-A, Figure 4).

    t1: the slave calls open_key_session at its node, until that answers. t2, within t1: new_app from that node to the
    controller, until it is acknowledged. t3 and t4: the same at the master and its node, until the KSID is there.
    ask_connection: the master calls the slave until that has registered and answered; whole: that and t3.
    """

    ksid: str
    path: tuple[str, ...]
    t1: float
    t2: float
    t3: float
    t4: float
    ask_connection: float
    whole: float


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a load: numbers of sessions offered, refused, failed otherwise, and of those with a key error;
    of requests for keys, and of those that failed.

    Each share is given as its cases: 100 for each that is meant, 0 for each of the others. Their mean is the share in
    percent, their number what it is a share of; there are none where nothing was tried.
    """

    offered: int
    refused: int
    failed: int
    with_errors: int
    requests: int
    failed_requests: int

    @property
    def refusals(self) -> list[float]:
        """Among the sessions offered."""
        return _cases(self.refused, self.offered)

    @property
    def failures(self) -> list[float]:
        """Among the sessions offered: those that did not come to be, and not because they were refused."""
        return _cases(self.failed, self.offered)

    @property
    def connections_with_errors(self) -> list[float]:
        """Among the sessions offered, as the paper counts: its shares are whole numbers out of 5 times 52."""
        return _cases(self.with_errors, self.offered)

    @property
    def requests_without_key(self) -> list[float]:
        """Among the requests for keys."""
        return _cases(self.failed_requests, self.requests)


def kept(events: Iterable[Event], began: float, ended: float) -> list[dict[str, Any]]:
    """Those events between two times of the wall clock that figures are made of, cut to the facts that they need."""
    told = (event for event in events if event["event"] in KEPT and event.get("statement", _ALLOCATE) == _ALLOCATE)
    return [
        {name: event[name] for name in (*_ALWAYS, *KEPT[event["event"]]) if name in event}
        for event in told
        if began <= float(event["time"]) <= ended
    ]


def deliveries(events: Iterable[Event]) -> list[Delivery]:
    """Keys handed out to masters."""
    return [
        Delivery(str(e["ksid"]), int(e["hops"]), str(e["source"]), float(e["duration_ms"]))
        for e in events
        if e["event"] == "key_delivered" and e["method"] == "enc_keys"
    ]


def allocations(events: Iterable[Event]) -> list[Made]:
    """What keys were made of, where there was enough."""
    return [
        Made(
            len(e["key_ids"]), max(map(len, paths_of(e))) - 1, sum(end - start for _, start, end, _ in e["ranges"]),
            collections.Counter(relay.what for relay in relays_of(e)),
        )
        for e in events
        if e["event"] == "statement" and e.get("ranges")
    ]  # fmt: skip


def initialisations(events: Sequence[Event]) -> list[Initialisation]:
    """Sessions that came to be, as they were opened; in a phase no pair of SAEs has two."""
    registered = {_pair(e): float(e["duration_ms"]) for e in events if e["event"] == "open_key_session"}
    answered = {
        (_pair(e), e["side"]): float(e["duration_ms"]) for e in events if e["event"] == "new_app_answered"
    }
    return [
        Initialisation(
            str(event["ksid"]), tuple(event["path"]),
            t1=registered[_pair(event)], t2=answered[_pair(event), "slave"],
            t3=float(event["open_key_session_ms"]), t4=answered[_pair(event), "master"],
            ask_connection=float(event["ask_connection_ms"]), whole=float(event["total_ms"]),
        )
        for event in events
        if event["event"] == "session_open"
    ]  # fmt: skip


def load(events: Iterable[Event]) -> Load:
    """What became of the sessions offered and of their requests for keys."""
    count: collections.Counter[str] = collections.Counter()
    with_errors = set()
    for event in events:
        kind = str(event["event"])
        if kind in ("key", "key_error") and event["side"] != "master":
            continue
        count[kind] += 1
        if kind == "key_error":
            with_errors.add(event["ksid"])
    return Load(
        offered=count["session_requested"],
        refused=count["session_refused"],
        failed=count["session_failed"],
        with_errors=len(with_errors),
        requests=count["key"] + count["key_error"],
        failed_requests=count["key_error"],
    )


def paths(events: Iterable[Event]) -> dict[str, tuple[str, ...]]:
    """The path of each session, by KSID."""
    return {e["ksid"]: tuple(e["path"]) for e in events if e["event"] == "session_open"}


def median(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return statistics.median(values) if values else None


def _pair(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event["master_sae"]), str(event["slave_sae"])


def _cases(part: int, whole: int) -> list[float]:
    return [100.0] * part + [0.0] * (whole - part)
