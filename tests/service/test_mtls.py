"""Mutual TLS between real sockets: who gets in, who does not, and what is said to those who speak it badly."""

import datetime
import errno
import http.client
import json
import logging
import os
import re
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask, Response, request

from mtls import deadline, json_text
from mtls.authority import Authority
from mtls.call import Caller, Reply, Unreachable
from mtls.connections import kept
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.liveness import KEPT_S, LONGEST_ROUND_TRIP_S, USED_AGAIN_S
from mtls.serve import MAX_BODY_BYTES, allow, caller, json_body, new_app
from mtls.server import Server
from telemetry import trace
from tests.support.waiting import until

ALICE = Identity(Role.NODE, "alice")


@pytest.fixture
def app():
    """Says who called; `/echo` gives the body back, `/path/` the path; `/bug` fails in a way that nobody foresaw."""
    app = new_app("test")

    @app.get("/who")
    @allow(Role.SAE)
    def who():
        return {"role": caller().role, "name": caller().name}

    @app.post("/echo")
    @allow(Role.SAE)
    def echo():
        return json_body()

    @app.get("/path/<path:path>")
    @allow(Role.SAE)
    def path(path):
        return {"path": path, "query": request.query_string.decode()}

    @app.get("/bug")
    @allow(Role.SAE)
    def bug():
        raise RuntimeError("secret-text")

    @app.get("/full")
    @allow(Role.SAE)
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    return app


@pytest.fixture
def url(app, issue, serve):
    """The server, which is node alice."""
    return serve(app, issue("node", "alice"), threads=4)


def test_server_knows_the_caller_from_its_certificate(url, issue):
    """Role and name come from the client certificate."""
    reply = Caller(issue("sae", "s1")).request("GET", f"{url}/who", to=ALICE)

    assert (reply.status, reply.body) == (200, {"role": "sae", "name": "s1"})


def test_other_roles_are_refused_with_the_error_body(url, issue):
    """A party in a role that the endpoint does not name gets 401, a message, and the roles that may call."""
    reply = Caller(issue("controller", "ctl")).request("GET", f"{url}/who", to=ALICE)

    assert reply.status == 401
    assert reply.detail("allowed_roles") == ["sae"]


def test_client_refuses_another_party_at_the_address(url, issue):
    """A server with a valid certificate of somebody else is not talked to."""
    with pytest.raises(Unreachable, match="ertificate"):
        Caller(issue("sae", "s1")).request("GET", f"{url}/who", to=Identity(Role.NODE, "bob"))


def _context(credentials: Credentials) -> ssl.SSLContext:
    return credentials.client_context()


def _answers(url: str, context: ssl.SSLContext) -> bool:
    """Whether the server answers a request made with `context` (TLS 1.3 shows a refusal at the first read)."""
    host, port = url.removeprefix("https://").split(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=ALICE.dns) as tls,
        ):
            tls.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return tls.recv(12).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def test_foreign_ca_expired_and_missing_certificates_are_refused(url, issue, tmp_path: Path, authority):
    """Only a valid certificate of the run's own CA gets in; the server serves on after each refusal."""
    good = issue("sae", "s1")
    stranger = Authority(tmp_path / "other").issue(Identity(Role.SAE, "s1"))
    expired = authority.issue(Identity(Role.SAE, "s2"), valid=datetime.timedelta(hours=-2))
    none = ssl.create_default_context(cafile=str(good.ca))

    assert not _answers(url, _context(Credentials(stranger.certificate, stranger.key, good.ca)))
    assert not _answers(url, _context(expired))
    assert not _answers(url, none)
    assert _answers(url, _context(good))


def test_tls_1_1_is_refused(url, issue):
    """Nothing below TLS 1.2 is spoken."""
    old = issue("sae", "s1").client_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1

    assert not _answers(url, old)


def test_plain_http_is_refused_and_the_server_stays_up(url, issue):
    """A client without TLS gets no answer, the next one with TLS does."""
    host, port = url.removeprefix("https://").split(":")
    plain = http.client.HTTPConnection(host, int(port), timeout=5)
    plain.request("GET", "/who")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()

    assert _answers(url, issue("sae", "s1").client_context())


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/who", 405)])
def test_framework_errors_have_the_error_body(url, issue, method, path, status):
    """Unknown path and wrong method are answered in the standard's error format."""
    reply = Caller(issue("sae", "s1")).request(method, url + path, to=ALICE)

    assert reply.status == status
    assert isinstance(reply.body["message"], str)


