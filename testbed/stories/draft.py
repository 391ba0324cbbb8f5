"""Messages of a story, made of spans: each call, each statement to the shared database, each thing done. PURE.

Events of many journals are read as trees of spans: what was done as a part of what.
A span is known by its events. One with a `call` event is a request as its sender saw it; what its receiver did is in
a span below it. A span of another process that is below no call was caused by a notification.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from documents.paths import in_words, paths_of
from testbed.stories.model import CONTROLLER, DATABASE, FAILURES, OK, Event, Message, Use

_MOST_ABOVE = 160  # spans: two for each hop of a relay


class Spans:
    """Spans by ID, of all `events` that were in a trace."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.own: dict[str, list[Event]] = collections.defaultdict(list)
        self.call: dict[str, Event] = {}
        self.parent: dict[str, str | None] = {}
        self.below: dict[str, list[str]] = collections.defaultdict(list)
        # A caller knows what its own span is a part of; that counts where the span has no event of its own.
        for event in sorted((e for e in events if "span" in e), key=lambda e: ("above" in e, float(e["time"]))):
            span = event["span"]
            if span not in self.parent:
                self.parent[span] = event.get("parent")
                if "parent" in event:
                    self.below[event["parent"]].append(span)
            if "above" in event and event["parent"] not in self.parent:
                self.parent[event["parent"]] = event["above"]
                self.below[event["above"]].append(event["parent"])
            if event["event"] == "call":
                self.call[span] = event
            else:
                self.own[span].append(event)
        for span in self.parent:
            self._part_where_endless(span)

    def _part_where_endless(self, span: str) -> None:
        """A journal of another machine may say that spans are parts of each other, or of parts without end."""
        above = self.parent[span]
        for _ in range(_MOST_ABOVE):
            if above is None or above == span:
                break
            above = self.parent.get(above)
        if above is not None and (parent := self.parent[span]) is not None:
            self.below[parent] = [part for part in self.below[parent] if part != span]
            self.parent[span] = None

    def top(self, span: str, stop: Callable[[str], bool]) -> str:
        """The highest known span that `span` is a part of, below the first one for which `stop` is true."""
        while (above := self.parent.get(span)) in self.parent and above is not None and not stop(above):
            span = above
        return span

    def within(self, span: str) -> list[str]:
        """It and all its parts."""
        found = [span]
        for part in self.below[span]:
            found += self.within(part)
        return found

    def writer(self, span: str) -> str:
        """Who wrote the span's events."""
        return str(next(iter(self._told(span)))["who"])

    def began(self, span: str) -> float:
        """When its first event began, by its writer's clock."""
        return min(began(e) for e in self._told(span))

    def trace(self, span: str) -> str:
        """The trace that it is in."""
        return str(next(iter(self._told(span)))["trace"])

    def _told(self, span: str) -> Sequence[Event]:
        """What its process wrote in it; of one that only called others, those calls."""
        own = self.own[span] + ([self.call[span]] if span in self.call else [])
        return own or [self.call[below] for below in self.below[span] if below in self.call]


def began(event: Event) -> float:
    """When what an event tells of began (wall clock, s): a line is written when it is over."""
    if "at" in event:
        return float(event["at"])
    lasted_ms = event.get("duration_ms", 0) if event["event"] in ("key_delivered", "key_failed") else 0
    return float(event["time"]) - float(lasted_ms) / 1000


