"""From journals' events to a story. PURE.

The events that name the key, the session or the trace are found first; then the spans that they are in, and what those
were parts of. What concerns other keys only is left out, also where it is in the same trace: keys that were made
together were made in the trace of one of them, and a client of others may send one traceparent with all its requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from decisions.exposure import Learned, gone_past, learned
from decisions.modes import NEW_KEYS
from documents.paths import paths_of
from testbed.stories.draft import Draft, Spans, began, drafts, uses_of
from testbed.stories.model import (
    CONTROLLER,
    DATABASE,
    FAILURES,
    KEY,
    SESSION,
    Event,
    Message,
    NoStory,
    Participant,
    Story,
)

_OPENING = ("session_open", "ksid_assigned", "session_configured")
_ENDING = ("session_closed", "ksid_released", "session_removed", "session_idle")
_OF_KEYS = ("statement", "used", "key_delivered", "key_failed", "key", "key_error", "message", "keys_relayed")
_TRACE = re.compile("[0-9a-f]{32}")
_NEAR_S = 15.0  # so close to what is told a fail-over of the database is told, too


def concerns(event: Event, ident: str) -> bool:
    """Whether an event is one by which the story of a key, a key session or a trace is found."""
    if ident == event.get("trace"):
        return True
    if ident == event.get("ksid"):
        return event["event"] in _OPENING + _ENDING
    return ident in (event.get("key_id"), *event.get("key_ids", ()), *event.get("ahead", ()))


def tell(events: Sequence[Event], ident: str) -> Story:
    """The story of the key, key session or trace `ident`, of events that hold all of its traces; NoStory."""
    seeds = [e for e in events if concerns(e, ident) and "span" in e]
    if not seeds:
        raise NoStory(f"no journal knows a key, a key session or a trace {ident!r}")
    of_session = any(ident == e.get("ksid") for e in seeds)
    if _TRACE.fullmatch(ident):
        of_session = any(e["event"] in ("session_requested", "new_app") for e in seeds)
    return _session(events, ident, seeds) if of_session else _key(events, ident, seeds)


def _session(events: Sequence[Event], ident: str, seeds: Sequence[Event]) -> Story:
    spans = Spans(events)
    # Of an implicit session's trace what is left when the keys are taken out, for which it was opened.
    leading = set() if _TRACE.fullmatch(ident) else {e["span"] for e in seeds}
    keep = _Keep(spans, leading, lambda e: not _of_keys(e))
    traces = list(dict.fromkeys(e["trace"] for e in sorted(seeds, key=began)))
    roots = [s for s in spans.parent if spans.trace(s) in traces and spans.parent[s] not in spans.parent]
    told = drafts(spans, [r for r in roots if keep(r)], keep)
    assigned: Event = next((e for e in events if e["event"] == "ksid_assigned" and e.get("trace") in traces), {})
    ksid, failure = assigned.get("ksid"), _failure(told, _names(events))
    title = f"Key session {ksid}" if ksid else "A key session that did not come to be"
    notes = [] if failure else ["No key material moves when a session is opened."]
    story = Story(
        ident, SESSION, title, 4, [], [], ksid=ksid, mode=assigned.get("mode"), path=assigned.get("path", []),
        paths=paths_of(assigned), failure=failure, notes=notes, traces=traces,
    )  # fmt: skip
    return _drawn(story, told, events)


def _key(events: Sequence[Event], ident: str, seeds: Sequence[Event]) -> Story:
    spans, whole = Spans(events), _TRACE.fullmatch(ident) is not None
    made = next((e for e in reversed(seeds) if _is(e, "allocate") and "error" not in e), None)
    handed = next((e for e in seeds if e["event"] == "key_delivered" and e["method"] == "enc_keys"), None)
    pooled = made is not None and handed is not None and handed["source"] == "pool" and not whole
    earlier = set(spans.within(made["span"])) if pooled and made else set()
    told, traces = _told(spans, ident, seeds, earlier)
    facts: Event = handed or next((e for e in seeds if e["event"] == "key_failed"), {}) or made or {}
    mode, path, failure = (made or facts).get("mode"), (made or {}).get("path", []), _failure(told, _names(events))
    paths = paths_of(made or {})
    kind, figure = _kind(mode, paths, handed)
    refill = _refill(events, made, handed) if pooled and made and handed else None
    story = Story(
        ident, KEY, f"{'Keys of trace' if whole else 'Key'} {ident}: {kind}", figure, [], [], ksid=facts.get("ksid"),
        mode=mode, path=path, paths=paths, material=uses_of(made or {}), refill=refill, failure=failure, traces=traces,
        learned=_learned(made, events) if made and handed and not failure else [],
        notes=_key_notes(made, handed, refill),
    )  # fmt: skip
    return _drawn(story, told, events)


def _learned(made: Event, events: Iterable[Event]) -> list[Learned]:
    """Who learned keys of that allocation, and whom the light went past; all `events` tell of the QCs that were lit."""
    material = uses_of(made)
    at_last = len(made["path"]) > 2 and bool(material) and material[-1].purpose == NEW_KEYS
    on_path = learned(
        made["cipher"], made["path"], double_at_last=at_last, at_once=made.get("at_once", False),
        enough=made.get("enough"),
    )  # fmt: skip
    past = {e["qc"]: e["past"] for e in events if e["event"] == "qc_lit" and "past" in e}
    return [*on_path, *gone_past({use.qc: past[use.qc] for use in material if use.qc in past}, made["path"])]


def _told(spans: Spans, ident: str, seeds: Sequence[Event], earlier: Collection[str]) -> tuple[list[Draft], list[str]]:
    """Messages of a key and their traces; `earlier` are the spans of another story, in which the key was made."""
    leading = {e["span"] for e in seeds if _leads(e, ident)} - set(earlier)

    def mine(event: Event) -> bool:
        return concerns(event, ident) or not (_of_keys(event) and _names_keys(event))

    keep = _Keep(spans, leading, mine)
    tops = dict.fromkeys(spans.top(s, stop=lambda above: not keep.own(above)) for s in sorted(leading))
    told = drafts(spans, list(tops), keep)
    seen = {id(e) for draft in told for e in draft.events}
    told += [Draft.of_event(e, e["who"]) for e in seeds if id(e) not in seen and e["span"] not in earlier]
    return told, sorted({spans.trace(top) for top in tops})


class _Keep:
    """Which spans are told: those that lead to one of `seeds`, and those with nothing in them that is not `mine`."""

    def __init__(self, spans: Spans, seeds: Collection[str], mine: Callable[[Event], bool]) -> None:
        self._spans = spans
        self._seeds = set(seeds)
        self._mine = mine

    def own(self, span: str) -> bool:
        """Whether the span's own events are all of this story."""
        return all(self._mine(e) for e in self._spans.own[span])

    def __call__(self, span: str) -> bool:
        return not self._seeds.isdisjoint(self._spans.within(span)) or self.own(span)


