"""Server-sent events (HTML living standard, 9.2): a feed that a server writes for as long as its client listens.

An application puts a Feed into its answer with `answer_with`; the server then sends what is published there, each
event as one `data:` field, and a comment now and then so that both ends notice when the other is gone. The client
reads them with `mtls.call.Listener`.
"""

from __future__ import annotations

import collections
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Response

FEED = "qkd.feed"  # where in the WSGI environment the server finds it
CONTENT_TYPE = "text/event-stream"
MAX_EVENT_BYTES = 1 << 20
MAX_WAITING, MAX_WAITING_BYTES = 1000, 8 << 20  # events that a listener has not taken yet


class Feed:
    """Events for one listener, from any thread. A listener that does not keep up is cut off, and can start anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = 0
        self._wake: Callable[[], None] = lambda: None
        self.closed = False

    def publish(self, document: Any) -> bool:
        """Send an event. False if nobody listens any more."""
        data = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
        with self._lock:
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
                self.closed = True
            if not self.closed:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
            wake, taken = self._wake, not self.closed
        wake()  # also to end what is streamed
        return taken

    def close(self) -> None:
        """Nobody listens any more."""
        with self._lock:
            self.closed = True
            wake = self._wake
        wake()

    def on_news(self, wake: Callable[[], None]) -> None:
        """For the server: call `wake`, from whatever thread, when there is something to take."""
        with self._lock:
            self._wake = wake
        wake()

    def take(self) -> bytes:
        """For the server: all that waits."""
        with self._lock:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            return data


def answer_with(feed: Feed) -> Response:
    """An answer that never ends, with the events of `feed`."""
    from flask import Response, request  # clients know these events, too, and do without it

    request.environ[FEED] = feed
    return Response(b"", content_type=CONTENT_TYPE, headers={"Cache-Control": "no-cache"})
