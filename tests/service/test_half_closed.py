"""Clients that say behind their request that they send no more, as some proxies do, and clients that are gone."""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.serve import allow, new_app, tell_outcome
from tests.support.waiting import until

ALICE = Identity(Role.NODE, "alice")
_CLOSE_WAIT = "08"  # in /proc/net/tcp: the other side has ended
ASK = b"GET /key HTTP/1.1\r\nHost: x\r\n\r\n"


class Keys:
    """What became of the answers, and when they may be given."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.outcomes: queue.Queue[str] = queue.Queue()


@pytest.fixture
def keys() -> Iterator[Keys]:
    """At the end, all are answered."""
    found = Keys()
    yield found
    found.go_on.set()


@pytest.fixture
def app(keys: Keys) -> Flask:
    """Gives a key when it may."""
    app = new_app("keys")

    @app.get("/key")
    @allow(Role.SAE)
    def key():
        tell_outcome(lambda: keys.outcomes.put("taken"), lambda: keys.outcomes.put("lost"))
        keys.asked.release()
        assert keys.go_on.wait(20)
        return {"key": "secret"}

    return app


@pytest.fixture
def client(app: Flask, issue: Callable[..., Credentials], serve: Callable[..., str]) -> Iterator[Client]:
    """A client that has shaken hands."""
    host, port = serve(app, issue("node", "alice")).removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=15) as raw:
        yield Client(raw, issue("sae", "s1").client_context())


class Client:
    """TLS by hand over `raw`, so that each direction can be ended by itself."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        self.raw = raw
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=ALICE.dns)
        self._until_done(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        """Send it."""
        self._tls.write(data)
        self._flush()

    def say_goodbye(self) -> None:
        """TLS: no more will be sent."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            self._flush()

    def receive(self) -> bytes:
        """All that comes until the server closes."""
        found = b""
        while data := self.raw.recv(1 << 16):
            self._in.write(data)
            try:
                while part := self._tls.read():
                    found += part
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
        return found

    def reset(self) -> None:
        """Be gone, as a process that was killed with data unread."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    def _until_done(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._flush()
                self._in.write(self.raw.recv(1 << 16))
            else:
                self._flush()
                return

    def _flush(self) -> None:
        self.raw.sendall(self._out.read())


def by_tls(client: Client) -> None:
    """It ends its direction of TLS."""
    client.say_goodbye()


def by_tcp(client: Client) -> None:
    """It ends its direction of TCP."""
    client.raw.shutdown(socket.SHUT_WR)


def by_both(client: Client) -> None:
    """First the one, then the other."""
    client.say_goodbye()
    client.raw.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("end", [by_tls, by_tcp, by_both])
@pytest.mark.parametrize("n", [1, 3])
def test_client_that_sends_no_more_gets_the_answers_to_what_it_has_sent(client, keys, end, n):
    """However it says so, and although that reaches the server before the answers are there."""
    client.send(n * ASK)
    assert keys.asked.acquire(timeout=10)
    end(client)
    keys.go_on.set()

    assert client.receive().count(b'{"key":"secret"}\n') == n
    assert [keys.outcomes.get(timeout=10) for _ in range(n)] == n * ["taken"]


@pytest.mark.parametrize("end", [by_tls, by_tcp])
def test_client_that_ends_in_the_middle_of_a_request_is_let_go(client, keys, end):
    """There is nothing to answer."""
    client.send(ASK[:-4])
    end(client)

    assert client.receive() == b""
    assert keys.outcomes.empty()


@pytest.mark.parametrize("leave", [lambda c: c.raw.close(), lambda c: c.reset(), lambda c: (by_tls(c), c.raw.close())],
                         ids=["closed", "reset", "closed in order"])  # fmt: skip
def test_answer_to_a_client_that_is_gone_is_lost(client, keys, leave):
    """The application hears of it."""
    client.send(ASK)
    assert keys.asked.acquire(timeout=10)
    ours, theirs = client.raw.getsockname()[1], client.raw.getpeername()[1]
    leave(client)
    until(lambda: server_knows_that_it_is_gone(theirs, ours))
    keys.go_on.set()

    assert keys.outcomes.get(timeout=10) == "lost"


def server_knows_that_it_is_gone(server: int, client: int) -> bool:
    """Whether the end or the reset of the client at that port has come to the server's side of the connection."""
    ends = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = [(int(here.partition(":")[2], 16), int(there.partition(":")[2], 16)) for here, there, _ in ends]
    return all(end[2] == _CLOSE_WAIT for end, pair in zip(ends, ports, strict=True) if pair == (server, client))


def test_answer_that_is_taken_is_told_on_a_connection_that_goes_on(client, keys):
    """One by one."""
    keys.go_on.set()
    for _ in range(2):
        client.send(ASK)
        assert keys.outcomes.get(timeout=10) == "taken"
