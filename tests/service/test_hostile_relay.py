"""A relay that lies: four real nodes in a row, and all that b and c say and are told passes a test's hands."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from flask import Response, request

from mtls import deadline
from mtls.call import Caller, Reply
from mtls.identity import Identity, Role
from mtls.serve import json_body, new_app
from mtls.server import Server
from telemetry import journal
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.foreign import N, open_session, virtual_links
from tests.support.waiting import until

ALICE, DAVE = str(uuid.UUID(int=1)), str(uuid.UUID(int=4))
HOME = {ALICE: "a", DAVE: "d"}
NODES = "abcd"
LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c"), ("c-d/1", "c", "d")]
# With the way that the virtual link leads: from the end that pays double.
MODES = [("basic", False), ("qkp", False), ("otp", False), ("parallel", False), ("basic", True), ("qkp", True)]
HOSTILE = "bc"  # the first relay, and the last one


class Between:
    """Stands between node `speaker` and node `hearer`, and changes what the one says to the other.

    `question` alters a request's body, `answer` an answer (status, body); until a test says otherwise, they do not.
    """

    def __init__(self, stack: Stack, speaker: str, hearer: str) -> None:
        self.question: Callable[[str, Any], Any] = lambda _, body: body
        self.answer: Callable[[str, int, Any], tuple[int, Any]] = lambda _, status, body: (status, body)
        app = new_app("between")
        ours, theirs = (
            stack.authority.issue(Identity(Role.NODE, name), addresses=[LOOPBACK], stem=f"{speaker}{hearer}-{name}")
            for name in (speaker, hearer)
        )
        caller = Caller(ours)

        @app.route("/<path:path>", methods=["GET", "POST"])
        def through(path: str) -> Response:
            body = self.question(path, json_body(empty={}))
            reply = caller.request(
                request.method, f"{stack.agent(hearer)}/{path}", to=Identity(Role.NODE, hearer),
                body=body if request.method == "POST" else None, timeout_s=20,
            )  # fmt: skip
            status, said = self.answer(path, reply.status, reply.body)
            return Response("" if said is None else json.dumps(said), status)

        self.server = Server(app, LOOPBACK, 0, theirs)
        self.server.start()
        self.url = f"https://{LOOPBACK}:{self.server.port}"

    def be_honest(self) -> None:
        """Pass on everything as it is."""
        self.question = lambda _, body: body
        self.answer = lambda _, status, body: (status, body)


class Network(Stack):
    """A network in which b, or c, is hostile. `between`: by who speaks and who hears."""

    def build(self) -> None:
        """Start everything, and open a session from a to d."""
        self.between = {pair: Between(self, *pair) for pair in ("ab", "ac", "bc", "bd", "cd")}
        self.start_postgres()
        self.start_nodes(LINKS, HOME)
        self.start_qcs(LINKS, low=2000, high=2000, slot_s=0.25)
        self.controller_calls = self.caller(Role.CONTROLLER, "ctl")
        self.saes = {sae: self.caller(Role.SAE, sae) for sae in HOME}
        self.session = open_session(
            lambda method, node, at, body: self.configure(method, node, at, body).status, (ALICE, DAVE), NODES
        )
        until(lambda: self.enc_keys().ok)

    def write(self, name: str, document: dict[str, Any]) -> Path:
        """A configuration file; a node finds others where the test listens."""
        heard = {hearer: between.url for (speaker, hearer), between in self.between.items() if speaker == name}
        return super().write(name, document | {"nodes": document["nodes"] | heard} if heard else document)

    def lie(self, node: str, question: Callable[[str, Any], Any]) -> None:
        """Have a node say something else than it does."""
        for (speaker, _), between in self.between.items():
            if speaker == node:
                between.question = question

    def answer(self, node: str, answer: Callable[[str, int, Any], tuple[int, Any]]) -> None:
        """Have a node answer something else than it does."""
        for (_, hearer), between in self.between.items():
            if hearer == node:
                between.answer = answer

    def be_honest(self) -> None:
        """All nodes."""
        for between in self.between.values():
            between.be_honest()

    def configure(self, method: str, node: str, at: str, body: Any) -> Reply:
        """Tell a node what a controller has to tell."""
        url = f"{self.agent(node)}{at}"
        return self.controller_calls.request(method, url, to=Identity(Role.NODE, node), body=body)

    def set_mode(self, mode: str, *, from_last: bool = False) -> None:
        """Have keys made in that mode, and that end of the session pay double."""
        key = self.session["link"]
        for node, link in virtual_links(NODES, key, from_last=from_last).items():
            body = {"etsi-qkd-sdn-node:qkd_link": [link]}
            assert self.configure("PUT", node, f"{N}/qkd_links/qkd_link={key}", body).ok
        for node in NODES:
            body = {"qkd-testbed:mode": mode}
            assert self.configure("PUT", node, "/restconf/data/qkd-testbed:node/parameters/mode", body).ok

    def enc_keys(self, number: int = 1) -> Reply:
        """Keys for alice."""
        url = f"{self.kme('a')}/api/v1/keys/{DAVE}/enc_keys"
        body = {"number": number, "size": 128}
        return self.saes[ALICE].request("POST", url, to=Identity(Role.NODE, "a"), body=body, timeout_s=20)

    def dec_keys(self, *key_ids: str) -> Reply:
        """The same keys for dave."""
        url = f"{self.kme('d')}/api/v1/keys/{ALICE}/dec_keys"
        body = {"key_IDs": [{"key_ID": k} for k in key_ids]}
        return self.saes[DAVE].request("POST", url, to=Identity(Role.NODE, "d"), body=body)

    def failure(self) -> Reply:
        """How a request for keys fails, once there is material for it; in qkp, once the pool is empty."""
        return until(lambda: (reply := self.enc_keys(20)).detail("cause") not in (None, "short_of_material") and reply)

    def events(self, node: str, name: str) -> list[dict[str, Any]]:
        """What a node wrote of that name."""
        return journal.read(self.directory / node / "journal.jsonl", name)

    def waiting(self) -> int:
        """How many keys wait at d."""
        return sum(len(e["key_ids"]) for e in self.events("d", "keys_relayed"))


AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def running(network: AnyNetwork) -> Iterator[AnyNetwork]:
    """It, built, until nobody needs it."""
    try:
        network.build()
        yield network
    finally:
        network.stop()
        for between in network.between.values():
            between.server.stop()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The running network."""
    yield from running(Network(tmp_path_factory.mktemp("hostile")))


