"""The node's notifications as event streams (RFC 8040, clause 6): the standard's, and one with what we add.

Whoever listens to the stream qkd-testbed is a controller that knows our module; it hears the same notifications with a
few members more. Nothing is replayed: a listener reads the node's state when it begins to listen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from etsi import gs015, gs015_testbed
from mtls.events import Feed
from mtls.serve import Problem
from node.limits import LISTENERS

STANDARD, EXTENDED = "NETCONF", gs015_testbed.STREAM
DESCRIPTIONS = {
    STANDARD: "notifications of ETSI GS QKD 015",
    EXTENDED: "the same, with what module qkd-testbed adds, and that module's own",
}


class Streams:
    """Who listens to which stream. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeds: list[tuple[Feed, str, str | None]] = []  # the stream, and the name of a controller
        self._begun: dict[str, int] = {}  # controller -> how often it began to listen
        self._on_controller: list[Callable[[], None]] = []

    def on_controller(self, step: Callable[[], None]) -> None:
        """Call `step` when a controller has begun to listen, before its request is answered."""
        self._on_controller.append(step)

    def listen(self, stream: str, *, controller: str | None) -> Feed:
        """A new listener of `stream`; Problem if there are too many. `controller`: its name, if it is one."""
        feed = Feed()
        with self._lock:
            self._feeds = [entry for entry in self._feeds if not entry[0].closed]
            if len(self._feeds) >= LISTENERS:
                raise Problem(503, f"no more than {LISTENERS} listeners are served")
            self._feeds.append((feed, stream, controller))
            if controller is not None:
                self._begun[controller] = self._begun.get(controller, 0) + 1
        if controller is not None:
            for step in self._on_controller:
                step()
        return feed

    def end(self, controller: str) -> None:
        """Tell the controller of that name nothing any more, until it asks anew."""
        with self._lock:
            feeds = [feed for feed, _, name in self._feeds if name == controller]
        for feed in feeds:
            feed.close()

    @property
    def controlled(self) -> str | None:
        """The stream that a controller listens to: EXTENDED if one knows our module, None if there is none."""
        with self._lock:
            streams = {stream for feed, stream, name in self._feeds if name is not None and not feed.closed}
        if EXTENDED in streams:
            return EXTENDED
        return STANDARD if streams else None

    @property
    def controllers(self) -> int:
        """How many ever began to listen, each time anew."""
        with self._lock:
            return sum(self._begun.values())

    def listening(self, controller: str) -> int:
        """How often the controller of that name began to listen; 0 if it does not listen now."""
        with self._lock:
            listens = any(name == controller and not feed.closed for feed, _, name in self._feeds)
            return self._begun.get(controller, 0) if listens else 0

    def notify(self, name: str, content: Mapping[str, Any], *, extended: Mapping[str, Any] | None = None) -> None:
        """Send the standard's notification of that name; `extended` is its content in the stream with additions."""
        qualified = f"{gs015.MODULE}:{name}"
        self._send(qualified, {STANDARD: content, EXTENDED: extended or content})

    def notify_own(self, name: str, content: Mapping[str, Any]) -> None:
        """Send a notification of our module."""
        self._send(f"{gs015_testbed.MODULE}:{name}", {EXTENDED: content})

    def _send(self, name: str, contents: Mapping[str, Mapping[str, Any]]) -> None:
        moment = gs015.date_and_time(time.time())
        with self._lock:
            feeds = list(self._feeds)
        for feed, stream, _ in feeds:
            if stream in contents and not feed.closed:
                feed.publish({"ietf-restconf:notification": {"eventTime": moment, name: contents[stream]}})
