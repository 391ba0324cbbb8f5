"""Real SAE processes of two datacenters over real mutual TLS; their nodes are played by this test.

`telecom` ends a session when a key does not come, `tax` goes on. Each has two applications, A and B.
"""

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import request

from mtls.authority import Authority
from mtls.call import Caller
from mtls.identity import Identity, Role
from mtls.serve import Problem, allow, caller, json_body, new_app
from mtls.server import Server
from sae.sae_http import THREADS
from telemetry import journal
from testbed.network.loopback import free_port
from tests.support.waiting import until

LOOPBACK = "127.0.0.1"
KEY_BITS = 128
FAST = {"qos": {"key_size_bits": KEY_BITS, "interval_s": 0.05}}
UUID = "00000000-0000-4000-8000-00000000dead"


class Nodes:
    """The KMEs of all nodes, the controller and the quantum channels behind them, in one object.

    `log` is what applications asked, in order: (node, what, SAE). `broken[what]` is a Problem to answer with.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: list[bytes] = []
        self.reset()

    def reset(self) -> None:
        """As after a restart, with nothing broken."""
        self.log: list[tuple[str, str, str]] = []
        self.broken: dict[str, Problem] = {}
        self.hanging = threading.Event()
        self.hanging.set()
        self.waiting: set[tuple[str, str]] = set()
        self.open: dict[str, tuple[str, str]] = {}
        self.keys: dict[str, bytes] = {}

    def asked(self, node: str, what: str) -> str:
        """Note a request; the SAE that asks."""
        with self.lock:
            self.log.append((node, what, caller().name))
        self.hanging.wait(20)
        if what in self.broken:
            raise self.broken[what]
        return caller().name

    def app(self, node: str):
        """The KME of that node."""
        app = new_app("kme")

        @app.post("/qkd/v1/key_sessions")
        @allow(Role.SAE)
        def open_key_session():
            body = json_body()
            sae, peer, side = caller().name, body["peer"], body["side"]
            pair = (sae, peer) if side == "master" else (peer, sae)
            self.asked(node, f"open {side}")
            for ksid, existing in self.open.items():
                if existing == pair:
                    raise Problem(409, "a key session of this pair is open already", cause="exists", ksid=ksid)
            if side == "slave":
                self.waiting.add(pair)
                return {"status": "waiting"}, 202
            if pair not in self.waiting:
                return {"status": "waiting"}, 202
            self.waiting.remove(pair)
            ksid = str(uuid.uuid4())
            self.open[ksid] = pair
            return {"ksid": ksid, "path": ["telecom", "relay", "tax"], "qcs": ["q1", "q2"], "timings_ms": {}}

        @app.delete("/qkd/v1/key_sessions")
        @allow(Role.SAE)
        def withdraw():
            self.waiting.discard((request.args["master_sae"], self.asked(node, "withdraw")))
            return "", 204

        @app.delete("/qkd/v1/key_sessions/<ksid>")
        @allow(Role.SAE)
        def close(ksid):
            self.asked(node, "close")
            if self.open.pop(ksid, None) is None:
                raise Problem(404, "no key session of this KSID")
            return "", 204

        @app.post("/api/v1/keys/<slave>/enc_keys")
        @allow(Role.SAE)
        def enc_keys(slave):
            self.asked(node, "enc_keys")
            key_id, key = str(uuid.uuid4()), os.urandom(json_body()["size"] // 8)
            self.keys[key_id] = key
            self.made.append(key)
            return container({key_id: key})

        @app.post("/api/v1/keys/<master>/dec_keys")
        @allow(Role.SAE)
        def dec_keys(master):
            self.asked(node, "dec_keys")
            return container({e["key_ID"]: self.keys.pop(e["key_ID"]) for e in json_body()["key_IDs"]})

        return app


def container(keys: dict[str, bytes]) -> dict:
    """GS QKD 014, clause 6.3, written anew here: the test must not believe the code it tests."""
    return {"keys": [{"key_ID": i, "key": base64.b64encode(k).decode()} for i, k in keys.items()]}


class Datacenter:
    """The applications of one datacenter: their process, configuration and journal."""

    def __init__(self, network: "Network", name: str, policy: str) -> None:
        self.network, self.name = network, name
        self.saes = {letter: str(uuid.uuid4()) for letter in "AB"}
        self.ports = {letter: free_port() for letter in "AB"}
        self.directory = network.directory / name
        self.policy = policy
        self.process: subprocess.Popen | None = None

    def url(self, letter: str) -> str:
        """Where that application is reached."""
        return f"https://{LOOPBACK}:{self.ports[letter]}"

    def document(self) -> dict:
        """The configuration."""
        return {
            "name": self.name, "host": LOOPBACK, "directory": str(self.directory), "audit_secret": "5a" * 32,
            "kme_url": self.network.kmes[self.name], "kme_name": self.name,
            "saes": [
                {"id": sae, "name": f"{self.name}-{letter}", "port": self.ports[letter],
                 "credentials": self.network.issue("sae", sae).to_config()}
                for letter, sae in self.saes.items()
            ],
            "peers": self.network.peers(), "on_key_failure": self.policy,
        }  # fmt: skip

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.process = start(self.network.directory / f"{self.name}.json", self.document())
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        """Exit status, seconds until then, standard error."""
        started = time.monotonic()
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=10)
        return self.process.returncode, time.monotonic() - started, errors

    def events(self, name: str, **facts) -> list[dict]:
        """Events of that name in the journal which have these facts."""
        found = journal.read(self.directory / "journal.jsonl")
        return [e for e in found if e["event"] == name and facts.items() <= e.items()]


def start(path: Path, document: object) -> subprocess.Popen:
    """`python -m sae` with that configuration."""
    path.write_text(json.dumps(document))
    command = [sys.executable, "-P", "-m", "sae", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Network:
    """Two datacenters, an operator, and an application that nobody answers for (`ghost`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory / "pki")
        self.nodes = Nodes()
        self.servers = {n: self.serve(n) for n in ("telecom", "tax")}
        self.kmes = {n: f"https://{LOOPBACK}:{s.port}" for n, s in self.servers.items()}
        self.ghost = str(uuid.uuid4())
        self.ghost_url = f"https://{LOOPBACK}:{free_port()}"
        self.telecom = Datacenter(self, "telecom", "end")
        self.tax = Datacenter(self, "tax", "go_on")
        self.operator = Caller(self.issue("operator", "operator"))

    def issue(self, role: str, name: str):
        """That party's credentials."""
        return self.authority.issue(Identity(Role(role), name), addresses=[LOOPBACK])

    def serve(self, node: str) -> Server:
        """That node's KME, started."""
        server = Server(self.nodes.app(node), LOOPBACK, 0, self.issue("node", node))
        server.start()
        return server

    def peers(self) -> dict:
        """All applications of the network."""
        saes = {
            sae: {"name": f"{d.name}-{letter}", "url": d.url(letter)}
            for d in (self.telecom, self.tax)
            for letter, sae in d.saes.items()
        }
        return saes | {self.ghost: {"name": "ghost", "url": self.ghost_url}}

    def ask(self, at: Datacenter, method: str, path: str, body=None, *, letter="A", who=None):
        """A call of an application, by the operator unless another caller is given."""
        to = Identity(Role.SAE, at.saes[letter])
        return (who or self.operator).request(method, at.url(letter) + path, to=to, body=body, timeout_s=20)

    def open(self, master: Datacenter, slave: str, **options):
        """Have application A of `master` open a session with `slave`."""
        return self.ask(master, "POST", "/sae/v1/sessions", {"peer": slave} | FAST | options)

    def sessions(self, at: Datacenter) -> list[dict]:
        """The sessions of application A there."""
        return self.ask(at, "GET", "/sae/v1/sessions").body["sessions"]

    def close_all(self) -> None:
        """End every session that a test left."""
        self.nodes.hanging.set()
        for at in (self.telecom, self.tax):
            for session in self.sessions(at):
                if session["side"] == "master" and session["ksid"]:
                    self.ask(at, "DELETE", f"/sae/v1/sessions/{session['ksid']}")
            until(lambda at=at: not any(s["side"] == "master" for s in self.sessions(at)))
        self.nodes.reset()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Both datacenters' processes, for all tests; afterwards no key may be in anything that they wrote."""
    network = Network(tmp_path_factory.mktemp("saes"))
    for datacenter in (network.telecom, network.tax):
        datacenter.start()
    yield network
    said = "".join(d.stop()[2] for d in (network.telecom, network.tax))
    for server in network.servers.values():
        server.stop()
    written = said.encode() + b"".join(
        d.directory.joinpath("journal.jsonl").read_bytes() for d in (network.telecom, network.tax)
    )
    assert network.nodes.made
    for key in network.nodes.made:
        assert not any(form in written for form in (key, key.hex().encode(), base64.b64encode(key)))