RELAY, WITH_SESSION = "relay", "configure the path and the session"
# Method and path, and what such a request is called.
_WORDS = [
    (method, re.compile(path), words)
    for method, path, words in (
        ("POST", r"/sae/v1/sessions", "open a key session"),
        ("POST", r"/sae/v1/connections", "ask_connection"),
        ("DELETE", r"/sae/v1/connections", "the end of the session"),
        ("POST", r"/sae/v1/keys", "ask-key: fetch this key"),
        ("POST", r"/sae/v1/messages", "a message under the key"),
        ("POST", r"/qkd/v1/key_sessions", "open_key_session"),
        ("DELETE", r"/qkd/v1/key_sessions", "withdraw the registration"),
        ("DELETE", r"/qkd/v1/key_sessions/[^/]+", "close the key session"),
        (".*", r"/api/v1/keys/.+/enc_keys", "Get key"),
        (".*", r"/api/v1/keys/.+/dec_keys", "Get key with key IDs"),
        ("GET", r"/api/v1/keys/.+/status", "Get status"),
        ("POST", r"/qkd/v1/applications", "register the slave's side"),
        ("GET", r"/qkd/v1/virtual_links/[^/]+/neighbours", "ask for neighbours on the virtual link"),
        ("POST", r"/qkd/v1/relay/[^/]+", RELAY),
        ("POST", r"/qkd/v1/relay/[^/]+/keys", "the new key under the shared key"),
        ("POST", r"/qkd/v1/relay/[^/]+/new_keys", "fetch the new key under the shared key"),
        ("POST", r"/qkd/v1/relay/[^/]+/check", "the check value of the key"),
        ("POST", r"/qkd/v1/relay/[^/]+/pads", "send the last node the difference of your pads"),
        ("POST", r"/qkd/v1/relay/[^/]+/difference", "the difference of two pads"),
        ("POST", r"/qkd/v1/relay/[^/]+/sealed", "the key under the first pad, and its check value"),
        ("POST", r"/vpn/v1/far_end/keys", "fetch this key, and be ready for it"),
        ("POST", r"/vpn/v1/far_end/turns", "send under this key from now on"),
        ("PATCH", r"/restconf/data/[^/]+:qkd_node", "configure the path"),
        ("DELETE", r"/restconf/data/.+qkd_(app|link)=.+", "remove the session"),
        ("POST", r"/restconf/operations/.+:application_answer", "application_answer"),
    )
]
STATEMENTS = {
    "allocate": "allocate ranges", "deliver": "fetch the key's position", "collect": "fetch positions not asked for",
}  # fmt: skip


def _of_call(method: str, path: str) -> str:
    """What a request is called; method and path if it has no name here."""
    for known, pattern, words in _WORDS:
        if re.fullmatch(known, method) and pattern.fullmatch(path):
            return words
    return f"{method} {path}"


# Of clocks that are set a little while the story goes on nobody needs to hear.
_TOLERANCE_S = 0.001


@dataclass(slots=True)
class Draft:
    """A message in the making; `skew` says where the receiver's clock disagrees."""

    sender: str
    receiver: str
    what: str
    at_s: float
    duration_ms: float | None = None
    outcome: str = OK
    ranges: Sequence[Use] = ()
    depth: int = 0
    events: list[Event] = field(default_factory=list)
    skew: list[str] = field(default_factory=list)

    def message(self) -> Message:
        """The message."""
        return Message(
            self.sender, self.receiver, self.what, self.at_s, self.duration_ms, self.outcome, tuple(self.ranges),
            self.depth, tuple(self.events),
        )  # fmt: skip

    @classmethod
    def of_event(cls, event: Event, here: str) -> Draft:
        """What an event by itself tells of `here`."""
        if event["event"] == "statement":
            what = STATEMENTS.get(event["statement"], event["statement"])
            lasted_ms = float(event["duration_ms"])
            found = cls(here, DATABASE, str(what), began(event), lasted_ms, _outcome(event), uses_of(event))
        else:
            step = _STEPS.get(event["event"], lambda e: str(e["event"]).replace("_", " "))
            found = cls(here, here, step(event), began(event), None, _outcome(event), uses_of(event))
        found.events.append(event)
        return found


def drafts(spans: Spans, tops: Sequence[str], keep: Callable[[str], bool]) -> list[Draft]:
    """All messages of the spans `tops` and of their parts that are to be kept, in the order of cause and effect."""
    found: list[Draft] = []
    for top in sorted(tops, key=lambda top: _turn(spans, top)):
        _Teller(spans, keep, found).root(top)
    return found


