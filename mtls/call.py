"""One way to call: pooled keep-alive connections over mutual TLS, a deadline on every call, JSON both ways.

A call is sent once. Retrying is the caller's business, because only it knows whether a second try is harmless. A
connection that its server has closed, or may be about to close, is opened anew before (mtls/connections/kept.py).
A call that is made in a trace is a part of it, and says so to the server. An event stream has a connection of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import urllib3

from documents.checks import Malformed
from mtls import deadline, json_text
from mtls.connections.kept import Pools
from mtls.credentials import Credentials
from mtls.deadline import LEAST_S, TimedSocket
from mtls.events import CONTENT_TYPE, MAX_EVENT_BYTES
from mtls.identity import Identity
from mtls.liveness import OPTIONS, SILENCE_S, notice_death, round_trip_s
from telemetry import trace

# Bytes and parts of what is shown to those who ask for it, and of answers to all else.
_LONGEST_SHOWN = 16 << 20, json_text.MOST_PARTS_OF_ANSWER
_LONGEST_ANSWER = 1 << 20, json_text.MOST_PARTS
# Of errors, whose text goes on to journals and to others.
_MAX_ERROR_BYTES = 64 << 10
_LONGEST_TEXT, _LONGEST_FACT, _MOST_FACTS = 500, 4000, 32
_ROUND_TRIPS = 3  # of a call: TCP, TLS 1.3, HTTP
_LONGEST_S = 3600.0
# Who sends more is read no faster: a stream of nothing but comments must not keep its listener busy. A line counts for
# so many bytes at least, as it has to be looked at.
_MAX_BYTES_S, _LINE_BYTES = 8 << 20, 4 << 10
_WORD = re.compile(r"[a-z_]{1,40}")


class Unreachable(Exception):
    """No answer: connection refused or lost, TLS failed, the wrong party answered, or the deadline passed.

    `body`: what was answered in place of an event stream, if that was JSON.
    """

    def __init__(self, url: str, reason: str, body: Any = None) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason
        self.body = body


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: HTTP status, the decoded JSON body (None if there was none), and the entity-tag of what it shows."""

    status: int
    body: Any
    etag: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    @property
    def has_message(self) -> bool:
        """Whether there is an error body that says something to people."""
        found = self.body.get("message") if isinstance(self.body, dict) else None
        return isinstance(found, str) and bool(_shortened(found).strip())

    @property
    def message(self) -> str:
        """The error body's message, or the status."""
        return _shortened(self.body["message"]) if self.has_message else f"HTTP status {self.status}"

    @property
    def details(self) -> dict[str, Any]:
        """The facts in the error body's details; empty if there are none. What is far too long is left out."""
        details = self.body.get("details") if isinstance(self.body, dict) else None
        facts: dict[str, Any] = {}
        for entry in details[:_MOST_FACTS] if isinstance(details, list) else []:
            if isinstance(entry, dict):
                facts |= {k: v for k, v in entry.items() if len(k) + len(json.dumps(v)) <= _LONGEST_FACT}
        return dict(list(facts.items())[:_MOST_FACTS])

    def detail(self, name: str) -> Any:
        """The value of `name` in the error body's details, or None."""
        return self.details.get(name)


def _shortened(text: str) -> str:
    """What another party says, fit for one line of a journal and for an answer of our own."""
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_TEXT])


class _Socket(TimedSocket):
    """urllib3 sets the time-out once for each answer, so that a server which drips its answer gains nothing by that."""

    heard: Callable[[str, float], None]  # is told the round trip in seconds to the server of that name

    def do_handshake(self, block: bool = False) -> None:
        self._leave_what_is_left()
        super().do_handshake(block)
        self.heard(self.server_hostname or "", round_trip_s(self))  # the rest of the call may have no time to teach it

    def send(self, data: Any, flags: int = 0) -> int:
        self._leave_what_is_left()
        return super().send(data, flags)

    def _leave_what_is_left(self) -> None:
        """Of the call's time: urllib3 would give handshake and request as much again as there was to connect."""
        ssl.SSLSocket.settimeout(self, max(deadline.LEAST_S, deadline.left(_LONGEST_S)))

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        try:
            return super().recv_into(buffer, nbytes, flags)
        finally:  # when no answer comes, too: the kernel knows how long a packet takes
            self.heard(self.server_hostname or "", round_trip_s(self))