@pytest.fixture
def network(running):
    """The network with no session open and nothing broken."""
    yield running
    running.close_all()


def ends(network: Network) -> tuple[Datacenter, Datacenter, str, str]:
    """Telecom and tax, and the IDs of their applications A."""
    return network.telecom, network.tax, network.telecom.saes["A"], network.tax.saes["A"]


def test_session_is_initialised_in_the_order_of_figure_4(network):
    """The slave registers at its node before it answers, the master at its own after that, and gets KSID and path."""
    telecom, tax, master, slave = ends(network)

    reply = network.open(telecom, slave, keys=1)

    assert reply.status == 201
    assert network.nodes.log[:2] == [("tax", "open slave", slave), ("telecom", "open master", master)]
    assert reply.body["path"] == ["telecom", "relay", "tax"]
    pair = {"master_sae": master, "slave_sae": slave}
    assert telecom.events("session_requested", **pair)
    assert telecom.events("ask_connection", **pair)[-1]["duration_ms"] > 0
    opened = telecom.events("session_open", ksid=reply.body["ksid"], hops=2, **pair)[0]
    assert 0 < tax.events("open_key_session", **pair)[0]["duration_ms"] < opened["ask_connection_ms"]
    assert opened["total_ms"] == pytest.approx(opened["ask_connection_ms"] + opened["open_key_session_ms"], abs=0.01)


