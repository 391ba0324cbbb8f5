"""How old relayed keys are: for the first node that makes them, and for the last node that hears of them."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decisions.modes import BASIC, QKP, RELAYED, Mode
from decisions.ranges import Allocation, Range
from documents.checks import Malformed
from documents.secret import Secret
from mtls import deadline
from mtls.call import Reply, Unreachable
from node.associations.sessions import Association, Session
from node.failures import MaterialExpired, RelayBroken
from node.limits import CHECKS_PER_NODE, RELAYS_PER_NODE
from node.material.blocks import Block
from node.material.key_store import KeyStore, RelayedKey
from node.relaying.ciphers import proof
from node.relaying.exchange import Exchange
from node.relaying.last_node import LastNode
from node.relaying.relay import Relay
from node.relaying.relayed_keys import Relayed
from node.tree.performance import Performance
from telemetry import bugs
from telemetry.journal import Journal

KSID, LINK, REQUEST, KEY_ID, ALICE, CAROL = (str(uuid.uuid4()) for _ in range(6))
QCS = "a-b/1", "b-c/1"
KEY_BYTES, TTL = 16, 15
VALUE = "5ec2e7"
REQUEST_S = 4.0  # what a request may take at these nodes


class Clock:
    """A node's, which the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class Node:
    """Node `name` of the path a, b, c in the clock's time, with bytes of its QCs; `sent`: what it said to others."""

    round_trip_s = 0.0
    measured_s = staticmethod(lambda party: {"b": 0.3, "c": 5.0}[party.name])

    def __init__(self, name: str, directory: Path, clock: Clock) -> None:
        directory.mkdir()
        self.sent: list[dict[str, Any]] = []
        self.on_send = lambda: None
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=TTL, clock=clock)
        self.store.follow("server")
        for qc in QCS:
            self.store.store(Block(qc, 0, 0, 0, Secret(bytes(1000)), made=clock.now), b"")
        self.session = Association(KSID, ALICE, CAROL, "a", "c", (LINK,))
        performance, journal = Performance(self.store.held), Journal(directory / "journal.jsonl", name)
        exchange = Exchange(
            name, nodes={n: f"https://{n}" for n in "abc"}, caller=self, store=self.store, performance=performance,
            secret=lambda: None, answer_s=lambda: REQUEST_S, journal=journal,
        )  # fmt: skip
        as_last = LastNode(name, sessions=self, store=self.store, answer_s=lambda: REQUEST_S, journal=journal)
        self.relay = Relay(exchange, as_last, store=self.store, routes=None, performance=performance)

    def request(self, _: str, url: str, **options: Any) -> Reply:
        """As Caller.request: whoever is called has done what it should."""
        self.on_send()
        self.sent.append({"url": url, **options["body"]})
        return Reply(204, None)

    def get(self, _: str) -> Association:
        """As Sessions.get."""
        return self.session

    def originate(self, mode: Mode, at: int = 0) -> list[Secret]:
        """Make a key, as first node; of ranges that begin there."""
        ranges = [Range(qc, at, at + n) for qc, n in mode.needs(QCS, KEY_BYTES, 1)]
        session = Session(KSID, ALICE, CAROL, ("a", "b", "c"), QCS, LINK)
        return self.relay.originate(
            session, mode, Allocation(REQUEST, "server", ranges, ["", ""]), key_ids=[KEY_ID], key_bytes=KEY_BYTES
        )


@pytest.fixture
def clock() -> Clock:
    """It stands at 1000 s."""
    return Clock()


@pytest.fixture
def first(tmp_path: Path, clock: Clock):
    """Node a."""
    node = Node("a", tmp_path / "a", clock)
    yield node
    node.store.close()


def test_time_that_a_relay_needs_depends_on_the_next_node_alone(first, monkeypatch):
    """Not on the longest round trip of the network, nor on a node that makes believe that it is far away."""
    monkeypatch.setattr(first, "round_trip_s", 10.0)

    assert 0.3 < first.relay.least_s(3, "b") < 0.4
    assert first.relay.least_s(3, "c") > 5.0


