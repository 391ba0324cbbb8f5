"""Events of many journals as trees of spans: what was done as a part of what. PURE.

A span is known by its events. One with a `call` event is a request as its sender saw it; what its receiver did is in
a span below it. A span of another process that is below no call was caused by a notification.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

from testbed.stories.model import Event


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