def test_both_sides_get_the_same_keys_and_talk_under_them(network):
    """Key after key the fingerprints agree and the message is read; then the session ends as ordered."""
    telecom, tax, _, slave = ends(network)

    ksid = network.open(telecom, slave, keys=3).body["ksid"]

    closed = until(lambda: telecom.events("session_closed", ksid=ksid))[0]
    assert (closed["reason"], closed["keys"], closed["errors"]) == ("keys", 3, {})
    here = {e["key_id"]: e["fingerprint"] for e in telecom.events("key", ksid=ksid, side="master", hops=2)}
    there = {e["key_id"]: e["fingerprint"] for e in tax.events("key", ksid=ksid, side="slave", size_bits=KEY_BITS)}
    assert len(set(here.values())) == 3
    assert here == there
    for datacenter in (telecom, tax):
        assert {e["key_id"] for e in datacenter.events("message", ksid=ksid, ok=True)} == set(here)
    assert network.nodes.log[-1] == ("telecom", "close", telecom.saes["A"])
    assert until(lambda: not network.sessions(tax))


def test_first_key_comes_at_once_and_the_next_after_the_interval(network):
    """Keys are asked for on a grid that begins when the session does."""
    telecom, _, _, slave = ends(network)

    ksid = network.open(telecom, slave, qos={"interval_s": 0.4}, keys=3).body["ksid"]

    until(lambda: telecom.events("session_closed", ksid=ksid))
    opened = telecom.events("session_open", ksid=ksid)[0]["mono"]
    arrived = [e["mono"] - opened for e in telecom.events("key", ksid=ksid)]
    # Early is impossible; late is what a busy machine does, and must not push the next one further.
    assert all(i * 0.4 - 0.01 < arrived[i] < i * 0.4 + 0.35 for i in range(3)), arrived


