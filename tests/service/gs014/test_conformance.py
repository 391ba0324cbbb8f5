"""`run.py conformance`: our KMEs pass whole; and a KME that breaks a rule is found, rule by rule.

The KME that breaks a rule is one of ours behind a door that changes what goes in or out. So everything else about it is
as it should be, and what is found is the rule that was broken.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from conformance import callers, command, errors, get_key, get_key_with_ids, status, transport
from conformance import client as clients
from conformance.checks import Check, Outcome, find_out
from conformance.pair import Pair
from mtls.identity import Identity, Role
from testbed.network.loopback import LOOPBACK
from tests.support.gs014_client import Answer, Sae

# What a door does with a request: it may forward it to the KME, by the function that it is given, and may answer it.
Door = Callable[[Callable[[str, bytes], Answer], str, bytes], tuple[int, Any]]


def client(sae: Sae, url: str = "", *, any_name: bool = False) -> clients.Sae:
    """An SAE of the tests as one of the checks."""
    certificate = clients.Certificate(sae.credentials.certificate, sae.credentials.key)
    return clients.Sae(
        sae.id, url or f"https://{sae.address}", certificate, sae.credentials.ca, any_name=any_name, timeout_s=30
    )


@pytest.fixture
def other(kmes):
    """A third SAE, at the slave's KME."""
    return kmes.saes["mallory"]


@pytest.mark.parametrize(
    ("slave_name", "other_name"), [("bob", "mallory"), ("carol", "carl")], ids=["one hop", "two hops"]
)
def test_ours_pass_whole(kmes, alice, capsys, slave_name, other_name):
    """Every check, over one hop and over a trusted relay; nothing is left out, and no key is shown."""
    slave, third = kmes.saes[slave_name], kmes.saes[other_name]
    options = ["--ca", alice.credentials.ca]
    for option, sae in (("--a", alice), ("--b", slave), ("--other", third)):
        options += [option, sae.credentials.certificate, sae.credentials.key]
    urls = [f"https://{sae.address}" for sae in (alice, slave)]

    exit_status = command.main([*urls, *map(str, options), "--json"])

    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [check for check in found["checks"] if check["outcome"] != "passed"] == []
    assert (exit_status, found["conforms"], found["counts"]["passed"]) == (0, True, len(found["checks"]))
    assert len(found["checks"]) >= 60
    assert [kme["sae"] for kme in found["kmes"]] == [alice.id, slave.id]
    assert all(check["clauses"] and check["claim"] in shown.err for check in found["checks"])


class Changed:
    """The KME of `sae`, behind `door`; whoever comes in, it is `sae` that the KME hears."""

    def __init__(self, sae: Sae, credentials: Any, door: Door, content_type: str = "application/json") -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))

                def forward(path: str, body: bytes) -> Answer:
                    return sae.call(self.command, path, body or None)

                code, document = door(forward, self.path, body)
                data = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names of http.server

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = credentials.server_context().wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{LOOPBACK}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def behind(kmes, alice, bob, other) -> Iterator[Callable[..., Pair]]:
    """A pair, with the master's KME or the slave's behind a door."""
    with ExitStack() as doors:

        def pair(*, at_a: Door | None = None, at_b: Door | None = None, **options: Any) -> Pair:
            urls = []
            for sae, door in ((alice, at_a), (bob, at_b)):
                if door is None:
                    urls.append("")
                else:
                    changed = Changed(sae, kmes.stack.issue(Role.NODE, "door"), door, **options)
                    doors.callback(changed.close)
                    urls.append(changed.url)
            a, b = client(alice, urls[0]), client(bob, urls[1])
            return Pair(a, b, client(other, urls[1]), patience_s=20)

        yield pair


def plain(forward: Callable[[str, bytes], Answer], path: str, body: bytes) -> tuple[int, Any]:
    """The door that changes nothing."""
    answer = forward(path, body)
    return answer.status, answer.body


def answering(
    change: Callable[[dict[str, Any]], dict[str, Any]], name: str = "", statuses: tuple[int, ...] = (200,)
) -> Door:
    """A door that changes documents of the method `name` with these statuses."""

    def door(forward: Callable[[str, bytes], Answer], path: str, body: bytes) -> tuple[int, Any]:
        code, document = plain(forward, path, body)
        return code, change(document) if code in statuses and name in path else document

    return door


