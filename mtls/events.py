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
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request

from documents.checks import Malformed
from mtls import json_text
from mtls.call import Unreachable, why
from mtls.credentials import Credentials
from mtls.deadline import LEAST_S, TimedSocket
from mtls.identity import Identity
from mtls.liveness import SILENCE_S, notice_death

FEED = "qkd.feed"  # where in the WSGI environment the server finds it
CONTENT_TYPE = "text/event-stream"
MAX_EVENT_BYTES = 1 << 20
MAX_WAITING, MAX_WAITING_BYTES = 1000, 8 << 20  # events that a listener has not taken yet
# Who sends more is read no faster: a stream of nothing but comments must not keep its listener busy. A line counts for
# so many bytes at least, as it has to be looked at.
_MAX_BYTES_S, _LINE_BYTES = 8 << 20, 4 << 10


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
    request.environ[FEED] = feed
    return Response(b"", content_type=CONTENT_TYPE, headers={"Cache-Control": "no-cache"})


class Listener:
    """Listens to the events of `url`, whose server must be `to`; `events` from one thread, `close` from any.

    The server has `timeout_s` seconds in all until it begins to tell of events.

    `silence_s`: of a server that sends nothing for so long, not even a comment, the stream counts as broken.
    """

    def __init__(
        self,
        credentials: Credentials,
        url: str,
        to: Identity,
        *,
        timeout_s: float,
        silence_s: float | None = SILENCE_S,
    ) -> None:
        self._url = url
        parts = urlsplit(url)
        context = credentials.client_context()
        context.sslsocket_class = TimedSocket
        give_up = time.monotonic() + timeout_s
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        try:
            raw = socket.create_connection((parts.hostname or "", parts.port or 443), timeout=timeout_s)
            try:
                notice_death(raw)
                raw.settimeout(max(LEAST_S, give_up - time.monotonic()))
                # Checked is the name in the certificate, whatever address the URL has.
                sock = context.wrap_socket(raw, server_hostname=to.dns)
            except BaseException:
                raw.close()
                raise
            assert isinstance(sock, TimedSocket)  # noqa: S101 - the context makes no others
            self._sock = connection.sock = sock
            connection.request("GET", parts.path, headers={"Accept": CONTENT_TYPE})
            self._sock.settimeout(max(LEAST_S, give_up - time.monotonic()))
            answer = connection.getresponse()
            self._sock.settimeout_of_each(silence_s)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(url, why(error, timeout_s)) from None
        self._answer = answer
        if answer.status != 200 or not answer.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
            self.close()
            raise Unreachable(url, f"no event stream, but HTTP status {answer.status}")

    def events(self) -> Iterator[Any]:
        """The events' documents as they come; Unreachable when the stream ends or falls silent.

        Malformed: an event has more than MAX_EVENT_BYTES, or is no JSON.
        """
        data, length = [], 0
        for line in self._lines():
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
                length += len(line)
                if length > MAX_EVENT_BYTES:
                    raise _too_long()
            elif not line and data:
                text, data, length = b"\n".join(data), [], 0
                try:
                    document = json_text.loads(text)
                except (ValueError, RecursionError):
                    raise Malformed("event", f"JSON of at most {json_text.MOST_PARTS} parts") from None
                yield document

    def _lines(self) -> Iterator[bytes]:
        second, taken = time.monotonic(), 0
        while line := self._line():
            if not line.endswith(b"\n") and len(line) > MAX_EVENT_BYTES:
                raise _too_long()
            taken += max(len(line), _LINE_BYTES)
            if taken > _MAX_BYTES_S:
                time.sleep(max(0.0, second + 1.0 - time.monotonic()))
                second, taken = time.monotonic(), 0
            yield line.rstrip(b"\r\n")
        raise Unreachable(self._url, "the event stream ended")

    def _line(self) -> bytes:
        try:
            return self._answer.readline(MAX_EVENT_BYTES + 1)
        except TimeoutError:
            raise Unreachable(self._url, "the event stream fell silent") from None
        except (OSError, http.client.HTTPException, ValueError, AttributeError):  # the last two: it was closed here
            raise Unreachable(self._url, "the event stream broke") from None

    def close(self) -> None:
        """Stop listening: `events` ends with Unreachable."""
        with contextlib.suppress(OSError):  # it is closed already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._answer.close()
        self._sock.close()


def _too_long() -> Malformed:
    return Malformed("event", f"at most {MAX_EVENT_BYTES} bytes")