def test_slave_that_gets_no_key_ends_the_session_and_nothing_is_used(network):
    """Policy "end": the master drops its key, tells its node and the slave, and no message was sent."""
    telecom, tax, master, slave = ends(network)
    network.nodes.broken["dec_keys"] = Problem(503, "too old", cause="expired", qc="q2")

    ksid = network.open(telecom, slave).body["ksid"]

    closed = until(lambda: telecom.events("session_closed", ksid=ksid))[0]
    assert (closed["reason"], closed["keys"], closed["errors"]) == ("key_error", 0, {"expired": 1})
    for datacenter, side in ((telecom, "master"), (tax, "slave")):
        assert datacenter.events("key_error", ksid=ksid, side=side, cause="expired")[0]["facts"] == {"qc": "q2"}
        assert not datacenter.events("key", ksid=ksid)
        assert not datacenter.events("message", ksid=ksid)
    assert network.nodes.log[-1] == ("telecom", "close", master)
    assert until(lambda: not network.sessions(tax))


@pytest.mark.parametrize(
    ("problem", "cause"),
    [(Problem(503, "short", cause="short_of_material"), "short_of_material"), (Problem(500, "bug"), "internal_error")],
)
def test_master_that_gets_no_key_ends_the_session(network, problem, cause):
    """The cause is what the node says, or what is known if it says none; the slave is asked for no key."""
    telecom, _, _, slave = ends(network)
    network.nodes.broken["enc_keys"] = problem

    ksid = network.open(telecom, slave).body["ksid"]

    closed = until(lambda: telecom.events("session_closed", ksid=ksid))[0]
    assert (closed["errors"], closed["errors_said"]) == ({cause: 1}, {cause: problem.message})
    assert "dec_keys" not in [what for _, what, _ in network.nodes.log]


def test_policy_go_on_tries_again_at_the_next_interval(network):
    """Failures are counted by cause, and keys come again when they can."""
    telecom, tax, slave, _ = ends(network)
    network.nodes.broken["enc_keys"] = Problem(503, "short", cause="short_of_material")
    network.open(tax, slave)
    until(lambda: network.sessions(tax)[0]["errors"].get("short_of_material", 0) >= 2)

    network.nodes.broken.clear()

    session = until(lambda: [s for s in network.sessions(tax) if s["keys"] >= 2])[0]
    assert (session["state"], session["errors_said"]) == ("open", {"short_of_material": "short"})
    assert [s["side"] for s in network.sessions(telecom)] == ["slave"]


def test_master_that_goes_on_opens_anew_for_a_slave_that_was_restarted(network):
    """The slave knows nothing of the session any more. Each of its keys would cost material and come to nothing."""
    telecom, tax, slave, _ = ends(network)
    ksid = network.open(tax, slave).body["ksid"]
    until(lambda: [s for s in network.sessions(tax) if s["keys"]])

    telecom.stop(signal.SIGKILL)
    telecom.start()

    session = until(lambda: [s for s in network.sessions(tax) if s["ksid"] != ksid and s["keys"]])[0]
    assert (session["peer"], session["qos"]["interval_s"]) == (slave, FAST["qos"]["interval_s"])
    closed = tax.events("session_closed", ksid=ksid)[0]
    assert (closed["reason"], closed["errors"]["no_session"]) == ("no_session", 1)
    assert ksid not in network.nodes.open