def _turn(spans: Spans, top: str) -> float:
    """When a span's turn to be told is: what was looked for all the time counts when it was found."""
    found = [float(e["time"]) for e in spans.own[top] if e.get("statement") == "collect"]
    return min(found, default=spans.began(top))


@dataclass(slots=True)
class _Teller:
    spans: Spans
    keep: Callable[[str], bool]
    out: list[Draft]

    def root(self, span: str) -> None:
        """A span that is a part of nothing that we know."""
        here = self._who(span)
        if span in self.spans.call:
            self._call(span, 0)
            return
        served = next((e for e in self.spans.own[span] if e["event"] in ("key_delivered", "key_failed")), None)
        if served is None:
            self._inside(span, here, 0, None)
            return
        # A client that keeps no journal of ours: what it asked, its node tells.
        enc = served["method"] == "enc_keys"
        sender = f"sae:{served['master_sae' if enc else 'slave_sae']}"
        what = _of_call("POST", f"/api/v1/keys/x/{served['method']}")
        asked = Draft(sender, here, what, began(served), float(served.get("duration_ms", 0)), _outcome(served))
        self.out.append(asked)
        self._inside(span, here, 1, asked)

    def _who(self, span: str) -> str:
        writer = self.spans.writer(span)
        if not writer.startswith("sae:"):
            return writer
        # A process runs all applications of a datacenter; which of them it was, its calls say, or the session's name.
        inner = [self.spans.call[s] for s in (span, *self.spans.below[span]) if s in self.spans.call]
        if inner:
            return str(inner[0]["by"])
        master = next((e["master_sae"] for e in self.spans.own[span] if "master_sae" in e), None)
        return f"sae:{master}" if master else writer

    def _call(self, span: str, depth: int) -> None:
        event = self.spans.call[span]
        to = str(event["to"])
        receiver = CONTROLLER if to.startswith("controller:") else to
        what = _of_call(event["method"], event["path"])
        sender = str(event.get("by", event["who"]))
        draft = Draft(sender, receiver, what, began(event), float(event["duration_ms"]), _outcome(event), depth=depth)
        draft.events.append(event)
        self.out.append(draft)
        for below in filter(self.keep, self.spans.below[span]):
            self._inside(below, receiver, depth + 1, draft)
            self._compare(draft, below)
        if any(e["event"] == "session_configured" for e in draft.events):
            draft.what = WITH_SESSION
        if draft.what == RELAY:
            draft.what = _relayed(self.out, draft)

    def _inside(self, span: str, here: str, depth: int, enclosing: Draft | None) -> None:
        """What happened in a span, at `here`, as a part of the message `enclosing`."""
        steps: list[tuple[float, Callable[[], None]]] = []
        for event in self.spans.own[span]:
            if _is_step(event) or enclosing is None:
                steps.append((began(event), lambda e=event: self._step(e, here, depth)))  # type: ignore[misc]
            else:
                enclosing.events.append(event)
        for below in filter(self.keep, self.spans.below[span]):
            steps.append((self._when(below), lambda s=below: self._part(s, span, here, depth, enclosing)))  # type: ignore[misc]
        for _, step in sorted(steps, key=lambda s: s[0]):
            step()

    def _step(self, event: Event, here: str, depth: int) -> None:
        draft = Draft.of_event(event, here)
        draft.depth = depth
        self.out.append(draft)

    def _part(self, span: str, whole: str, here: str, depth: int, enclosing: Draft | None) -> None:
        if span in self.spans.call:
            self._call(span, depth)
        elif self.spans.writer(span) == self.spans.writer(whole):
            self._inside(span, here, depth, enclosing)
        else:
            told = Draft(here, self._who(span), "sdqkdn_application_new", self._when(span), depth=depth)
            self.out.append(told)
            self._inside(span, told.receiver, depth + 1, told)

    def _when(self, span: str) -> float:
        """When a span began by the clock of who caused it; of what was caused by a notification, when that was sent."""
        parent = self.spans.parent[span]
        caused = [e for e in self.spans.own.get(parent or "", ()) if e["event"] == "new_app"]
        if caused and span not in self.spans.call and self.spans.writer(span) != caused[0]["who"]:
            return float(caused[0]["time"])
        inner = [s for s in self.spans.within(span) if self.spans.writer(s) == self.spans.writer(span)]
        return min(self.spans.began(s) for s in inner)

    def _compare(self, call: Draft, below: str) -> None:
        """Note if what the receiver did was, by its clock, before the request or after the answer."""
        if call.duration_ms is None or call.outcome != OK or self.spans.writer(below) == call.events[0]["who"]:
            return
        times = [float(e["time"]) for e in self.spans.own[below]]
        if not times:
            return
        early = call.at_s - min(times)
        late = max(times) - (call.at_s + call.duration_ms / 1000)
        if max(early, late) > _TOLERANCE_S:
            how = f"{early * 1000:.0f} ms behind" if early > late else f"{late * 1000:.0f} ms ahead of"
            call.skew.append(
                f"Clocks disagree: that of {call.receiver} is at least {how} that of {call.sender}."
                " Times are by each sender's own clock; the order is that of cause and effect."
            )