class Caller:
    """Calls as the owner of `credentials`. Thread-safe; one pool of connections a party called.

    `round_trip_s`: the longest one in this network, as far as is known beforehand; what is measured counts where it is
    more, so that links may become slow while the network runs.

    `record` is told of each call in a trace when it is over, by keywords: `to` ("ROLE:NAME"), `method`, `path`, `at`
    (wall clock, s) and `duration_ms` of the call, `above` (see Span) if there is such a span, and the answer's `status`
    with the `cause` that an error body names, or `error`, why there was none.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        connections: int = 16,
        record: Callable[..., None] | None = None,
        round_trip_s: float = 0.0,
    ) -> None:
        self._context = credentials.client_context()
        self._measured_s: dict[str, float] = {}  # by the DNS name of the party
        heard = staticmethod(self._measured_s.__setitem__)
        self._context.sslsocket_class = type("_Socket", (_Socket,), {"heard": heard})
        self._expected_s = round_trip_s
        self._connections = connections
        self._record = record
        self._pools: dict[tuple[str, str], Pools] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        to: Identity,
        body: Any = None,
        timeout_s: float = 5.0,
        conditions: Mapping[str, str] = MappingProxyType({}),
    ) -> Reply:
        """One request to `url`, which must be answered by `to`; that party has `timeout_s` seconds for it.

        The round trips that the call takes come on top; but no call outlasts the deadline of what it is made for.
        `conditions`: header fields, such as If-Match, without which it is not to be done (RFC 9110, 13.1).
        Unreachable says "no answer within N s" if the last byte of the answer has not come by then.
        """
        with trace.part() as span:
            started = time.time(), time.monotonic()
            try:
                reply = self._exchange(method, url, to, body, timeout_s, conditions=conditions)
            except Unreachable as error:
                self._note(span, started, to, method, url, error=error.reason)
                raise
            self._note(span, started, to, method, url, status=reply.status, **_cause(reply))
            return reply

    @property
    def round_trip_s(self) -> float:
        """The longest round trip to a party of this network, as expected or as measured."""
        return max(self._expected_s, *self._measured_s.values(), 0.0)

    def measured_s(self, to: Identity) -> float:
        """The round trip to that party as it was measured last; 0 if that is nothing much."""
        return self._measured_s.get(to.dns, 0.0)

    def on_the_way_s(self, to: Identity) -> float:
        """Seconds that the round trips of a call to that party take, which come on top of what it is given."""
        return _ROUND_TRIPS * max(self._expected_s, self.measured_s(to))

    def _note(
        self, span: trace.Span | None, started: tuple[float, float], to: Identity, method: str, url: str, **facts: Any
    ) -> None:
        if span is not None and self._record is not None:
            duration_ms = round((time.monotonic() - started[1]) * 1000, 3)
            path = urlsplit(url).path  # no query, which may hold what nobody needs to read
            if span.above is not None:
                facts["above"] = span.above
            self._record(
                to=f"{to.role}:{to.name}", method=method, path=path, at=round(started[0], 6), duration_ms=duration_ms,
                **facts,
            )  # fmt: skip

    def _exchange(
        self, method: str, url: str, to: Identity, body: Any, timeout_s: float, *, conditions: Mapping[str, str]
    ) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        on_the_way_s = self.on_the_way_s(to)
        wait_s = deadline.left_for_others(timeout_s + on_the_way_s)
        if wait_s < deadline.LEAST_S:
            raise Unreachable(url, "no time is left to ask")
        headers[deadline.HEADER] = deadline.to_header(max(wait_s - on_the_way_s, wait_s / 2))
        headers |= conditions
        if (span := trace.current()) is not None:
            headers[trace.HEADER] = trace.to_header(span)
        begun = time.monotonic()
        try:
            with deadline.until(time.monotonic() + wait_s):
                answer = self._pool(to).request(
                    method, url, body=data, headers=headers, timeout=urllib3.Timeout(total=wait_s),
                    retries=False, redirect=False, preload_content=False,
                )  # fmt: skip
            longest, most_parts = _LONGEST_SHOWN if method == "GET" else _LONGEST_ANSWER
            most = longest if answer.status < 400 else _MAX_ERROR_BYTES
            raw = answer.read(most + 1)
            if len(raw) > most:
                answer.close()
                if answer.status < 400:
                    raise Unreachable(url, "the answer is too long")
                return Reply(answer.status, None)
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # A dead connection may be given up before the time is over.
            raise Unreachable(url, why(error, min(wait_s, time.monotonic() - begun))) from error
        return Reply(answer.status, _decode(url, raw, most_parts), answer.headers.get("ETag"))

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()

    def _pool(self, to: Identity) -> Pools:
        key = (to.role, to.name)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = Pools(
                    maxsize=self._connections,
                    ssl_context=self._context,
                    server_hostname=to.dns,  # checked by OpenSSL, whatever address the URL has
                    socket_options=[*urllib3.connection.HTTPConnection.default_socket_options, *OPTIONS],
                )
            return self._pools[key]


class Listener:
    """Listens to the events of `url`, whose server must be `to`; `events` from one thread, `close` from any.

    The server has `timeout_s` seconds in all until it begins to tell of events.

    `silence_s`: of a server that sends nothing for so long, not even a comment, the stream counts as broken.
    `headers`: fields of the request beside the usual ones.
    """

    def __init__(
        self,
        credentials: Credentials,
        url: str,
        to: Identity,
        *,
        timeout_s: float,
        silence_s: float | None = SILENCE_S,
        headers: Mapping[str, str] = MappingProxyType({}),
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
            connection.request("GET", parts.path, headers={"Accept": CONTENT_TYPE, **headers})
            self._sock.settimeout(max(LEAST_S, give_up - time.monotonic()))
            answer = connection.getresponse()
            self._sock.settimeout_of_each(silence_s)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(url, why(error, timeout_s)) from None
        self._answer = answer
        if answer.status != 200 or not answer.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
            body = None
            with contextlib.suppress(OSError, http.client.HTTPException, Unreachable):
                body = _decode(url, answer.read(_MAX_ERROR_BYTES), json_text.MOST_PARTS)
            self.close()
            raise Unreachable(url, f"no event stream, but HTTP status {answer.status}", body)

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


def _cause(reply: Reply) -> dict[str, str]:
    """The word by which an error body names its cause, if it is one: it is another party's, and goes to a journal."""
    cause = None if reply.ok else reply.detail("cause")
    return {"cause": cause} if isinstance(cause, str) and _WORD.fullmatch(cause) else {}


def _decode(url: str, raw: bytes, most_parts: int) -> Any:
    if not raw:
        return None
    try:
        return json_text.loads(raw, most_parts)
    except (ValueError, RecursionError):
        raise Unreachable(url, f"the answer is not JSON of at most {most_parts} parts") from None


def why(error: BaseException, timeout_s: float) -> str:
    """The innermost cause in a few words: urllib3 wraps errors in errors, with addresses of objects in the text.

    An exception's name is none of these words: users read them.
    """
    while True:
        wrapped = (getattr(error, "reason", None), error.__cause__, *error.args)
        inner = next((e for e in wrapped if isinstance(e, BaseException)), None)
        if inner is None:
            if isinstance(error, TimeoutError):
                return f"no answer within {round(timeout_s, 1):g} s"
            return str(getattr(error, "strerror", None) or error) or "the connection broke"
        error = inner