def _is(event: Event, statement: str) -> bool:
    return bool(event["event"] == "statement" and event["statement"] == statement)


def _of_keys(event: Event) -> bool:
    return event["event"] in _OF_KEYS


def _names_keys(event: Event) -> bool:
    return "key_id" in event or "key_ids" in event


def _leads(event: Event, ident: str) -> bool:
    """Whether the story goes through the event's span; else the key was only looked after along with another one."""
    return event["event"] != "used" and ident not in event.get("ahead", ())


def _refill(events: Iterable[Event], made: Event, handed: Event) -> str | None:
    """A key that was handed out when this one was made and put into the pool."""
    others = set(made["key_ids"]) - set(handed["key_ids"])
    refills = [e for e in events if e["event"] == "key_delivered" and e.get("source") == "refill"]
    return next((key for e in refills for key in e["key_ids"] if key in others), None)


def _kind(mode: str | None, paths: Sequence[Sequence[str]], handed: Event | None) -> tuple[str, int]:
    """What kind of key it is, in a few words, and the paper's figure of such a key."""
    if len(paths) > 1:
        several = [len(path) - 1 for path in paths]
        return f"{(mode or '').upper()}, paths of {', '.join(map(str, several[:-1]))} and {several[-1]} hops", 6
    hops = max((len(path) - 1 for path in paths), default=0)
    if hops < 1:
        return "it was not made", 5
    where = "one hop" if hops == 1 else f"{hops} hops"
    source = {"refill": ", refill of the pool", "pool": ", from the pool"}.get(str((handed or {}).get("source")), "")
    return f"{(mode or '').upper()}, {where}{source}", 5 if hops == 1 else 6


