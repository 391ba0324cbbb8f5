"""Three real nodes, real QC emulators and a real PostgreSQL on loopback; the test plays controller and SAEs."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from mtls.call import Reply
from mtls.identity import Identity, Role
from node.tree.model import link_id
from telemetry import journal
from testbed.network.loopback import Stack
from tests.support.foreign import N, application, open_session
from tests.support.waiting import until

ALICE, BOB, CAROL, MALLORY = (str(uuid.UUID(int=i)) for i in range(1, 5))
HOME = {ALICE: "a", BOB: "b", CAROL: "c", MALLORY: "b"}
LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c")]
BLOCK_BYTES, LARGE_KEY_BYTES = 2000, 3000


class Network(Stack):
    """The stack of these tests, with a word for everything they say often."""

    def open(self, master: str, slave: str) -> dict[str, Any]:
        """Configure a key session on all nodes of its path, as a controller does that knows only the standard."""
        path = ["a", "b", "c"][: "abc".index(HOME[slave]) + 1] if HOME[master] == "a" else [HOME[master], HOME[slave]]

        def call(method: str, node: str, at: str, body: Any) -> int:
            return self.call((Role.CONTROLLER, "ctl"), method, f"{self.agent(node)}{at}", node, body).status

        return open_session(call, (master, slave), path)

    def call(self, who: tuple[Role, str], method: str, url: str, node: str, body: Any = None) -> Reply:
        """One call of `node` as that party."""
        if who not in self.callers:
            self.callers[who] = self.caller(*who)
        return self.callers[who].request(method, url, to=Identity(Role.NODE, node), body=body)

    def enc_keys(self, master: str, slave: str, number: int = 1, size: int = 128, at: str | None = None) -> Reply:
        """Keys for the master."""
        node = at or HOME[master]
        body = {"number": number, "size": size}
        return self.call((Role.SAE, master), "POST", f"{self.kme(node)}/api/v1/keys/{slave}/enc_keys", node, body)

    def dec_keys(self, slave: str, master: str, key_ids: list[str]) -> Reply:
        """The same keys for the slave."""
        body = {"key_IDs": [{"key_ID": k} for k in key_ids]}
        url = f"{self.kme(HOME[slave])}/api/v1/keys/{master}/dec_keys"
        return self.call((Role.SAE, slave), "POST", url, HOME[slave], body)


def ids(reply: Reply) -> list[str]:
    """Key IDs of a key container."""
    return [k["key_ID"] for k in reply.body["keys"]]


@pytest.fixture(scope="module", params=["basic", "qkp", "otp", "parallel"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three nodes in a row with QCs fast enough for any test, in each mode: the promises are the same in all."""
    stack = Network(tmp_path_factory.mktemp("net"))
    stack.callers = {}
    stack.mode = request.param
    try:
        stack.start_postgres()
        stack.start_nodes(LINKS, HOME, mode=request.param, limits={"max_key_size": 8 * LARGE_KEY_BYTES}, slot_s=0.25)
        stack.start_qcs(LINKS, low=BLOCK_BYTES, high=BLOCK_BYTES, slot_s=0.25)
        stack.open(ALICE, BOB)
        stack.open(ALICE, CAROL)
        assert until(lambda: stack.enc_keys(ALICE, CAROL).ok)
        yield stack
    finally:
        stack.stop()


@pytest.mark.parametrize("slave", [BOB, CAROL], ids=["one hop", "two hops"])
def test_slave_gets_the_bytes_that_the_master_got(network, slave):
    """Over one hop and over a trusted relay: same IDs, same keys, of the size asked for."""
    given = network.enc_keys(ALICE, slave, number=3, size=256)
    fetched = network.dec_keys(slave, ALICE, ids(given))

    keys = [base64.b64decode(k["key"]) for k in given.body["keys"]]
    assert [len(k) for k in keys] == [32, 32, 32]
    assert len(set(keys)) == 3
    assert fetched.body == given.body


@pytest.mark.parametrize("slave", [BOB, CAROL], ids=["one hop", "two hops"])
def test_key_larger_than_a_block_is_the_same_at_both_ends(network, slave):
    """Which lies in two blocks of every QC at least; the limits of a KME are its network's to set."""
    given = until(lambda: (reply := network.enc_keys(ALICE, slave, size=8 * LARGE_KEY_BYTES)).ok and reply)

    assert len(base64.b64decode(given.body["keys"][0]["key"])) == LARGE_KEY_BYTES
    assert network.dec_keys(slave, ALICE, ids(given)).body == given.body
    beyond = network.enc_keys(ALICE, slave, size=8 * LARGE_KEY_BYTES + 8)
    assert (beyond.status, beyond.detail("field")) == (400, "size")