def test_what_the_machine_refuses_is_no_bug(url, issue):
    """It may be there again in a moment: 503, with the cause."""
    reply = Caller(issue("sae", "s1")).request("GET", f"{url}/full", to=ALICE)

    assert (reply.status, reply.details) == (503, {"cause": "machine_refused"})
    assert reply.message == "the machine of this server refuses: No space left on device"


def test_a_bug_tells_nothing(url, issue):
    """An unforeseen error is a 500 with a cause and without its text, which may quote what must not be told."""
    reply = Caller(issue("sae", "s1")).request("GET", f"{url}/bug", to=ALICE)

    assert (reply.status, reply.details) == (500, {"cause": "internal_error"})
    assert reply.message == "internal error: a bug of this server, see its log"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff\xfe", b"[" * 100_000]
)
def test_body_that_is_no_json_object_is_a_clear_400(url, issue, body):
    """Anything but a JSON object is refused and the message says what was expected."""
    context = issue("sae", "s1").client_context()
    context.check_hostname = False
    host, port = url.removeprefix("https://").split(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=5)
    connection.request("POST", "/echo", body=body)
    answer = connection.getresponse()

    assert answer.status == 400
    assert b"a JSON object" in answer.read()
    connection.close()


def test_unreachable_says_why(issue):
    """A dead address is one exception with the reason in a few words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(Unreachable, match="refused"):
        Caller(issue("sae", "s1")).request("GET", f"https://127.0.0.1:{port}/who", to=ALICE)


def _dial(url: str, credentials: Credentials) -> ssl.SSLSocket:
    """A TLS connection to say on what no HTTP library would."""
    host, port = url.removeprefix("https://").split(":")
    raw = socket.create_connection((host, int(port)), timeout=10)
    return credentials.client_context().wrap_socket(raw, server_hostname=ALICE.dns)


def _answer(connection: ssl.SSLSocket, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """The next answer on that connection, and its body."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    return answer, answer.read()


def _exchange(url: str, credentials: Credentials, data: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    with _dial(url, credentials) as connection:
        connection.sendall(data)
        return _answer(connection)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, b"hello\r\n\r\n"),
        (400, b"\x16\x03\x01\x00\xff\r\n\r\n"),
        (400, b"GET /who HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"),
        (400, b"GET /who HTTP/1.1\r\nHost: x\r\nspace before : x\r\n\r\n"),
        (400, b"GET /who HTTP/1.1\r\n\r\n"),
        (400, b"GET who HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"GET /who#part HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"GET http://[::1/who HTTP/1.1\r\nHost: x\r\n\r\n"),
        (404, b"GET /%zz%ff%00% HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (431, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        (431, b"GET /who HTTP/1.1\r\nHost: x\r\nlong: " + b"a" * 20_000 + b"\r\n\r\n"),
        (505, b"GET /who HTTP/2.0\r\nHost: x\r\n\r\n"),
    ],
)
def test_what_is_no_http_has_the_error_body_too(url, issue, status, request_):
    """Errors below the application are JSON with a message, and say nothing of what the server is made of."""
    answer, body = _exchange(url, issue("sae", "s1"), request_)

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(json.loads(body)["message"], str)
    assert answer.headers["Server"] == "qkd"


def test_nonsense_inside_a_body_is_a_400_at_once(url, issue):
    """A body in chunks that breaks off in nonsense is refused without waiting for its deadline."""
    with _dial(url, issue("sae", "s1")) as connection:
        connection.settimeout(5)  # seconds; the body's deadline is 10
        connection.sendall(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"2\r\n{}\r\nnonsense\r\n")
        answer, body = _answer(connection)

    assert (answer.status, json.loads(body)) == (400, {"message": "malformed body"})