def _is_step(event: Event) -> bool:
    if event["event"] == "key_delivered":
        return event.get("source") == "pool"
    return event["event"] == "statement" or event["event"] in _STEPS


def _relayed(told: Sequence[Draft], draft: Draft) -> str:
    """What a relay message carries: the last allocation told says in which mode, and which node is the first."""
    for before in reversed(told):
        made = next((e for e in before.events if e.get("statement") == "allocate"), None)
        if made is not None:
            if all(use.purpose == "pad" for use in uses_of(made)):
                return f"{RELAY}: the key under the pad"
            first = draft.sender == f"node:{made['path'][0]}"
            return f"{RELAY}: {'where the shared key lies' if first else 'the shared key under the pad'}"
    return RELAY


def _outcome(event: Event) -> str:
    if "error" in event:
        return str(event["error"])
    if "short_bytes" in event and event["event"] == "statement":
        return f"{event['qc']} lacks {event['short_bytes']} bytes"
    if event.get("method") == "DELETE" and event.get("status") == 404:
        return OK  # what is not there is removed
    if int(event.get("status") or 0) >= 400:
        return str(event.get("cause", f"HTTP {event['status']}"))
    return str(event.get("cause", "failed")) if event["event"] in FAILURES else OK


def uses_of(event: Event) -> list[Use]:
    """The ranges that an event names."""
    return [Use(*entry) for entry in event.get("ranges", ())]


def _took(event: Event) -> str:
    several = len({use.qc for use in uses_of(event)}) > 1
    return f"takes out of its stream{'s' if several else ''}"


def _configured(event: Event) -> str:
    return f"path {in_words(paths_of(event))}, KSID"


_STEPS: Mapping[str, Callable[[Event], str]] = {
    "used": _took,
    "key_delivered": lambda _: "takes the key out of its pool",
    "key": lambda e: f"has the key ({e['size_bits']} bits)",
    "message": lambda e: f"the message was {'read' if e['ok'] else 'not read'}",
    "session_requested": lambda _: "wants a key session",
    "ask_connection": lambda e: f"knows that the slave has registered, after {e['duration_ms']:g} ms",
    "key_error": lambda e: f"has no key: {e['message']}",
    "session_open": lambda e: f"has the KSID after {e['total_ms']:g} ms",
    "session_refused": lambda e: f"refused: {e['message']}",
    "session_failed": lambda e: f"failed: {e['message']}",
    "ksid_assigned": _configured,
    "application_refused": lambda e: f"refuses: {e['message']}",
    "session_closed": lambda e: f"ends the session ({e['reason']}) after {e['keys']} keys",
}
