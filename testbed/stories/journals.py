"""Finds what belongs to a story in the journals of a run, also while it goes on.

Journals grow long: lines are looked through as bytes, and only those that a story needs are parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from telemetry.journal import lines
from testbed.stories.model import KEY, SESSION, Event, Heading, NoStory, Story
from testbed.stories.tell import concerns, tell

_ALWAYS = (b'"event":"started"', b'"event":"capture_', b'"event":"qc_lit"', b'"event":"database_switch"')
_BEGINNINGS = (b'"event":"key_delivered"', b'"event":"key_failed"', b'"event":"session_open"',
               b'"event":"session_refused"', b'"event":"session_failed"')  # fmt: skip
_IDENT = re.compile("[0-9a-f-]{32,36}")


def read(run: Path, ident: str) -> Story:
    """The story of a key ID, a KSID or a trace ID in that run directory; NoStory if its journals know none."""
    ident = ident.strip().lower()
    if not _IDENT.fullmatch(ident):
        raise NoStory(f"{ident[:50]!r} is no ID: expected a key ID or a KSID (a UUID), or a trace ID (32 hex digits)")
    first = list(_parsed(_lines(run), [ident.encode(), *_ALWAYS]))
    traces = {e["trace"] for e in first if "trace" in e and concerns(e, ident)}
    every = list(_parsed(_lines(run), [ident.encode(), *_ALWAYS, *(t.encode() for t in traces)]))
    return tell(every, ident)


def latest(run: Path, number: int = 20) -> list[Heading]:
    """The last stories that could be told, the oldest first: keys given to masters, sessions, failures of both."""
    names: dict[str, str] = {}
    found = []
    for event in _parsed(_lines(run), (*_BEGINNINGS, b'"event":"started"')):
        if event["event"] == "started":
            names |= event.get("saes", {})
        elif (heading := _heading(event)) is not None:
            found.append(heading)
    latest_ones = sorted(found, key=lambda h: h.at_s)[-number:]
    return [replace(h, pair=(names.get(h.pair[0], h.pair[0]), names.get(h.pair[1], h.pair[1]))) for h in latest_ones]


def last(run: Path, master: str, slave: str, kind: str) -> Heading | None:
    """The last story of that kind (KEY or SESSION) that these applications (IDs) have."""
    ids = {"master_sae": master, "slave_sae": slave}
    of_both = (e for e in _parsed(_lines(run), _BEGINNINGS) if {k: e.get(k) for k in ids} == ids)
    found = [h for e in of_both if (h := _heading(e)) is not None and h.kind == kind]
    return max(found, key=lambda h: h.at_s, default=None)


def _heading(event: Event) -> Heading | None:
    name, at_s = event["event"], float(event["time"])
    pair = str(event.get("master_sae", "?")), str(event.get("slave_sae", "?"))
    if name == "session_open":
        return Heading(at_s, event["ksid"], "key session", "open", SESSION, pair)
    if name.startswith("session_"):
        cause = str(event["cause"])
        return None if "trace" not in event else Heading(at_s, event["trace"], "key session", cause, SESSION, pair)
    if event["method"] != "enc_keys" or "trace" not in event:
        return None
    what = f"key, {event['mode']}, {event['hops']} hop{'s' if event['hops'] > 1 else ''}" if "mode" in event else "key"
    if name == "key_failed":
        return Heading(at_s, event["trace"], what, str(event["cause"]), KEY, pair)
    return Heading(at_s, event["key_ids"][0], what, str(event["source"]), KEY, pair)


def _lines(run: Path) -> Iterator[bytes]:
    for path in sorted(run.rglob("journal.jsonl")):
        yield from lines(path)


def _parsed(lines: Iterable[bytes], wanted: Iterable[bytes]) -> Iterator[Event]:
    pattern = re.compile(b"|".join(map(re.escape, wanted)))
    for line in lines:
        if pattern.search(line):
            yield json.loads(line)