def _key_notes(made: Event | None, handed: Event | None, refill: str | None) -> list[str]:
    notes = []
    if made is not None and handed is not None and len(made["key_ids"]) > 1:
        number = len(made["key_ids"])
        if handed["source"] == "direct" and handed["trace"] != made["trace"]:
            notes.append(f"{number} keys that were asked for at the same moment were made together.")
        elif handed["source"] == "refill":
            notes.append(f"{number} keys were made at once; those not needed yet waited in the pools of both nodes.")
    if refill is not None and made is not None and handed is not None:
        seconds = began(handed) - float(made["time"])
        notes.append(f"It was made ahead, {seconds:.2f} s before, with key {refill}: see the story of that one.")
    if handed is None and made is not None and "ranges" in made:
        notes.append("No application was given this key. What was allocated for it is not used again.")
    return notes


def _failure(told: Sequence[Draft], names: Mapping[str, str]) -> str | None:
    """Where it failed: the innermost message that did not bring what it was for; None if it came right in the end."""
    if not any(e["event"] in FAILURES for draft in told for e in draft.events):
        return None
    failed = [d for d in told if d.outcome != "ok"]
    if not failed:
        return "it failed"
    deepest = max(failed, key=lambda d: d.depth)
    sender, receiver = (_name(p, names) for p in (deepest.sender, deepest.receiver))
    who = sender if sender == receiver else f"{sender} to {receiver}"
    return f"{who}, {deepest.what}: {deepest.outcome}"


def _names(events: Iterable[Event]) -> dict[str, str]:
    """Names of applications by their IDs, as their processes said them when they started."""
    names: dict[str, str] = {}
    for event in events:
        if event["event"] == "started" and isinstance(event.get("saes"), Mapping):
            names |= event["saes"]
    return names


def _drawn(story: Story, told: Sequence[Draft], events: Sequence[Event]) -> Story:
    """The story with those messages, and with what follows from them and from all `events`."""
    names = _names(events)
    messages = [d.message() for d in told]
    on_path = [f"node:{n}" for n in story.path]
    return replace(
        story,
        messages=messages,
        participants=[Participant(p, _name(p, names)) for p in _arranged(messages, on_path, told)],
        captures=_captures(events, messages),
        notes=[*story.notes, *_switches(events, messages), *dict.fromkeys(note for d in told for note in d.skew)],
        begin_s=min((m.at_s for m in messages), default=0.0),
        end_s=max((m.at_s + (m.duration_ms or 0) / 1000 for m in messages), default=0.0),
    )


def _captures(events: Iterable[Event], messages: Sequence[Message]) -> list[str]:
    """Files of captures that went on while any of the messages did."""
    begin = min((m.at_s for m in messages), default=0.0)
    end = max((m.at_s + (m.duration_ms or 0) / 1000 for m in messages), default=0.0)
    stopped = {e["file"]: float(e["time"]) for e in events if e["event"] == "capture_stopped"}
    started = [(e["file"], float(e["time"])) for e in events if e["event"] == "capture_started"]
    return [file for file, at_s in started if at_s <= end and stopped.get(file, end) >= begin]


def _switches(events: Iterable[Event], messages: Sequence[Message]) -> Iterator[str]:
    """What to know of the shared database if another host took over about then."""
    begin, end = min((m.at_s for m in messages), default=0.0), max((m.at_s for m in messages), default=0.0)
    for event in events:
        if event["event"] == "database_switch" and begin - _NEAR_S <= (at_s := float(event["time"])) <= end + _NEAR_S:
            when = f"{abs(at_s - begin):.1f} s {'before this' if at_s < begin else 'after it'} began"
            yield f"The shared database failed over from {event['before']} to {event['host']}, {when}."


def _arranged(messages: Sequence[Message], path: Sequence[str], told: Sequence[Draft]) -> list[str]:
    """From left to right as in the paper: master, its node, controller or database, the way, slave's node, slave."""
    there = dict.fromkeys(p for m in messages for p in (m.sender, m.receiver))
    saes = [p for p in there if p.startswith("sae:")]
    masters = [p for d in told for e in d.events for p in (f"sae:{e.get('master_sae')}",) if p in there]
    saes.sort(key=lambda p: p not in masters)
    on_path = [n for n in path if n in there or CONTROLLER not in there]
    nodes = on_path + [p for p in there if p.startswith("node:") and p not in on_path]
    services = [p for p in (CONTROLLER, DATABASE) if p in there]
    others = [p for p in there if p not in (*saes, *nodes, *services)]
    return [*saes[:1], *others, *nodes[:1], *services, *nodes[1:], *saes[1:]]


def _name(participant: str, names: Mapping[str, str]) -> str:
    role, _, name = participant.partition(":")
    if role == "sae":
        return names.get(name, name[:8])
    return name or role