def test_refusal_comes_back_with_its_reason_and_the_slave_withdraws(network):
    """The controller's no, with the QC that was short, reaches the operator; nothing stays registered."""
    telecom, tax, _, slave = ends(network)
    network.nodes.broken["open master"] = Problem(503, "QC q1 cannot", cause="refused", qc="q1", needed_bytes=16)

    reply = network.open(telecom, slave)

    assert (reply.status, reply.message) == (503, "QC q1 cannot")
    assert (reply.detail("cause"), reply.detail("qc"), reply.detail("needed_bytes")) == ("refused", "q1", 16)
    assert telecom.events("session_refused", cause="refused", qc="q1", status=503, slave_sae=slave)
    assert network.nodes.log[-1] == ("tax", "withdraw", slave)
    assert network.sessions(telecom) == network.sessions(tax) == []


def test_slave_whose_node_says_no_says_why(network):
    """The refusal at the slave's side is passed on, and the master never asks its own node."""
    telecom, _, _, slave = ends(network)
    network.nodes.broken["open slave"] = Problem(503, "away", cause="controller_unreachable")

    reply = network.open(telecom, slave)

    assert (reply.status, reply.detail("cause")) == (503, "controller_unreachable")
    assert telecom.events("session_failed", cause="controller_unreachable", status=503)
    assert [what for _, what, _ in network.nodes.log] == ["open slave"]


def test_slave_that_is_away_is_said_to_be(network):
    """A connection refused is a 503 that names the party, and may be tried again."""
    for _ in range(2):
        reply = network.open(network.telecom, network.ghost)

        assert (reply.status, reply.detail("cause")) == (503, "slave_unreachable")


def test_one_session_a_pair_until_the_operator_closes_it(network):
    """A second one is a 409; closing tells node and slave; a KSID closed is a 404; then the pair may open anew."""
    telecom, tax, _, slave = ends(network)
    ksid = network.open(telecom, slave).body["ksid"]

    assert network.open(telecom, slave).status == 409
    assert network.ask(telecom, "DELETE", f"/sae/v1/sessions/{ksid}").status == 204
    assert network.ask(telecom, "DELETE", f"/sae/v1/sessions/{ksid}").status == 404
    assert network.sessions(telecom) == network.sessions(tax) == []
    assert telecom.events("session_closed", ksid=ksid, reason="closed")
    assert network.open(telecom, slave).status == 201


def test_end_is_told_until_the_node_has_heard_of_it(network):
    """A node that is away when a session ends would keep it for ever; the slave need not wait."""
    telecom, tax, _, slave = ends(network)
    network.nodes.broken["close"] = Problem(503, "away")
    ksid = network.open(telecom, slave, keys=1).body["ksid"]

    until(lambda: telecom.events("session_closed", ksid=ksid, reason="keys"))
    assert network.sessions(tax) == []
    assert [s["state"] for s in network.sessions(telecom)] == ["closing"]
    del network.nodes.broken["close"]

    until(lambda: network.nodes.open == {})
    until(lambda: network.sessions(telecom) == [])


def test_both_directions_are_two_sessions(network):
    """An ordered pair: A's session with B does not keep B from having one with A."""
    telecom, tax, first, second = ends(network)

    assert network.open(telecom, second).status == network.open(tax, first).status == 201
    assert [s["side"] for s in until(lambda: network.sessions(telecom))] == ["master", "slave"]


def test_session_ends_after_its_duration(network):
    """However long the interval is."""
    telecom, _, _, slave = ends(network)

    ksid = network.open(telecom, slave, qos={"interval_s": 60}, duration_s=0.2).body["ksid"]

    assert until(lambda: telecom.events("session_closed", ksid=ksid))[0]["reason"] == "duration"


def test_master_that_lost_its_session_in_a_crash_gets_a_new_one(network):
    """The slave closes what its node still has of the pair: it would keep them from having keys for ever."""
    telecom, _, master, slave = ends(network)
    lost = str(uuid.uuid4())
    network.nodes.open[lost] = (master, slave)

    assert network.open(telecom, slave, keys=1).status == 201
    assert [what for _, what, _ in network.nodes.log[:4]] == ["open slave", "close", "open slave", "open master"]


