"""Server-sent events (HTML living standard, 9.2): a feed that a server writes for as long as its client listens.

An application puts a Feed into its answer with `answer_with`; the server then sends what is published there, each
event as one `data:` field, and a comment now and then so that both ends notice when the other is gone. The client
reads them with `follow`.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request

from mtls.call import Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity

FEED = "qkd.feed"  # where in the WSGI environment the server finds it
CONTENT_TYPE = "text/event-stream"
BEAT_S = 5.0  # a comment is sent when there was nothing else for so long
_SILENCE_S = 3 * BEAT_S
_MAX_WAITING = 1000
_MAX_LINE_BYTES = 1 << 20


class Feed:
    """Events for one listener, from any thread. A listener that does not keep up is cut off, and can start anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._wake: Callable[[], None] = lambda: None
        self.closed = False

    def publish(self, document: Any) -> bool:
        """Send an event. False if nobody listens any more."""
        data = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                self.closed = True
            if self.closed:
                return False
            self._waiting.append(data)
            wake = self._wake
        wake()
        return True

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
            return data


def answer_with(feed: Feed) -> Response:
    """An answer that never ends, with the events of `feed`."""
    request.environ[FEED] = feed
    return Response(b"", content_type=CONTENT_TYPE, headers={"Cache-Control": "no-cache"})


class Listener:
    """Listens to the events of `url`, whose server must be `to`; `events` from one thread, `close` from any."""

    def __init__(self, credentials: Credentials, url: str, to: Identity, *, timeout_s: float) -> None:
        self._url = url
        parts = urlsplit(url)
        context = credentials.client_context()
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        try:
            raw = socket.create_connection((parts.hostname or "", parts.port or 443), timeout=timeout_s)
            try:
                # Checked is the name in the certificate, whatever address the URL has.
                self._sock = connection.sock = context.wrap_socket(raw, server_hostname=to.dns)
            except BaseException:
                raw.close()
                raise
            connection.request("GET", parts.path, headers={"Accept": CONTENT_TYPE})
            answer = connection.getresponse()
            self._sock.settimeout(_SILENCE_S)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(url, f"{type(error).__name__}: {error}") from None
        self._answer = answer
        if answer.status != 200 or not answer.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
            self.close()
            raise Unreachable(url, f"no event stream, but HTTP status {answer.status}")

    def events(self) -> Iterator[Any]:
        """The events' documents as they come; Unreachable when the stream ends or falls silent."""
        data: list[bytes] = []
        try:
            while line := self._answer.readline(_MAX_LINE_BYTES):
                line = line.rstrip(b"\r\n")
                if line.startswith(b"data:"):
                    data.append(line[5:].removeprefix(b" "))
                elif not line and data:
                    document, data = json.loads(b"\n".join(data)), []
                    yield document
        except (OSError, http.client.HTTPException, ValueError, RecursionError, AttributeError) as error:
            raise Unreachable(self._url, f"{type(error).__name__}: the event stream broke") from None
        raise Unreachable(self._url, "the event stream ended")

    def close(self) -> None:
        """Stop listening: `events` ends with Unreachable."""
        with contextlib.suppress(OSError):  # it is closed already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._answer.close()
