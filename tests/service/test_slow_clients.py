"""Clients that are slow, silent, greedy or many, on real sockets: they hold up nobody, and none for ever."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from flask import Flask

from mtls.call import Caller, Listener, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.serve import allow, json_body, new_app

ALICE = Identity(Role.NODE, "alice")
THREADS = 4
MANY = 5 * THREADS
BIG_BYTES = 32 << 20
WHO = b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)  # a TLS record of 512 bytes, announced


@pytest.fixture
def app() -> Flask:
    """Answers a little, gives back what it gets, or answers more than any buffer holds."""
    app = new_app("slow clients")

    @app.get("/who")
    @allow(Role.SAE)
    def who():
        return {"name": "alice"}

    @app.post("/echo")
    @allow(Role.SAE)
    def echo():
        return json_body()

    @app.get("/big")
    @allow(Role.SAE)
    def big():
        return bytes(BIG_BYTES)

    return app


@pytest.fixture
def sae(issue) -> Credentials:
    """The credentials of every client here."""
    return issue("sae", "s1")


@pytest.fixture
def kept() -> Iterator[ExitStack]:
    """Holds the connections that are to stay open until the test is over."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(app, issue, serve, sae) -> Callable[..., str]:
    """`start(...)` gives the URL of a server with few workers."""

    def _start(**options) -> str:
        return serve(app, issue("node", "alice"), threads=THREADS, **options)

    return _start


def plain(url: str) -> socket.socket:
    """A TCP connection to the server."""
    host, port = url.removeprefix("https://").split(":")
    return socket.create_connection((host, int(port)), timeout=15)


def dial(url: str, credentials: Credentials) -> ssl.SSLSocket:
    """A TLS connection to the server."""
    return credentials.client_context().wrap_socket(plain(url), server_hostname=ALICE.dns)


def answer(connection: socket.socket) -> http.client.HTTPResponse:
    """The next answer on that connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def assert_served(url: str, credentials: Credentials) -> None:
    """An ordinary caller gets all its answers, on new connections and on kept ones."""
    for _ in range(3):
        caller = Caller(credentials)
        for _ in range(5):
            assert caller.request("GET", f"{url}/who", to=ALICE, timeout_s=10).body == {"name": "alice"}
            assert caller.request("POST", f"{url}/echo", to=ALICE, body={"a": 1}, timeout_s=10).body == {"a": 1}
        caller.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side ends the connection without a word, before the socket's timeout."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("said", [b"", HALF_HELLO], ids=["silent", "half a hello"])
def test_half_open_handshakes_hold_up_nobody(start, sae, kept, said):
    """A handshake that does not go on costs no worker."""
    url = start()
    for _ in range(MANY):
        kept.enter_context(plain(url)).sendall(said)

    assert_served(url, sae)


@pytest.mark.parametrize(
    "head",
    [b"GET /who HTTP/1.1\r\nX: ", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"],
    ids=["header", "body"],
)
def test_dripping_requests_hold_up_nobody(start, sae, kept, head):
    """A request of which a byte comes now and then has no worker before its last byte."""
    url = start()
    clients = [kept.enter_context(dial(url, sae)) for _ in range(MANY)]
    for client in clients:
        client.sendall(head)
    for _ in range(3):
        for client in clients:
            client.sendall(b"x")
        assert_served(url, sae)


def test_bodies_of_10_mb_hold_up_nobody(start, sae, kept):
    """They are refused while they come, and their senders get to read that."""
    url = start()
    clients = [kept.enter_context(dial(url, sae)) for _ in range(MANY)]
    statuses: list[int] = []

    def upload(client: ssl.SSLSocket) -> None:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        with suppress(OSError):  # the server need not read it all
            client.sendall(bytes(10_000_000))
        statuses.append(answer(client).status)

    threads = [threading.Thread(target=upload, args=(client,)) for client in clients[:THREADS]]
    for client in clients[THREADS:]:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
    for thread in threads:
        thread.start()
    assert_served(url, sae)
    for thread in threads:
        thread.join()
    assert statuses == [413] * THREADS


def test_thousands_of_idle_connections_hold_up_nobody(start, sae, kept):
    """1500 that say nothing and 300 that have shaken hands, and a newcomer is served."""
    url = start()
    for _ in range(1500):
        kept.enter_context(plain(url))
    shaken = [kept.enter_context(dial(url, sae)) for _ in range(300)]

    assert_served(url, sae)
    shaken[0].sendall(WHO)
    assert answer(shaken[0]).status == 200


def test_clients_that_never_read_hold_up_nobody(start, sae, kept):
    """An answer that nobody takes costs no worker, however many are asked for."""
    url = start()
    for _ in range(2 * THREADS):
        kept.enter_context(dial(url, sae)).sendall(3 * b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")

    assert_served(url, sae)


def test_handshake_has_a_deadline(start, kept):
    """A client that does not shake hands is put out."""
    assert is_closed(kept.enter_context(plain(start(handshake_s=0.3))))


def test_silent_client_is_put_out(start, sae, kept):
    """A connection on which no request comes does not stay for ever."""
    assert is_closed(kept.enter_context(dial(start(idle_s=0.3), sae)))


def test_dripping_a_header_wins_no_time(start, sae, kept):
    """The header's deadline counts from the beginning, not from the last byte."""
    client = kept.enter_context(dial(start(idle_s=0.5), sae))
    client.sendall(b"GET /who HTTP/1.1\r\nX: ")

    assert drip(client) == b""