ROUTES = [
    ("POST", "/sae/v1/connections", "sae"), ("DELETE", "/sae/v1/connections", "sae"),
    ("POST", "/sae/v1/keys", "sae"), ("POST", "/sae/v1/messages", "sae"), ("POST", "/sae/v1/sessions", "operator"),
    ("GET", "/sae/v1/sessions", "operator"), ("DELETE", f"/sae/v1/sessions/{UUID}", "operator"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "allowed"), ROUTES)
def test_other_roles_are_refused(network, method, path, allowed):
    """Every route has one role; a node, the controller, and the other of the two get 401."""
    for role in {"node", "controller", "sae", "operator"} - {allowed}:
        name = network.tax.saes["A"] if role == "sae" else role
        reply = network.ask(network.telecom, method, path, {}, who=Caller(network.issue(role, name)))

        assert (reply.status, reply.detail("allowed_roles")) == (401, [allowed])


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, role in ROUTES if role == "sae"])
def test_strange_saes_are_refused(network, method, path):
    """An SAE that the network does not list, though certified, is no master here; nor is the application itself."""
    for name in (str(uuid.uuid4()), network.telecom.saes["A"]):
        reply = network.ask(network.telecom, method, path, {}, who=Caller(network.issue("sae", name)))

        assert (reply.status, reply.message) == (401, "the SAE is not known here")


BAD = [
    ("sae", "/sae/v1/connections", {"qos": 3}, "qos"),
    ("sae", "/sae/v1/connections", {"qos": {"interval_s": 0}}, "qos.interval_s"),
    ("sae", "/sae/v1/keys", {"ksid": "x", "key_ids": [UUID]}, "ksid"),
    ("sae", "/sae/v1/keys", {"ksid": UUID, "key_ids": []}, "key_ids"),
    ("sae", "/sae/v1/keys", {"ksid": UUID, "key_ids": [UUID, UUID]}, "key_ids"),
    ("sae", "/sae/v1/keys", {"ksid": UUID, "key_ids": [UUID, 7]}, "key_ids[1]"),
    ("sae", "/sae/v1/messages", {"key_id": UUID, "nonce": "AAAA", "ciphertext": "AAAA"}, "nonce"),
    ("operator", "/sae/v1/sessions", {}, "peer"),
    ("operator", "/sae/v1/sessions", {"peer": UUID}, "peer"),
    ("operator", "/sae/v1/sessions", {"peer": "self"}, "peer"),
    ("operator", "/sae/v1/sessions", {"peer": "tax", "qos": {"key_size_bits": 7}}, "qos.key_size_bits"),
    ("operator", "/sae/v1/sessions", {"peer": "tax", "duration_s": "1"}, "duration_s"),
    ("operator", "/sae/v1/sessions", {"peer": "tax", "keys": 0}, "keys"),
    ("operator", "/sae/v1/sessions", {"peer": "tax", "interval_s": 1}, "interval_s"),
]


@pytest.mark.parametrize(("role", "path", "body", "field"), BAD)
def test_bad_input_is_a_400_that_names_the_field(network, role, path, body, field):
    """Nothing is asked of any node before the input is understood."""
    telecom, _, here, there = ends(network)
    who = Caller(network.issue("sae", there)) if role == "sae" else None
    names = {"self": here, "tax": there}
    given = {k: names.get(v, v) if k == "peer" else v for k, v in body.items()}

    reply = network.ask(telecom, "POST", path, given, who=who)

    assert (reply.status, reply.detail("field")) == (400, field)
    assert network.nodes.log == []