@pytest.mark.parametrize("mode", [BASIC, QKP], ids=lambda mode: mode.name)
def test_last_node_is_told_how_old_the_keys_are(first, clock, mode):
    """As long as the relay has taken."""
    first.on_send = lambda: setattr(clock, "now", clock.now + 1.5)

    assert len(first.originate(mode)) == 1

    assert first.sent[-1]["url"] == f"https://c/qkd/v1/relay/{REQUEST}/keys"
    assert first.sent[-1]["age_ms"] == 1500


@pytest.mark.parametrize("mode", [BASIC, QKP, RELAYED], ids=lambda mode: mode.name)
def test_key_that_grew_too_old_on_its_way_is_given_to_nobody(first, clock, mode):
    """Its slave may come too late."""
    first.on_send = lambda: setattr(clock, "now", clock.now + 12.0)

    with pytest.raises(MaterialExpired):
        first.originate(mode)


def test_key_of_an_id_that_came_to_wait_meanwhile_is_refused(tmp_path, clock, monkeypatch):
    """A hostile first node announces two keys of one ID at the same moment: that is no bug of ours."""
    first, last = Node("a", tmp_path / "a", clock), Node("c", tmp_path / "c", clock)
    first.originate(BASIC)
    last.store.put_relayed([RelayedKey(KEY_ID, KSID, ALICE, CAROL, Secret(b"before"), clock.now)])
    monkeypatch.setattr(last.store, "relayed_owners", lambda _: {})  # as it was a moment before
    last.relay.as_last.arrivals.put(REQUEST, Relayed(Secret(bytes(KEY_BYTES)), KSID))

    with pytest.raises(Malformed, match="key_ID"):
        last.relay.as_last.accept_keys("a", REQUEST, first.sent[-1])

    assert [key.key.reveal() for key in last.store.take_relayed([KEY_ID])] == [b"before"]


def test_key_lives_at_the_last_node_for_a_ttl_from_its_making(tmp_path, clock):
    """Not from its arrival."""
    first, last = Node("a", tmp_path / "a", clock), Node("c", tmp_path / "c", clock)
    first.originate(QKP)
    last.relay.as_last.arrivals.put(REQUEST, Relayed(Secret(bytes(KEY_BYTES)), KSID))

    assert last.relay.as_last.accept_keys("a", REQUEST, first.sent[-1] | {"age_ms": 4000})

    clock.now += TTL - 4.1
    assert last.store.relayed_owners([KEY_ID])
    clock.now += 0.1
    assert last.store.take_relayed([KEY_ID]) is None
    for node in (first, last):
        node.store.close()


@pytest.mark.parametrize(("after_s", "there"), [(REQUEST_S - 0.01, True), (REQUEST_S + 0.01, False)])
def test_what_was_relayed_waits_for_its_first_node_as_long_as_a_request_may_take(tmp_path, clock, after_s, there):
    """Whatever the TTL is: by then its first node has given it up. Then it is erased, though nobody asks for it."""
    first, last = Node("a", tmp_path / "a", clock), Node("c", tmp_path / "c", clock)
    first.originate(QKP)
    relayed = Relayed(Secret(bytes(KEY_BYTES)), KSID)
    last.relay.as_last.arrivals.put(REQUEST, relayed)
    clock.now += after_s
    last.relay.as_last.expire()

    assert (len(relayed.secret) > 0) == there
    assert last.relay.as_last.accept_keys("a", REQUEST, first.sent[-1]) == there
    for node in (first, last):
        node.store.close()


class Asleep:
    """As Caller.request: the last node does not answer checks until `go`; `relay` is what the next node does."""

    def __init__(self, relay: Callable[[], None]) -> None:
        self.relay = relay
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.begun = self.under_way = 0  # checks

    def request(self, _: str, url: str, **__: Any) -> Reply:
        """What is told to nodes."""
        if not url.endswith("/check"):
            self.relay()
        elif deadline.left(1.0) < 0:
            raise Unreachable(url, "no time is left to ask")
        else:
            with self.lock:
                self.begun, self.under_way = self.begun + 1, self.under_way + 1
            self.go.wait(20)
            with self.lock:
                self.under_way -= 1
        return Reply(204, None)