LONG = MAX_BODY_BYTES + 1


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LONG,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LONG + b"x" * LONG,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % LONG,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % LONG + b"x" * LONG,
    ],
    ids=["announced", "sent", "asked for", "in chunks without end"],
)
def test_body_that_is_too_long_is_a_413(url, issue, request_):
    """The limit holds for what is announced and for what comes, and the client gets to read the answer."""
    answer, body = _exchange(url, issue("sae", "s1"), request_)

    assert answer.status == 413
    assert json.loads(body)["details"] == [{"max_bytes": MAX_BODY_BYTES}]
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 7\r\n\r\n" + b'{"a":1}',
        b"Transfer-Encoding: chunked\r\n\r\n" + b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n',
        b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}',
    ],
    ids=["whole", "in chunks", "not what it says"],
)
def test_body_comes_as_it_was_sent(url, issue, body):
    """Chunks are put together, and no content encoding is undone, which could make much of little."""
    answer, echo = _exchange(url, issue("sae", "s1"), b"POST /echo HTTP/1.1\r\nHost: x\r\n" + body)

    assert (answer.status, json.loads(echo)) == (200, {"a": 1})


def test_client_that_asks_first_is_told_to_go_on(url, issue):
    """Expect: 100-continue is answered before the body is there."""
    with _dial(url, issue("sae", "s1")) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        answer, body = _answer(connection)

    assert (answer.status, json.loads(body)) == (200, {})