def test_peers_get_nothing_without_a_session(network):
    """Asking for a key or sending a message outside of a session is a 404 with its cause, and reaches no node."""
    who = Caller(network.issue("sae", network.tax.saes["A"]))
    sealed = {"key_id": UUID, "nonce": "A" * 16, "ciphertext": "A" * 24}

    for path, body, cause in (
        ("keys", {"ksid": UUID, "key_ids": [UUID]}, "no_session"), ("messages", sealed, "no_key"),
    ):  # fmt: skip
        reply = network.ask(network.telecom, "POST", f"/sae/v1/{path}", body, who=who)

        assert (reply.status, reply.detail("cause")) == (404, cause)
    assert network.nodes.log == []


def test_requests_of_one_sae_that_take_long_hold_up_no_other_party(network):
    """Its slave's node answers nothing, and it asks again and again meanwhile."""
    many = 4 * THREADS
    telecom, tax, _, _ = ends(network)
    flooding = Caller(network.issue("sae", telecom.saes["A"]), connections=many)
    network.nodes.hanging.clear()
    with ThreadPoolExecutor(many) as pool:
        flood = [pool.submit(network.ask, tax, "POST", "/sae/v1/connections", {}, who=flooding) for _ in range(many)]
        until(lambda: len(network.nodes.log) >= 10)
        try:
            assert network.sessions(tax) == []
            assert not all(request.done() for request in flood), "some have waited all the time"
        finally:
            network.nodes.hanging.set()
    flooding.close()
    who = Caller(network.issue("sae", telecom.saes["A"]))
    assert network.ask(tax, "DELETE", "/sae/v1/connections", who=who).status == 204


@pytest.fixture
def alone(tmp_path):
    """A datacenter of its own whose applications A and B talk to each other."""
    network = Network(tmp_path)
    network.telecom.start()
    yield network
    if network.telecom.process.poll() is None:
        network.telecom.stop(signal.SIGKILL)
    network.nodes.hanging.set()
    for server in network.servers.values():
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_within_a_second_with_its_sessions_closed(alone, number):
    """Status 0, nothing on standard error, and the node was told; files are the owner's only."""
    telecom = alone.telecom
    ksid = alone.open(telecom, telecom.saes["B"], qos={"interval_s": 60}).body["ksid"]
    until(lambda: telecom.events("message", ksid=ksid, side="master"))

    status, seconds, errors = telecom.stop(number)

    assert (status, errors) == (0, "")
    assert seconds < 1
    assert telecom.events("session_closed", ksid=ksid, reason="stopped", keys=1)
    assert alone.nodes.open == {}
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (telecom.directory, telecom.directory / "journal.jsonl")]
    assert modes == [0o700, 0o600]


def test_ends_within_a_second_though_its_node_is_silent(alone):
    """A node that does not answer holds up nobody's end."""
    telecom = alone.telecom
    alone.open(telecom, telecom.saes["B"])
    alone.nodes.hanging.clear()
    asked = len(alone.nodes.log)
    until(lambda: len(alone.nodes.log) > asked)

    status, seconds, _ = telecom.stop()

    assert status == 0
    assert seconds < 1


def test_busy_port_is_one_clear_line(alone):
    """Exit status 2, and the line says which application, address and port."""
    telecom = alone.telecom
    process = start(alone.directory / "again.json", telecom.document() | {"directory": str(alone.directory / "again")})
    out, errors = process.communicate(timeout=10)

    assert (process.returncode, out, errors.count("\n")) == (2, "", 1)
    assert f"cannot listen on {LOOPBACK}:{telecom.ports['A']}" in errors
    assert "in use" in errors


@pytest.mark.parametrize("document", [3, {}, {"name": "x\ny"}])
def test_malformed_configuration_is_one_clear_line(tmp_path, document):
    """Exit status 2, and the line says which file and member."""
    process = start(tmp_path / "bad.json", document)
    _, errors = process.communicate(timeout=10)

    assert (process.returncode, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"sae: {tmp_path / 'bad.json'}: ")