def test_key_over_one_hop_outlives_its_bytes(network):
    """The slave's node looks after keys that nobody asked for yet: they wait there for a TTL from their making."""
    first, second = network.enc_keys(ALICE, BOB, size=1024), network.enc_keys(ALICE, BOB, size=1024)
    time.sleep(0.25 * 8)  # the bytes were up to twelve slots old when the keys were made; the TTL is what is tested

    fetched = [network.dec_keys(BOB, ALICE, ids(given)) for given in (second, first)]

    assert [f.body for f in fetched] == [second.body, first.body]


@pytest.mark.parametrize("slave", [BOB, CAROL], ids=["one hop", "two hops"])
def test_slave_gets_a_key_once(network, slave):
    """A second request for the same ID is answered as the standard says: 400, not found."""
    given = ids(network.enc_keys(ALICE, slave))
    assert network.dec_keys(slave, ALICE, given).ok

    again = network.dec_keys(slave, ALICE, given)

    assert (again.status, again.message) == (400, "one or more keys specified are not found on KME")


def test_of_two_requests_for_one_key_at_once_exactly_one_gets_it(network):
    """Whoever comes second is told that the key is not there."""
    for slave in (BOB, CAROL) * 3:
        given = ids(network.enc_keys(ALICE, slave))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _, s=slave, g=given: network.dec_keys(s, ALICE, g).status, range(4)))

        assert sorted(answers) == [200, 400, 400, 400]


@pytest.mark.parametrize("slave", [BOB, CAROL], ids=["one hop", "two hops"])
def test_other_sae_does_not_get_the_key(network, slave):
    """An SAE that the key was not made for is refused, and the right one still gets it."""
    given = ids(network.enc_keys(ALICE, slave))

    wrong = network.dec_keys(MALLORY, ALICE, given)

    assert not wrong.ok
    assert "key" not in (wrong.body or {})
    assert network.dec_keys(slave, ALICE, given).ok


def test_sae_is_served_at_its_own_node_only(network):
    """An SAE of another datacenter gets 401."""
    assert network.enc_keys(ALICE, BOB, at="b").status == 401


def test_application_that_is_not_of_the_nodes_that_it_names_is_refused(network):
    """A node that registered somebody else's SAE would get its keys."""
    app = application(str(uuid.uuid4()), (ALICE, CAROL), "a", "b", link_id("a-b/1"))
    url = f"{network.agent('a')}{N}/qkd_applications"

    assert network.call((Role.CONTROLLER, "ctl"), "POST", url, "a", {"etsi-qkd-sdn-node:qkd_app": [app]}).status == 400


def test_new_session_of_a_pair_takes_the_place_of_the_old_one(network):
    """A node whose controller forgot the old one does not go on with it."""
    _, new = network.open(ALICE, BOB), network.open(ALICE, BOB)

    network.enc_keys(ALICE, BOB)

    events = journal.read(network.directory / "a" / "journal.jsonl")
    assert [e["ksid"] for e in events if e["event"] == "key_delivered"][-1] == new["ksid"]


def test_head_request_uses_up_no_key(network):
    """405: it could not show the key that it took."""
    caller = network.callers.setdefault((Role.SAE, ALICE), network.caller(Role.SAE, ALICE))
    url = f"{network.kme('a')}/api/v1/keys/{BOB}/enc_keys"

    assert caller.request("HEAD", url, to=Identity(Role.NODE, "a")).status == 405


def test_failed_fetch_of_two_keys_leaves_the_good_one(network):
    """One of them is unknown: the other one can still be fetched alone."""
    good = ids(network.enc_keys(ALICE, BOB))

    assert network.dec_keys(BOB, ALICE, [*good, str(uuid.uuid4())]).status == 400
    assert network.dec_keys(BOB, ALICE, good).ok