@pytest.fixture
def network(built: Network) -> Iterator[Network]:
    """The same, honest before and after, so that keys come."""
    until(lambda: built.enc_keys().ok)
    yield built
    built.be_honest()


def flip(encoded: str) -> str:
    """Base64 of the same bytes but for one bit."""
    data = bytearray(base64.b64decode(encoded))
    data[len(data) // 2] ^= 4
    return base64.b64encode(data).decode()


def flipped(path: str, body: Any) -> Any:
    """A relay's message with a bit flipped in what it seals."""
    what = "difference" if path.endswith("/difference") else "sealed"
    return body | {what: flip(body[what])} if "/relay/" in path else body


def said_well(path: str, status: int, body: Any) -> tuple[int, Any]:
    """A relay's answer: all went well."""
    return (204, None) if "/relay/" in path else (status, body)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(("mode", "from_last"), MODES)
def test_bit_that_a_relay_flips_is_noticed_in_every_mode(network, mode, from_last, hostile):
    """The request fails and names the way, both ends say so, and nothing waits for the slave."""
    network.set_mode(mode, from_last=from_last)
    given = network.enc_keys()
    key_ids = [k["key_ID"] for k in given.body["keys"]]
    assert network.dec_keys(*key_ids).body == given.body
    before = network.waiting()
    network.lie(hostile, flipped)

    failed = network.failure()

    assert (failed.status, failed.detail("cause")) == (503, "relay_altered")
    assert failed.detail("path") == "a - b - c - d"
    assert network.events("a", "key_failed")[-1]["cause"] == "relay_altered"
    assert network.events("d", "relay_failed")[-1]["cause"] == "relay_altered"
    assert network.waiting() == before
    assert network.events("a", "lost")[-1]["cause"] == "relay_altered"
    network.be_honest()
    until(lambda: network.enc_keys().ok)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(("mode", "from_last"), MODES)
def test_no_relay_can_hide_that_a_key_was_altered(network, mode, from_last, hostile):
    """It says that all went well; but it is not the one who is asked."""
    network.set_mode(mode, from_last=from_last)
    network.lie(hostile, flipped)
    network.answer(hostile, said_well)

    failed = network.failure()

    assert failed.detail("cause") == "relay_altered"


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(("mode", "from_last"), MODES)
def test_relay_that_passes_nothing_on_and_says_it_did_is_found_out(network, mode, from_last, hostile):
    """The last node has nothing to keep. The neighbour that took it over is named; in `parallel`, who kept it."""
    network.set_mode(mode, from_last=from_last)
    network.lie(hostile, lambda path, body: body | {"ksid": str(uuid.uuid4())} if "/relay/" in path else body)
    network.answer(hostile, said_well)

    failed = network.failure()

    named = hostile if mode == "parallel" else "b"
    assert (failed.status, failed.detail("cause"), failed.detail("node")) == (503, "relay_broken", named)


def moved(body: Any) -> list[dict[str, Any]]:
    """The ranges of a message, the first of them some bytes on: bytes that were allocated to nobody, or to others."""
    first, *others = body["ranges"]
    return [first | {"start": first["start"] + 16, "end": first["end"] + 16}, *others]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {"ranges": moved(body)},
        lambda body: {"ranges": [body["ranges"][0], *moved({"ranges": body["ranges"][1:]})]},
        lambda body: {"ranges": body["ranges"][:1], "proofs": body["proofs"][:1]},
        lambda body: {"position": body["position"] + 1},
        lambda _: {"server": "another"},
        lambda body: {"proofs": body["proofs"][::-1]},
        lambda body: {"proofs": ["0" * 64, *body["proofs"][1:]]},
    ],
    ids=["incoming", "outgoing", "shorter path", "position", "server", "proof of another node", "made up"],
)
def test_ranges_that_were_not_allocated_for_the_request_are_not_taken(network, change):
    """A relay makes them up: the next node refuses before it takes a byte, and names the relay."""
    network.set_mode("otp")
    network.lie("b", lambda path, body: body | change(body) if "/relay/" in path else body)
    before = len(network.events("c", "used"))

    failed = network.failure()

    assert (failed.status, failed.detail("cause")) == (503, "relay_broken")
    assert len(network.events("c", "used")) == before