def unreachable() -> None:
    """The next node is."""
    raise Unreachable("https://b", "connection refused")


def test_checks_that_outlive_their_relays_keep_so_many_threads(first, monkeypatch):
    """A request that fails at once leaves a check behind; an SAE that tries again and again must not take them all."""
    asleep = Asleep(unreachable)
    monkeypatch.setattr(first, "request", asleep.request)

    try:
        for i in range(2 * CHECKS_PER_NODE):
            with pytest.raises(RelayBroken):
                first.originate(RELAYED, at=i * KEY_BYTES)
        assert 0 < asleep.begun <= CHECKS_PER_NODE
    finally:
        asleep.go.set()


def test_key_for_which_no_thread_is_left_is_checked_after_its_relay(first, monkeypatch):
    """No key is given away unchecked."""
    monkeypatch.setattr(first.relay._exchange._places, "take", lambda *_: False)

    assert len(first.originate(RELAYED)) == 1

    assert [sent["url"].rpartition("/")[2] for sent in first.sent] == [REQUEST, "check"]


def test_request_waits_for_its_check_until_its_deadline(first, monkeypatch):
    """Whatever the thread of the check is at."""
    asleep = Asleep(lambda: None)
    monkeypatch.setattr(first, "request", asleep.request)

    try:
        with deadline.until(time.monotonic() + 0.3), pytest.raises(RelayBroken, match="no time is left"):
            first.originate(RELAYED)
        assert asleep.under_way == 1
    finally:
        asleep.go.set()


def test_bug_in_a_check_that_nobody_waits_for_is_told(first, monkeypatch, caplog):
    """The relay has failed by then."""

    def request(_: str, url: str, **__: Any) -> Reply:
        if url.endswith("/check"):
            raise ValueError(VALUE)
        raise Unreachable(url, "connection refused")

    monkeypatch.setattr(first, "request", request)
    with pytest.raises(RelayBroken):
        first.originate(RELAYED)

    first.relay._exchange._threads.shutdown()
    assert f"telling node c of a check value: {bugs.MARK}, ValueError" in caplog.text
    assert VALUE not in caplog.text


def test_relays_to_a_node_that_does_not_answer_keep_so_many_threads(tmp_path, clock):
    """More are refused at once, before they take material; their first nodes try again."""
    node, go = Node("b", tmp_path / "b", clock), threading.Event()
    node.on_send, node.measured_s = lambda: go.wait(20), lambda _: 0.0  # no node is far away
    node.relay._routes = SimpleNamespace(next_hop=lambda *_: "c", joins=lambda *_: True)
    node.relay._exchange._secret = lambda: b"secret"

    def forward(i: int) -> str:
        request, ranges = str(uuid.uuid4()), [Range(qc, i * KEY_BYTES, (i + 1) * KEY_BYTES) for qc in QCS]
        document = {
            "link": LINK, "ksid": KSID, "server": "server", "position": 1, "sealed": None,
            "ranges": [{"qc": r.qc, "epoch": r.epoch, "start": r.start, "end": r.end} for r in ranges],
            "proofs": [proof(b"secret", request, "server", position=1, hops=2, around=ranges), ""],
        }  # fmt: skip
        try:
            node.relay.forward("a", request, document)
        except RelayBroken as failure:
            return str(failure)
        return ""

    with ThreadPoolExecutor(RELAYS_PER_NODE + 4) as pool:
        relays = [pool.submit(forward, i) for i in range(RELAYS_PER_NODE + 4)]
        try:
            refused = [relay.result() for relay in itertools.islice(as_completed(relays), 4)]
        finally:
            go.set()

    assert all("too many keys are being relayed here at once" in text for text in refused)
    assert [relay.result() for relay in relays].count("") == RELAYS_PER_NODE
    node.store.close()
