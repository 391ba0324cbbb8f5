"""Mutual TLS between real sockets: who gets in, who does not, and that one bad client holds up nobody."""

import datetime
import http.client
import socket
import ssl
from pathlib import Path

import pytest

from mtls.authority import Authority
from mtls.call import Caller, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.serve import allow, caller, json_body, new_app

ALICE = Identity(Role.NODE, "alice")


@pytest.fixture
def app():
    """Says who called; `/echo` gives the body back; `/bug` fails in a way that nobody foresaw."""
    app = new_app("test")

    @app.get("/who")
    @allow(Role.SAE)
    def who():
        return {"role": caller().role, "name": caller().name}

    @app.post("/echo")
    @allow(Role.SAE)
    def echo():
        return json_body()

    @app.get("/bug")
    @allow(Role.SAE)
    def bug():
        raise RuntimeError("secret-text")

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


def test_silent_clients_hold_up_nobody(url, issue):
    """More silent connections than the server has workers, and a request is still answered."""
    host, port = url.removeprefix("https://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]

    assert _answers(url, issue("sae", "s1").client_context())
    for connection in silent:
        connection.close()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/who", 405)])
def test_framework_errors_have_the_error_body(url, issue, method, path, status):
    """Unknown path and wrong method are answered in the standard's error format."""
    reply = Caller(issue("sae", "s1")).request(method, url + path, to=ALICE)

    assert reply.status == status
    assert isinstance(reply.body["message"], str)


def test_a_bug_tells_nothing(url, issue):
    """An unforeseen error is a 500 without its text, which may quote what must not be told."""
    reply = Caller(issue("sae", "s1")).request("GET", f"{url}/bug", to=ALICE)

    assert (reply.status, reply.body) == (500, {"message": "internal error"})


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