def asking(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Door:
    """A door that changes the bodies of requests for keys."""

    def door(forward: Callable[[str, bytes], Answer], path: str, body: bytes) -> tuple[int, Any]:
        if "enc_keys" in path and body.startswith(b"{"):
            body = json.dumps(change(json.loads(body))).encode()
        return plain(forward, path, body)

    return door


def repeating(name: str) -> Door:
    """A door that gives the first container of the method `name` to everybody after that."""
    first: list[tuple[int, Any]] = []

    def door(forward: Callable[[str, bytes], Answer], path: str, body: bytes) -> tuple[int, Any]:
        if name in path and first:
            return first[0]
        found = plain(forward, path, body)
        if name in path and found[0] == 200:
            first.append(found)
        return found

    return door


def each_key(change: Callable[[str], str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A key container with keys changed."""
    return lambda document: {"keys": [entry | {"key": change(entry["key"])} for entry in document["keys"]]}


def flipped(text: str) -> str:
    """Key bytes of which one bit is another one."""
    key = bytearray(base64.b64decode(text))
    key[0] ^= 1
    return base64.b64encode(key).decode()


def fewer(document: dict[str, Any]) -> dict[str, Any]:
    """A request for no more keys than the limit."""
    return document | {"number": min(document.get("number", 1), 64)}


def bytes_for_bits(document: dict[str, Any]) -> dict[str, Any]:
    """A request whose size counts bytes."""
    return document | ({"size": 8 * document["size"]} if "size" in document else {})


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A document without these members."""
    return lambda document: {name: value for name, value in document.items() if name not in names}


def unavailable(forward: Callable[[str, bytes], Answer], path: str, body: bytes) -> tuple[int, Any]:
    """The door of a KME without key material."""
    return (503, {"message": "too little key material"}) if "enc_keys" in path else plain(forward, path, body)


def check_of(function: Callable[[Pair], None]) -> Check:
    """The check that such a function is."""
    return next(check for chapter in command.CHAPTERS for check in chapter.checks if check.find_out is function)


AT_A: list[tuple[str, Door, Callable[[Pair], None], str]] = [
    ("same key again", repeating("enc_keys"), get_key.keys_differ, "THE SAME KEY"),
    ("same key to many", repeating("enc_keys"), get_key.many_at_once, "THE SAME KEY"),
    ("fewer keys", asking(fewer), get_key.too_many_keys_are_not_clipped, "64 keys where 65"),
    ("size in bytes", asking(bytes_for_bits), get_key.post_with_number_and_size, "64 bytes where 64 bits"),
    ("mandatory extension ignored", asking(without("extension_mandatory")), get_key.mandatory_extension, "status 200"),
    ("own words for an odd size", answering(lambda _: {"message": "no"}, "enc_keys", (400,)), get_key.odd_size_by_post,
     "the message is not"),
    ("base64 without padding", answering(each_key(lambda text: text.rstrip("=")), "enc_keys"), get_key.keys_are_base64,
     "base64"),
    ("capital Keys", answering(lambda d: {"Keys": d["keys"]}, "enc_keys"), get_key.empty_get, "no array `keys`"),
    ("text for a number", answering(lambda d: d | {"key_size": "256"}, "status"), status.numbers_are_integers,
     "key_size"),
    ("a member missing", answering(without("target_KME_ID"), "status"), status.names_are_strings,
     "target_KME_ID is missing"),
    ("another master", answering(lambda d: d | {"master_SAE_ID": "x"}, "status"), status.master_is_the_caller,
     "x, where"),
    ("another KME", answering(lambda d: d | {"target_KME_ID": "x"}, "status"), status.kmes_name_each_other,
     "is called x"),
    ("limits crossed", answering(lambda d: d | {"min_key_size": 512}, "status"), status.key_size_is_within_its_limits,
     "512, 256, 8192"),
    ("a negative stock", answering(lambda d: d | {"stored_key_count": -1}, "status"), status.stock_is_within_its_limit,
     "-1"),
]  # fmt: skip
AT_B: list[tuple[str, Door, Callable[[Pair], None], str]] = [
    ("a key twice", repeating("dec_keys"), get_key_with_ids.key_is_given_once, "status 200, where 400"),
    ("another bit", answering(each_key(flipped), "dec_keys"), get_key_with_ids.slave_gets_the_same, "DIFFERENT BYTES"),
    ("own words", answering(lambda _: {"message": "gone"}, "dec_keys", (400,)), get_key_with_ids.unknown_key_id,
     "gone"),
    ("whoever asks is the slave", plain, callers.key_of_another_sae, "status 200"),
    ("whoever asks is the slave, 401", plain, callers.key_of_another_sae_is_401, "status 200, where 401"),
    ("a header is believed", plain, callers.header_names_nobody, "status 200"),
    ("a body is believed", plain, callers.body_names_nobody, "status 200"),
]  # fmt: skip


@pytest.mark.parametrize(("door", "function", "says"), [row[1:] for row in AT_A], ids=[row[0] for row in AT_A])
def test_rule_that_the_masters_kme_breaks_is_found(behind, door, function, says):
    """And what was found is said."""
    finding = find_out(check_of(function), behind(at_a=door))

    assert finding.outcome is Outcome.FAILED
    assert says in finding.says


@pytest.mark.parametrize(("door", "function", "says"), [row[1:] for row in AT_B], ids=[row[0] for row in AT_B])
def test_rule_that_the_slaves_kme_breaks_is_found(behind, door, function, says):
    """The same at the other end."""
    finding = find_out(check_of(function), behind(at_b=door))

    assert finding.outcome is Outcome.FAILED
    assert says in finding.says


@pytest.mark.parametrize(
    ("body", "function"),
    [({"error": "x"}, errors.errors_have_a_message), ({"message": "x", "details": "y"}, errors.details_are_objects),
     ({"message": "x", "details": ["y"]}, errors.details_are_objects)],
    ids=["no message", "details are text", "details are texts"],
)  # fmt: skip
def test_error_of_another_shape_is_found(behind, body, function):
    """In whatever the checks before were answered."""
    pair = behind(at_a=answering(lambda _: body, statuses=(400,)))
    pair.a.post(pair.b.id, b"{")

    assert find_out(check_of(function), pair).outcome is Outcome.FAILED


def test_answer_of_another_content_type_is_found(behind):
    """JSON that is called text."""
    pair = behind(at_a=plain, content_type="text/plain")

    finding = find_out(check_of(transport.answers_are_application_json), pair)

    assert (finding.outcome, finding.says) == (Outcome.FAILED, "text/plain (status 200)")


def test_what_the_standard_leaves_open_is_no_fault(behind):
    """A Status with a member of the KME's own."""
    pair = behind(at_a=answering(lambda d: d | {"vendor": 1}, "status"))

    finding = find_out(check_of(status.status_has_no_members_of_its_own), pair)

    assert (finding.outcome, finding.says) == (Outcome.NOT_AS_ADVISED, "vendor")


def test_want_of_key_material_is_no_fault(behind):
    """It is said, and the check was not run."""
    pair = behind(at_a=unavailable)
    pair = Pair(pair.a, pair.b, None, patience_s=1.0)

    finding = find_out(check_of(get_key_with_ids.slave_gets_the_same), pair)

    assert finding.outcome is Outcome.NOT_RUN
    assert "no keys within 1 s" in finding.says


def test_without_a_third_sae_its_checks_are_not_run(behind):
    """And the option is named."""
    pair = behind()

    finding = find_out(check_of(callers.key_of_another_sae), Pair(pair.a, pair.b, None, patience_s=1.0))

    assert finding.outcome is Outcome.NOT_RUN
    assert "--other" in finding.says


def test_certificate_for_another_host_is_found(kmes, alice, bob):
    """--any-name goes on; the check says it."""
    elsewhere = kmes.stack.authority.issue(Identity(Role.NODE, "elsewhere"), addresses=["192.0.2.1"])
    door = Changed(alice, elsewhere, plain)
    try:
        pair = Pair(client(alice, door.url, any_name=True), client(bob), None, patience_s=1.0)
        finding = find_out(check_of(transport.certificate_of_the_kme_holds), pair)
    finally:
        door.close()

    assert finding.outcome is Outcome.FAILED
    assert "certificate does not hold" in finding.says
