"""Event streams over real TLS: what one side may take of the other, and that neither outlives it in silence."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from flask import Response

from documents.checks import Malformed
from mtls import call, events, json_text
from mtls.call import Caller, Listener, Unreachable
from mtls.events import CONTENT_TYPE, MAX_EVENT_BYTES, MAX_WAITING, Feed, answer_with
from mtls.identity import Identity, Role
from mtls.liveness import DEAD_S
from mtls.serve import new_app

ALICE = Identity(Role.NODE, "alice")


class Stream:
    """A server whose only feed a listener takes."""

    def __init__(self, issue, serve) -> None:
        self.feed = Feed()
        app = new_app("test")
        app.get("/")(lambda: answer_with(self.feed))
        self.url = serve(app, issue("node", "alice"))
        self.credentials = issue("controller", "ctl")
        self.listeners: list[Listener] = []

    def listen(self, **options: float) -> Listener:
        """A listener."""
        self.listeners.append(Listener(self.credentials, f"{self.url}/", ALICE, timeout_s=5, **options))
        return self.listeners[-1]


@pytest.fixture
def stream(issue, serve) -> Iterator[Stream]:
    """A stream to which nobody listens yet."""
    made = Stream(issue, serve)
    yield made
    for listener in made.listeners:
        listener.close()


@pytest.fixture
def hostile(issue, serve) -> Iterator[Callable[[bytes], Listener]]:
    """`hostile(data)` listens to a stream that begins with those bytes."""

    def _listen(data: bytes) -> Listener:
        app = new_app("hostile")
        app.get("/")(lambda: Response(data, content_type=CONTENT_TYPE))
        url = serve(app, issue("node", "alice"))
        listeners.append(Listener(issue("controller", "ctl"), f"{url}/", ALICE, timeout_s=5))
        return listeners[-1]

    listeners: list[Listener] = []
    yield _listen
    for listener in listeners:
        listener.close()


def test_events_arrive_in_order(stream):
    """What waited before somebody listened, too."""
    stream.feed.publish({"n": 0})
    heard = stream.listen().events()
    stream.feed.publish({"n": 1})

    assert [next(heard), next(heard)] == [{"n": 0}, {"n": 1}]


def endless_line() -> bytes:
    """A line without an end."""
    return b"data: " + b"x" * (2 * MAX_EVENT_BYTES)


def endless_event() -> bytes:
    """Lines of an event that has no end."""
    return b"data: " + b"x" * 1000 + b"\n" + (b"data: " + b"x" * 1000 + b"\n") * (MAX_EVENT_BYTES // 1000 + 1)


def endless_comment() -> bytes:
    """A line without an end that is no data."""
    return b":" + b"x" * (2 * MAX_EVENT_BYTES)


@pytest.mark.parametrize(
    "data", [endless_line(), endless_comment(), endless_event()], ids=["line", "comment", "event"]
)
def test_event_without_an_end_is_refused(hostile, data):
    """A controller that gathers it would grow until it dies."""
    with pytest.raises(Malformed, match=f"at most {MAX_EVENT_BYTES} bytes"):
        next(hostile(data).events())


@pytest.mark.parametrize("data", [b"{", b"[" + b"[]," * json_text.MOST_PARTS + b"[]]"], ids=["torn", "many lists"])
def test_event_that_is_no_json_is_refused(hostile, data):
    """Not with an exception of the parser's; nor is one read during which all other threads would wait."""
    with pytest.raises(Malformed, match="expected JSON"):
        next(hostile(b"data: " + data + b"\n\n").events())


def test_flood_of_comments_is_read_slowly(hostile, monkeypatch):
    """Its sender must not keep the listener busy."""
    slept: list[float] = []
    monkeypatch.setattr(call.time, "sleep", slept.append)
    with pytest.raises(Unreachable):
        next(hostile(b":\n" * 10_000).events())

    assert len(slept) == 4


def test_server_that_falls_silent_is_noticed(stream):
    """Not even a comment comes."""
    listener = stream.listen(silence_s=0.2)

    with pytest.raises(Unreachable, match="fell silent"):
        next(listener.events())


@pytest.mark.parametrize("size", [2, events.MAX_WAITING_BYTES // 10], ids=["many", "large"])
def test_feed_at_its_limit_wakes_its_reader(size):
    """The server ends the stream at once, and the listener starts anew."""
    feed, woken = Feed(), threading.Event()
    feed.on_news(woken.set)
    while feed.publish("x" * size):
        woken.clear()

    assert woken.is_set()
    assert feed.closed
    assert len(feed.take()) < (MAX_WAITING + 1) * 20 + events.MAX_WAITING_BYTES


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """All TCP sockets that are told to notice their peer's death."""
    found: list[socket.socket] = []
    real = socket.socket.setsockopt

    def setsockopt(self: socket.socket, level: int, option: int, value: object) -> None:
        if (level, option, value) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_S * 1000):
            found.append(self)
        real(self, level, option, value)

    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    return found


def test_both_ends_of_every_connection_notice_a_dead_peer(stream, connected):
    """Of an event stream and of a call."""
    stream.listen()
    assert len(connected) == 2
    caller = Caller(stream.credentials)
    caller.request("GET", f"{stream.url}/nothing", to=ALICE)
    caller.close()

    assert len(connected) == 4