def test_both_ends_ask_at_once_and_no_byte_serves_twice(network):
    """Hundreds of keys from both ends of one QC: all different, all pairs equal."""
    network.open(BOB, ALICE)
    pairs = [(ALICE, BOB), (BOB, ALICE)]

    def exchange(i: int) -> bytes:
        master, slave = pairs[i % 2]
        given = until(lambda: (reply := network.enc_keys(master, slave)).ok and reply)
        assert network.dec_keys(slave, master, ids(given)).body == given.body
        return base64.b64decode(given.body["keys"][0]["key"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(exchange, range(200)))

    assert len(set(keys)) == 200


def test_shortage_names_the_qc_and_consumes_nothing(network):
    """More than there is: 503, the QC that is short and by how much; a small request works at once."""
    refused = network.enc_keys(ALICE, CAROL, number=64, size=8192)

    assert refused.status == 503
    assert refused.detail("cause") == "short_of_material"
    assert refused.detail("qc") in ("a-b/1", "b-c/1")
    assert refused.detail("short_bytes") > 0
    assert network.enc_keys(ALICE, CAROL).ok


def test_local_database_erases_what_was_used(network):
    """Key bytes that were handed out are in no file of any node's directory any more, and were never in clear."""
    given = network.enc_keys(ALICE, BOB, size=512)
    key = base64.b64decode(given.body["keys"][0]["key"])
    network.dec_keys(BOB, ALICE, ids(given))

    files = [f for node in "abc" for f in (network.directory / node).rglob("*") if f.is_file()]

    assert any(f.name == "local.db" for f in files)
    assert not [f for f in files if key in f.read_bytes() or key.hex().encode() in f.read_bytes()]


def test_relay_message_from_a_stranger_is_refused(network):
    """Only a neighbour on the session's virtual link may relay over it, and only by QCs of that link."""
    session = network.open(ALICE, CAROL)
    body = {"link": session["link"], "ksid": session["ksid"], "sealed": None, "keys": None,
            "ranges": [{"qc": "a-b/1", "epoch": 1, "start": 0, "end": 32},
                       {"qc": "b-c/1", "epoch": 1, "start": 0, "end": 16}]}  # fmt: skip
    url = f"{network.agent('b')}/qkd/v1/relay/{uuid.uuid4()}"

    assert network.call((Role.NODE, "stranger"), "POST", url, "b", body).detail("field") == "link"
    assert network.call((Role.NODE, "c"), "POST", url, "b", body).detail("field") == "ranges.qc"
    assert network.call((Role.SAE, ALICE), "POST", url, "b", body).status == 401


def test_dead_relay_is_named_and_serves_again_after_its_restart(network):
    """kill -9 of the node in the middle: an error that names the hop; after the restart keys flow, without help."""
    network.nodes["b"].kill()

    failed = network.enc_keys(ALICE, CAROL, number=5)

    assert (failed.status, failed.detail("cause"), failed.detail("node")) == (503, "relay_broken", "b")
    network.start_node("b").wait_ready()
    given = until(lambda: (reply := network.enc_keys(ALICE, CAROL)).ok and reply)
    assert network.dec_keys(CAROL, ALICE, ids(given)).body == given.body


def test_database_restart_fails_requests_and_heals(network):
    """While PostgreSQL is away requests fail with its cause; afterwards they work, without help."""
    network.postgres.kill()

    failed = network.enc_keys(ALICE, BOB, number=5)

    assert (failed.status, failed.detail("cause")) == (503, "database_unreachable")
    network.start_postgres()
    given = until(lambda: (reply := network.enc_keys(ALICE, BOB)).ok and reply)
    taken = until(lambda: (reply := network.dec_keys(BOB, ALICE, ids(given))).ok and reply)
    assert taken.body == given.body


def test_node_that_cuts_off_a_request_at_its_end_says_so(network):
    """The database sleeps, and the node is asked to end meanwhile."""
    node = network.nodes["a"]
    network.postgres.pause()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(network.enc_keys, ALICE, BOB, 5)
        time.sleep(0.5)  # in which the request has come to the node
        node.stop()
        network.postgres.wake()

    (stopped,) = [e for e in journal.read(network.directory / "a" / "journal.jsonl") if e["event"] == "stopped"]

    assert node.status == 0
    assert stopped["cut_off"]
    network.start_node("a").wait_ready()
    given = until(lambda: (reply := network.enc_keys(ALICE, BOB)).ok and reply)
    taken = until(lambda: (reply := network.dec_keys(BOB, ALICE, ids(given))).ok and reply)
    assert taken.body == given.body


def test_journal_holds_delivery_times_and_no_key(network):
    """Each delivery is an event with its duration; the key's bytes are nowhere in the journal."""
    given = until(lambda: (reply := network.enc_keys(ALICE, CAROL)).ok and reply)
    key = given.body["keys"][0]["key"]

    text = (network.directory / "a" / "journal.jsonl").read_text()

    event = [e for e in map(json.loads, text.splitlines()) if ids(given) == e.get("key_ids")][-1]
    assert (event["event"], event["hops"]) == ("key_delivered", 2)
    assert event["duration_ms"] > 0
    assert key not in text
    assert base64.b64decode(key).hex() not in text