def test_dripping_a_body_wins_no_time(start, sae, kept):
    """The body's deadline counts from the header; the client is told before the connection is closed."""
    client = kept.enter_context(dial(start(timeout_s=0.5), sae))
    client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    said = drip(client)

    assert said.startswith(b"HTTP/1.1 408 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["details"] == [{"timeout_s": 0.5}]


def drip(client: ssl.SSLSocket) -> bytes:
    """Send a byte every 20 ms, 1000 at most, until the server answers or closes; all that it says."""
    said = b""
    with suppress(OSError):
        for _ in range(1000):
            client.sendall(b"x")
            if select.select([client], [], [], 0.02)[0]:
                break
        else:
            pytest.fail("the server took a thousand bytes one by one")
        client.settimeout(15)
        while part := client.recv(1000):
            said += part
    return said


def test_taking_an_answer_has_a_deadline(start, sae, kept):
    """A client that takes an answer by the thimble does not get the whole of it."""
    client = kept.enter_context(dial(start(timeout_s=0.5), sae))
    client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    got, end = 0, time.monotonic() + 2
    while time.monotonic() < end:
        got += len(client.recv(1000))
        time.sleep(0.02)
    with suppress(OSError):
        while part := client.recv(1 << 20):
            got += len(part)

    assert 0 < got < BIG_BYTES


def test_newcomer_takes_the_place_of_the_longest_idle(start, sae, kept):
    """With all places taken, whoever has waited longest for its client goes, and nobody else."""
    url = start(connections=10)
    clients = [kept.enter_context(dial(url, sae)) for _ in range(10)]
    clients[0].sendall(WHO)
    assert answer(clients[0]).read()  # now the second is the longest idle

    newcomer = kept.enter_context(dial(url, sae))

    assert is_closed(clients[1])
    for client in (newcomer, clients[0], *clients[2:]):
        client.sendall(WHO)
        assert answer(client).status == 200


def test_flood_of_silent_clients_keeps_no_newcomer_out(start, sae, kept):
    """However many connect and say nothing, an ordinary caller gets in and its answers come."""
    url = start(connections=10)
    for _ in range(100):
        kept.enter_context(plain(url))

    assert_served(url, sae)


def test_request_under_way_is_not_closed_to_make_room(app, start, sae, kept):
    """Of the connections that are open those with a worker stay."""
    begun, go_on = threading.Event(), threading.Event()

    @app.get("/wait")
    @allow(Role.SAE)
    def wait():
        begun.set()
        go_on.wait(20)
        return {}

    url = start(connections=10)
    busy = kept.enter_context(dial(url, sae))
    busy.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(10)
    for _ in range(20):
        kept.enter_context(dial(url, sae))
    go_on.set()

    assert answer(busy).status == 200


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"], ids=["header", "body"])
def test_dripping_server_does_not_hold_its_caller(issue, sae, head):
    """A call's deadline is for all of the answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_drip_answer, args=(listener, issue("node", "alice"), head))
        server.start()
        caller = Caller(sae)
        with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
            caller.request("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/", to=ALICE, timeout_s=0.5)
        caller.close()
        server.join()


def test_dripping_event_stream_does_not_hold_its_listener(issue, sae):
    """It has begun by its deadline, or does not count; what it says later may come drop by drop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_drip_answer, args=(listener, issue("node", "alice"), b""))
        server.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
            Listener(sae, url, ALICE, timeout_s=0.5)
        server.join()


def _drip_answer(listener: socket.socket, credentials: Credentials, head: bytes) -> None:
    """Answer one request with `head` and then a byte every 20 ms for 10 s, or until the client has gone."""
    raw, _ = listener.accept()
    with suppress(OSError), credentials.server_context().wrap_socket(raw, server_side=True) as connection:
        connection.recv(1000)
        connection.sendall(head)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + 480 * b"x":
            connection.sendall(bytes([byte]))
            time.sleep(0.02)


@pytest.fixture
def stuck(app) -> Iterator[Stuck]:
    """Requests for /stuck are answered when its `go_on` is set, which it is at the end."""
    found = Stuck()

    @app.get("/stuck")
    @allow(Role.SAE)
    def stuck():
        found.begun.release()
        found.go_on.wait(20)
        return {}

    yield found
    found.go_on.set()


class Stuck:
    """Requests that a worker has, each of which releases `begun`."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()


def ask_to_be_stuck(url: str, credentials: Credentials, kept: ExitStack) -> ssl.SSLSocket:
    """A request on a connection of its own."""
    client = kept.enter_context(dial(url, credentials))
    client.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


def test_requests_of_one_party_that_take_long_hold_up_no_other(start, sae, issue, kept, stuck):
    """However many it sends, workers are left for the others; its own are answered one after the other."""
    url = start(per_party=THREADS - 1)
    clients = [ask_to_be_stuck(url, sae, kept) for _ in range(MANY)]

    assert_served(url, issue("sae", "s2"))
    stuck.go_on.set()
    assert [answer(client).status for client in clients] == [200] * MANY


def test_request_that_waits_for_others_of_its_party_is_refused_in_time(start, sae, kept, stuck):
    """503 and why, while the one before it is still being served."""
    url = start(per_party=1, answer_s=lambda: 0.3)
    first = ask_to_be_stuck(url, sae, kept)
    assert stuck.begun.acquire(timeout=10)

    refused = answer(ask_to_be_stuck(url, sae, kept))

    assert (refused.status, json.loads(refused.read())["details"]) == (503, [{"cause": "busy"}])
    stuck.go_on.set()
    assert answer(first).status == 200