def test_head_is_answered_without_a_body(url, issue):
    """The connection goes on with the next answer where the body would be."""
    with _dial(url, issue("sae", "s1")) as connection:
        connection.sendall(b"HEAD /who HTTP/1.1\r\nHost: x\r\n\r\nGET /who HTTP/1.1\r\nHost: x\r\n\r\n")
        stream = connection.makefile("rb")
        assert stream.readline().startswith(b"HTTP/1.1 405 ")
        while stream.readline().strip():
            pass
        assert stream.readline().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/path/a%2Fb%20%C3%A9?x=%2f", "a/b é", "x=%2f"),
        (b"//path/x", "x", ""),
        (b"https://elsewhere:1/path/x?y", "x", "y"),
        (b"/path/%zz%?%", "%zz%", "%"),
    ],
)
def test_path_is_decoded_and_the_query_is_not(url, issue, target, path, query):
    """As WSGI wants it; a whole URL as target counts by its path."""
    _, body = _exchange(url, issue("sae", "s1"), b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")

    assert json.loads(body) == {"path": path, "query": query}


@pytest.mark.parametrize("name", [b"qkd.identity", b"Qkd-Identity", b"QKD_IDENTITY"])
def test_no_header_makes_a_caller_somebody_else(url, issue, name):
    """Who calls is in the certificate only."""
    header = b"GET /who HTTP/1.1\r\nHost: x\r\n" + name + b": urn:qkd:sae:s1\r\n\r\n"
    answer, _ = _exchange(url, issue("controller", "ctl"), header)

    assert answer.status == 401


@pytest.mark.parametrize(
    ("headers", "continued"),
    [
        (b"traceparent: 00-%s-%s-01\r\n" % (b"a" * 32, b"b" * 16), True),
        (b"traceparent: 00-%s-%s-01\r\n" % (b"A" * 32, b"b" * 16), False),
        (b"traceparent: 00-%s-%s-01\r\n" % (b"0" * 32, b"b" * 16), False),
        (2 * (b"traceparent: 00-%s-%s-01\r\n" % (b"a" * 32, b"b" * 16)), False),
        (b"traceparent: \xff\xfe'; DROP TABLE qc\r\n", False),
        (b"traceparent: " + b"a" * 5000 + b"\r\n", False),
        (b"", False),
    ],
    ids=["valid", "upper case", "zeros", "twice", "nonsense", "long", "none"],
)
def test_request_is_part_of_the_callers_trace_if_its_header_is_valid(app, url, issue, headers, continued):
    """Whatever else a client sends there, it is served, in a trace that begins with it."""
    @app.get("/trace")
    @allow(Role.SAE)
    def ids():
        return trace.ids()

    request_ = b"GET /trace HTTP/1.1\r\nHost: x\r\n" + headers + b"Connection: close\r\n\r\n"
    answer, body = _exchange(url, issue("sae", "s1"), request_)
    found = json.loads(body)

    assert answer.status == 200
    assert ("parent" in found, found["trace"] == "a" * 32) == (continued, continued)


def test_caller_sends_its_trace_and_records_the_call(app, url, issue):
    """The request is a part of what is under way; the server's part is below it."""
    @app.get("/trace")
    @allow(Role.SAE)
    def ids():
        return trace.ids()

    recorded = []
    caller_ = Caller(issue("sae", "s1"), record=lambda **facts: recorded.append(facts | trace.ids()))
    assert "parent" not in caller_.request("GET", f"{url}/trace?secret=1", to=ALICE).body
    assert recorded == [], "it was in no trace"
    with trace.begin() as span:
        there = caller_.request("GET", f"{url}/trace?secret=1", to=ALICE).body

    (call,) = recorded
    assert (there["trace"], there["parent"], call["parent"]) == (span.trace, call["span"], span.span)
    assert (call["to"], call["method"], call["path"], call["status"]) == ("node:alice", "GET", "/trace", 200)
    assert call["duration_ms"] > 0


def test_refused_clients_and_those_that_leave_are_no_news(url, issue, caplog, capfd):
    """Nothing that a client does to its own connection shows among the warnings or on stderr."""
    good = issue("sae", "s1")
    host, port = url.removeprefix("https://").split(":")
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""):
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(data)
    for data in (b"", b"GET /wh", b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /echo HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Length: 5\r\n\r\n{", b"\xff\x00\r\n\r\n"):  # fmt: skip
        with _dial(url, good) as connection:
            connection.sendall(data)
    _answers(url, ssl.create_default_context(cafile=str(good.ca)))

    assert _answers(url, _context(good))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert capfd.readouterr().err == ""


def test_client_that_leaves_while_a_worker_computes_harms_nothing(issue, caplog, capfd):
    """Its answer is thrown away in silence, and the worker takes the next request."""
    begun, go_on = threading.Event(), threading.Event()
    app = _slow_app(begun, go_on)
    server = Server(app, "127.0.0.1", 0, issue("node", "alice"), threads=1)
    server.start()
    url = f"https://127.0.0.1:{server.port}"
    with _dial(url, issue("sae", "s1")) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(10)
    go_on.set()

    assert Caller(issue("sae", "s1")).request("GET", f"{url}/slow", to=ALICE).ok
    server.stop()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert capfd.readouterr().err == ""


def _slow_app(begun: threading.Event, go_on: threading.Event) -> Flask:
    app = new_app("slow")

    @app.get("/slow")
    @allow(Role.SAE)
    def slow():
        begun.set()
        go_on.wait(20)
        return {"slow": True}

    return app


def test_stop_lets_a_running_request_end(issue):
    """A request that a worker has is answered; then nobody listens any more."""
    begun, go_on = threading.Event(), threading.Event()
    server = Server(_slow_app(begun, go_on), "127.0.0.1", 0, issue("node", "alice"))
    server.start()
    url = f"https://127.0.0.1:{server.port}/slow"
    caller_ = Caller(issue("sae", "s1"))
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(caller_.request, "GET", url, to=ALICE)
        assert begun.wait(10)
        stopped = pool.submit(server.stop)
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except OSError:  # refused, or reset in the very moment
                break
        go_on.set()
        assert reply.result(10).ok
        stopped.result(10)


def test_stop_does_not_wait_for_a_stuck_worker(issue):
    """A request that does not end is cut off, and its client sees the end of the connection."""
    begun, go_on = threading.Event(), threading.Event()
    server = Server(_slow_app(begun, go_on), "127.0.0.1", 0, issue("node", "alice"))
    server.start()
    with _dial(f"https://127.0.0.1:{server.port}", issue("sae", "s1")) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(10)
        server.stop()
        with suppress(OSError):
            assert connection.recv(1) == b""
    assert not go_on.is_set()
    go_on.set()


@pytest.mark.parametrize("number", [0, 1, 5])
def test_threads_of_a_server_share_a_processor_while_it_has_many_requests(issue, number):
    """The one of that number, counted round. With one request they are on any, and who calls always is."""
    there = os.sched_getaffinity(0)
    many = threading.Barrier(4)
    app = new_app("where")

    @app.get("/<int:together>")
    @allow(Role.SAE)
    def where(together):
        if together:
            many.wait(60)
        loop = next(t for t in threading.enumerate() if t.name == f"https-{server.port}")
        return {"worker": sorted(os.sched_getaffinity(0)), "loop": sorted(os.sched_getaffinity(loop.native_id))}

    server = Server(app, "127.0.0.1", 0, issue("node", "alice"), processor=number)
    server.start()
    caller = Caller(issue("sae", "a"), connections=4)
    url = f"https://127.0.0.1:{server.port}"
    shared = [sorted(there)[number % len(there)]]
    try:
        one = caller.request("GET", f"{url}/0", to=ALICE).body
        with ThreadPoolExecutor(4) as pool:
            until(lambda: all(
                found.body == {"worker": shared, "loop": shared}
                for found in list(pool.map(lambda _: caller.request("GET", f"{url}/1", to=ALICE), range(4)))
            ))  # fmt: skip
        until(lambda: caller.request("GET", f"{url}/0", to=ALICE).body == one)
    finally:
        caller.close()
        server.stop()

    assert one == {"worker": sorted(there), "loop": sorted(there)}
    assert os.sched_getaffinity(0) == there


def test_stop_needs_no_start_and_may_come_twice(app, issue):
    """Whoever cleans up need not know how far the start came."""
    server = Server(app, "127.0.0.1", 0, issue("node", "alice"))
    server.stop()
    server = Server(app, "127.0.0.1", 0, issue("node", "alice"))
    server.start()
    server.stop()
    server.stop()

    assert f"https-{server.port}" not in [thread.name for thread in threading.enumerate()]


def test_address_in_use_is_said_in_words(app, issue):
    """The error names the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as error:
            Server(app, "127.0.0.1", port, issue("node", "alice")).start()

    assert error.value.errno == errno.EADDRINUSE
    assert error.value.strerror == f"cannot listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize(
    ("body", "details"),
    [
        ({"message": "no", "details": [{"a": 1}, {"b": 2, "c": 3}]}, {"a": 1, "b": 2, "c": 3}),
        ({"message": "no", "details": [{"a": 1}, "b", None]}, {"a": 1}),
        ({"message": "no"}, {}),
        ({"details": {"a": 1}}, {}),
        ([], {}),
        (None, {}),
    ],
)
def test_details_are_the_facts_of_an_error_body(body, details):
    """The standard's list of objects as one; what is malformed tells nothing."""
    assert Reply(400, body).details == details


def test_party_that_is_asked_gives_up_before_the_one_that_asks(issue, serve):
    """What it waits for itself has less time than it was given, so that its refusal is heard."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        onward, app = Caller(issue("node", "b")), new_app("between")
        nowhere = f"https://127.0.0.1:{silent.getsockname()[1]}/"

        @app.get("/")
        @allow(Role.NODE)
        def ask_on():
            try:
                onward.request("GET", nowhere, to=Identity(Role.NODE, "c"), timeout_s=60)
            except Unreachable as error:
                return {"reason": error.reason}
            return {}

        url = serve(app, issue("node", "b"))
        caller = Caller(issue("node", "a"))
        answer = caller.request("GET", f"{url}/", to=Identity(Role.NODE, "b"), timeout_s=3.0)
        for each in (caller, onward):
            each.close()

    assert re.fullmatch(r"no answer within 2\.[5-8] s", answer.body["reason"])


def test_call_of_what_is_too_late_is_not_made(issue):
    """Nobody waits for its answer any more."""
    caller = Caller(issue("node", "a"))

    with deadline.until(time.monotonic() - 1), pytest.raises(Unreachable, match="no time is left"):
        caller.request("GET", "https://127.0.0.1:1/", to=Identity(Role.NODE, "b"))


def test_connection_that_dies_early_is_not_said_to_have_had_all_the_time(issue, monkeypatch):
    """The system gives up what the other end does not acknowledge, before a long time is over."""

    class Dead:
        def request(self, *_: object, **__: object) -> None:
            """Given up after a while."""
            time.sleep(0.3)
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    caller = Caller(issue("node", "a"))
    monkeypatch.setattr(caller, "_pool", lambda _: Dead())

    with pytest.raises(Unreachable, match=r"no answer within 0\.[34] s"):
        caller.request("GET", "https://127.0.0.1:1/", to=Identity(Role.NODE, "b"), timeout_s=30)


def test_call_has_its_round_trips_on_top_of_its_time(issue):
    """As many as a call on a new connection takes, of the longest that is expected."""
    caller = Caller(issue("node", "a"), round_trip_s=0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
            caller.request("GET", url, to=Identity(Role.NODE, "b"), timeout_s=0.2)
    caller.close()


@pytest.mark.parametrize(
    ("body", "message", "details"),
    [
        ({"message": 8_000_000 * "x"}, "HTTP status 503", {}),
        ({"message": 60_000 * "x", "details": [{"cause": "away"}]}, 500 * "x", {"cause": "away"}),
        ({"message": "a\nb\x1b[2J", "details": [{"why": "x"}, {"more": 50_000 * "x"}]}, "a b [2J", {"why": "x"}),
        ({"message": "no", "details": [{str(i): i} for i in range(2000)]}, "no", {str(i): i for i in range(32)}),
    ],
    ids=["body", "text", "fact", "facts"],
)
def test_error_of_another_party_is_short(issue, serve, body, message, details):
    """However much it says: it goes into journals and into our own answers."""
    app = new_app("talkative")

    @app.get("/")
    @allow(Role.NODE)
    def error():
        return body, 503

    url = serve(app, issue("node", "b"))
    caller = Caller(issue("node", "a"))
    reply = caller.request("GET", f"{url}/", to=Identity(Role.NODE, "b"))
    caller.close()

    assert (reply.status, reply.message, reply.details) == (503, message, details)


def test_server_that_closes_in_place_of_an_answer_is_told_of_in_words(issue):
    """No name of an exception is among them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close() -> None:
            raw, _ = listener.accept()
            with issue("node", "b").server_context().wrap_socket(raw, server_side=True) as connection:
                connection.recv(1000)

        server = threading.Thread(target=close)
        server.start()
        caller = Caller(issue("node", "a"))
        with pytest.raises(Unreachable) as caught:
            caller.request("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/", to=Identity(Role.NODE, "b"))
        server.join()
        caller.close()

    assert caught.value.reason == "Remote end closed connection without response"


@pytest.mark.parametrize(("idle_s", "connections"), [(0, 1), (USED_AGAIN_S / 2, 1), (USED_AGAIN_S, 2), (KEPT_S, 2)])
def test_connection_is_used_again_only_while_its_server_surely_keeps_it(issue, serve, monkeypatch, idle_s, connections):
    """A request that comes to a server which is just closing would have no answer."""
    app, ports = new_app("test"), []

    @app.get("/port")
    @allow(Role.SAE)
    def port():
        ports.append(request.environ["REMOTE_PORT"])
        return {}

    caller, url = Caller(issue("sae", "s1")), serve(app, issue("node", "alice"))
    caller.request("GET", f"{url}/port", to=ALICE)
    now = time.monotonic
    monkeypatch.setattr(kept, "time", SimpleNamespace(monotonic=lambda: now() + idle_s))
    caller.request("GET", f"{url}/port", to=ALICE)
    caller.close()

    assert len(set(ports)) == connections
    assert LONGEST_ROUND_TRIP_S < (KEPT_S - USED_AGAIN_S) / 3


def brackets(most: int) -> bytes:
    """JSON of more lists than that."""
    return b"[" + b"[]," * most + b"[]]"


@pytest.mark.parametrize(
    ("method", "data"),
    [("GET", brackets(json_text.MOST_PARTS_OF_ANSWER)), ("POST", brackets(json_text.MOST_PARTS)),
     ("POST", b"[" + b"0," * (1 << 19) + b"0]")],
    ids=["shown", "parts", "long"],
)  # fmt: skip
def test_answer_that_is_read_for_long_is_refused(issue, serve, method, data):
    """All other threads wait while one reads JSON: one such answer after the other would stop a process."""
    app = new_app("hostile")
    app.route("/", methods=["GET", "POST"])(allow(Role.NODE)(lambda: Response(data, content_type="application/json")))
    url = serve(app, issue("node", "b"))
    caller = Caller(issue("node", "a"))
    try:
        with pytest.raises(Unreachable, match="the answer is"):
            caller.request(method, f"{url}/", to=Identity(Role.NODE, "b"))
    finally:
        caller.close()


def test_body_that_is_read_for_long_is_refused(issue, serve):
    """The client is told what was expected."""
    app = new_app("served")
    app.post("/")(allow(Role.NODE)(json_body))
    url = serve(app, issue("node", "b"))
    caller = Caller(issue("node", "a"))
    body = {"lists": [[]] * json_text.MOST_PARTS}
    reply = caller.request("POST", f"{url}/", to=Identity(Role.NODE, "b"), body=body)
    caller.close()

    assert reply.status == 400
    assert f"of at most {json_text.MOST_PARTS} parts" in reply.message
