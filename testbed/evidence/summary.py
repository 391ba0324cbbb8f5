"""What a run showed: its journals read, keys compared, times summed up. PURE but for what reads files.

Two SAEs that hold a key each wrote a fingerprint of it (a keyed hash, with a secret of the run that is erased at its
end). Equal fingerprints mean equal keys, and no journal holds a byte of them.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decisions.exposure import NOTHING, SHARED_KEY, THE_KEY, Learned, learned
from decisions.modes import NEW_KEYS
from scenario.topology_description import one_line
from telemetry import bugs, journal
from testbed.evidence.journals import Tail

Event = Mapping[str, Any]


def read_run(run: Path, *names: str) -> list[Event]:
    """All events of all journals of a run, or those of the given names only, by wall clock."""
    events = [e for path in run.rglob("journal.jsonl") for e in journal.read(path, *names)]
    return sorted(events, key=lambda e: float(e["time"]))


# How a log tells of a bug of ours: as all of our processes do, or as Python does of what nobody caught.
_BUG = re.compile(f"{re.escape(bugs.MARK)}|^Traceback ")
_LONGEST_LINE, _MOST_LINE_BYTES = 200, 1 << 16
# Events that a summary is made of: of long journals no more need be read.
SUMMARISED = (
    "session_requested", "session_open", "session_refused", "session_failed", "key_delivered", "key_error", "key",
    "lost", "statement", "leads",
)  # fmt: skip


def summarise(events: Sequence[Event]) -> dict[str, Any]:
    """The members `sessions`, `keys`, `relays`, `delivery_ms`, `initialisation_ms`, `pairs` and `leaders` of a summary.
    """
    count = collections.Counter(str(e["event"]) for e in events)
    requested, admitted = count["session_requested"], count["session_open"]
    refused = count["session_refused"]
    # Of what a client did not take, the node knew only afterwards. Earlier journals call the method the request.
    untaken = [e for e in events if e["event"] == "lost" and e.get("method") == "enc_keys"]
    lost = {key_id for e in untaken for key_id in e["key_ids"]}
    given = [e for e in events if e["event"] == "key_delivered" and e["method"] == "enc_keys"]
    delivered = [e for e in given if not lost.issuperset(e["key_ids"])]
    single = [e for e in delivered if e["hops"] == 1]
    multi = [e for e in delivered if e["hops"] > 1]
    errors = collections.Counter(str(e["cause"]) for e in events if _is_key_error(e))
    return {
        "sessions": {
            "requested": requested,
            "admitted": admitted,
            "refused": refused,
            "failed": max(0, requested - admitted - refused),
        },
        "keys": {
            "single_hop": sum(len(e["key_ids"]) for e in single),
            "multi_hop": sum(len(e["key_ids"]) for e in multi),
            "errors": dict(sorted(errors.items())),
            "errors_where": _where(events),
            "errors_said": {str(e["cause"]): str(e["message"]) for e in events if _is_key_error(e)},
            "lost_bytes": _lost(events),
        },
        "relays": learned_by_relays(events),
        "delivery_ms": {
            "single_hop": quantiles(float(e["duration_ms"]) for e in single),
            "multi_hop": quantiles(float(e["duration_ms"]) for e in multi),
        },
        "initialisation_ms": _initialisation(events),
        "pairs": compare_pairs(events),
        "leaders": [
            {name: e[name] for name in ("time", "controller", "term", "silent_s")}
            for e in events
            if e["event"] == "leads"
        ],
    }


class Progress:
    """What a run has come to so far, in a line. Of journals it reads on from where it stopped: they grow long."""

    def __init__(self, run: Path, nodes: Iterable[str]) -> None:
        folders = [run / kind / node for node in nodes for kind in ("nodes", "saes")]
        self._tail = Tail([folder / "journal.jsonl" for folder in folders], ("key_delivered", "key_error"))
        self._single = self._multi = self._failed = 0

    def line(self) -> str:
        """Keys and key errors until now."""
        keys = summarise(self._tail.new())["keys"]
        self._single += keys["single_hop"]
        self._multi += keys["multi_hop"]
        self._failed += sum(keys["errors"].values())
        return f"{self._single} keys over one hop, {self._multi} over several, {self._failed} key errors"


def why_no_keys(events: Sequence[Event]) -> str | None:
    """Why sessions that asked for keys got none at all; None if one got any, or none was to get any."""
    names = collections.Counter(str(e["event"]) for e in events)
    if names["key_delivered"] or names["session_requested"] == names["session_refused"]:
        return None
    for what, told in (("key error", _is_key_error), ("session that failed", lambda e: e["event"] == "session_failed")):
        if said := [e for e in events if told(e)]:
            return f"the last {what}: {said[-1]['message']} ({said[-1]['cause']})"
    return "none came before the end of the run"


def bugs_told(logs: Path) -> list[str]:
    """What logs of a run's processes tell of bugs of ours, a line for each log that does."""
    found = []
    for path in sorted(logs.glob("*.log")):
        number, last = 0, ""
        with path.open("rb") as file:
            while line := file.readline(_MOST_LINE_BYTES):  # of another machine there may be one without an end
                if _BUG.search(words := line.decode(errors="replace")):
                    number, last = number + 1, one_line(words)
        if number:
            found.append(f"{path.stem}: {number}, the last: {last[:_LONGEST_LINE]}; see {path}")
    return found