def test_what_was_allocated_for_another_request_is_not_taken(network):
    """A relay keeps a message and its proofs, and names them in another request."""
    network.set_mode("otp")
    kept: list[Any] = []

    def keep(_: str, body: Any) -> Any:
        kept.append(body)
        return body | {"ranges": []}

    network.lie("b", keep)
    network.failure()
    network.be_honest()
    before = len(network.events("c", "used"))
    caller = network.caller(Role.NODE, "b")

    def relay(request_id: str) -> Reply:
        return caller.request("POST", f"{network.agent('c')}/qkd/v1/relay/{request_id}",
                              to=Identity(Role.NODE, "c"), body=kept[-1])  # fmt: skip

    refused = relay(str(uuid.uuid4()))

    assert (refused.status, refused.detail("cause"), refused.detail("node")) == (503, "relay_broken", "b")
    assert "not allocated for this request" in refused.message
    assert len(network.events("c", "used")) == before


def test_nothing_is_taken_for_what_cannot_be_relayed_in_the_time_that_is_left(network, monkeypatch):
    """c has some milliseconds for two links, and refuses. When it has time, the same message goes through."""
    network.set_mode("otp")
    kept: list[tuple[str, Any]] = []

    def keep(path: str, body: Any) -> Any:
        kept.append((path, body))
        return body | {"ranges": []}

    network.lie("b", keep)
    network.failure()
    path, message = kept[-1]
    before = len(network.events("c", "used"))
    caller = network.caller(Role.NODE, "b")

    def relay() -> Reply:
        return caller.request("POST", f"{network.agent('c')}/{path}", to=Identity(Role.NODE, "c"), body=message)

    with monkeypatch.context() as hurry:
        hurry.setattr(deadline, "to_header", lambda _: "5")
        refused = relay()

    assert (refused.status, refused.detail("cause"), refused.detail("node")) == (503, "relay_broken", "c")
    assert "too little time" in refused.message
    assert len(network.events("c", "used")) == before
    assert relay().status == 204


def test_way_that_a_relay_makes_up_is_not_taken(network):
    """b names d, which is on the virtual link, as its neighbour there, and leaves out c."""
    network.set_mode("otp")
    made_up = {"neighbours": [{"node": "a", "qcs": ["a-b/1"]}, {"node": "d", "qcs": ["c-d/1"]}]}
    network.answer("b", lambda path, status, body: (200, made_up) if "/neighbours" in path else (status, body))
    network.lie("a", lambda path, body: body | {"ranges": []} if "/relay/" in path else body)
    network.failure()  # so that the way is looked for anew

    failed = network.failure()

    assert (failed.detail("cause"), failed.detail("node")) == ("relay_broken", "b")
    assert "does not lead back" in failed.message


def test_difference_of_pads_that_were_not_allocated_is_not_made(network):
    """The first node names other bytes, or another node's proof: no node takes a byte."""
    network.set_mode("parallel")
    for change in (
        lambda body: {"ranges": moved(body)},
        lambda body: {"position": body["position"] % 2 + 1},
        lambda _: {"proof": "0" * 64},
    ):
        network.lie("a", lambda path, body, c=change: body | c(body) if path.endswith("/pads") else body)
        before = len(network.events("b", "used")) + len(network.events("c", "used"))

        failed = network.failure()

        assert failed.detail("cause") == "relay_broken"
        assert len(network.events("b", "used")) + len(network.events("c", "used")) == before
        network.be_honest()