def _is_key_error(event: Event) -> bool:
    """Whether a key did not come: the slave tells of the same one."""
    return bool(event["event"] == "key_error" and event["side"] == "master")


def _where(events: Iterable[Event]) -> dict[str, int]:
    """Key errors by cause and place: the QC that was short, the node at which a relay broke, the path of a bad one."""
    found: collections.Counter[str] = collections.Counter()
    for event in events:
        if _is_key_error(event):
            facts = event.get("facts") or {}
            place = facts.get("qc") or facts.get("node") or facts.get("path")
            if place is not None:
                found[f"{event['cause']} {place}"] += 1
    return dict(sorted(found.items()))


def _lost(events: Iterable[Event]) -> dict[str, int]:
    """Bytes by QC that were allocated and came to nothing. Both ends may tell of the same ones."""
    found: collections.Counter[str] = collections.Counter()
    told = {(e["allocation"], *r[:3]) for e in events if e["event"] == "lost" for r in e["ranges"]}
    reached: dict[tuple[str, str], int] = {}
    for request, qc, start, end in sorted(told):
        new = max(start, reached.get((request, qc), 0))
        if end > new:
            found[qc] += end - new
            reached[request, qc] = end
    return dict(sorted(found.items()))


def learned_by_relays(events: Iterable[Event]) -> dict[str, dict[str, dict[str, int]]]:
    """By mode and relay: of how many keys that were made over it, it learned the key, the shared key, or nothing."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for event in events:
        for relay in relays_of(event):
            of_mode = found.setdefault(event["mode"], {})
            counts = of_mode.setdefault(relay.node, dict.fromkeys((THE_KEY, SHARED_KEY, NOTHING), 0))
            counts[relay.what] += len(event["key_ids"])
    return found


def relays_of(event: Event) -> Sequence[Learned]:
    """What relays learned of the keys for which that event tells of an allocation; none if it tells of none."""
    if event["event"] != "statement" or event["statement"] != "allocate" or not event.get("ranges"):
        return ()
    *_, purpose = event["ranges"][-1]
    at_once = event.get("at_once", False)
    return learned(
        event["cipher"], event["path"], double_at_last=purpose == NEW_KEYS, at_once=at_once, enough=event.get("enough")
    )[1:-1]


def compare_pairs(events: Iterable[Event]) -> dict[str, int]:
    """Of how many keys both SAEs left a fingerprint, and for how many the two are identical."""
    sides: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for event in events:
        if event["event"] == "key":
            sides[event["key_id"]][event["side"]] = event["fingerprint"]
    both = [found for found in sides.values() if len(found) == 2]
    return {"compared": len(both), "identical": sum(len(set(found.values())) == 1 for found in both)}


def quantiles(values: Iterable[float]) -> dict[str, float | None]:
    """p50, p95 and max, by the nearest rank: each is a value that was measured. None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p95": None, "max": None}

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return {"p50": rank(0.5), "p95": rank(0.95), "max": ordered[-1]}


def _initialisation(events: Iterable[Event]) -> dict[str, dict[str, float | None]]:
    """Session initialisation: ask_connection as the master feels it, and all of it until it has its KSID."""
    opened = [e for e in events if e["event"] == "session_open"]
    return {
        "ask_connection": quantiles(float(e["ask_connection_ms"]) for e in opened),
        "total": quantiles(float(e["total_ms"]) for e in opened),
    }
