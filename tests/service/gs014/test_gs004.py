"""GS QKD 004 V2.1.1 in its usual wire form: key streams between two applications, over one hop and over a relay."""

from __future__ import annotations

import json
import ssl
import struct
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from mtls.identity import Identity, Role
from tests.support.gs004_client import NOBODY, Application
from tests.support.waiting import until

SUCCESS, ALONE, TOO_LITTLE, NO_PEER, NO_CONNECTION, IN_USE, TIMEOUT, QOS, METADATA, NOT_OPEN = range(10)
HOMES = {"alice": "a", "adam": "a", "bob": "b", "mallory": "b", "carol": "c", "carl": "c"}


@pytest.fixture
def dial(kmes) -> Iterator:
    """`dial(name)`: a connection of the SAE of that name to its node; all are closed at the end."""
    with ExitStack() as opened:

        def connect(name: str) -> Application:
            found = Application(kmes.saes[name].context, kmes.stack.stream_port(HOMES[name]))
            opened.callback(found.hang_up)
            return found

        yield connect


@pytest.fixture(params=["bob", "carol"], ids=["one hop", "two hops"])
def other(request) -> str:
    """The name of alice's peer."""
    return request.param


@pytest.fixture
def joined(kmes, dial, other):
    """Two applications, and the ID of a stream that both have opened: alice got it, and told it to her peer."""
    alice, peer = dial("alice"), dial(other)
    ids = kmes.ids["alice"], kmes.ids[other]
    opened = alice.open(*ids)
    assert opened.status == SUCCESS
    assert peer.open(*ids, ksid=opened.ksid).status == SUCCESS
    return alice, peer, opened.ksid


def test_both_get_the_same_bits_for_the_same_index(joined):
    """Whoever asks first; as many as were agreed; no two chunks alike."""
    alice, peer, ksid = joined
    chunks = []
    for index in range(6):
        first, second = (alice, peer) if index % 2 else (peer, alice)
        made, fetched = first.get(ksid, index), second.get(ksid, index)
        assert (made.status, made.index, len(made.key)) == (SUCCESS, index, 32)
        assert (fetched.status, fetched.index, fetched.key) == (SUCCESS, index, made.key)
        chunks.append(made.key)

    assert len(set(chunks)) == 6


def test_both_may_ask_at_the_same_moment(joined):
    """For the same index; none of them is told to wait for ever."""
    alice, peer, ksid = joined
    with ThreadPoolExecutor(2) as pool:
        for index in range(8):
            ready = threading.Barrier(2)

            def get(side: Application, index: int = index, ready: threading.Barrier = ready):
                ready.wait()
                return side.get(ksid, index)

            one, two = pool.map(get, (alice, peer))
            assert (one.status, two.status, one.index) == (SUCCESS, SUCCESS, two.index)
            assert one.key == two.key


def test_client_that_always_asks_for_index_0_gets_one_chunk_after_the_other(joined):
    """The answer says which: no chunk is given to a side twice."""
    alice, peer, ksid = joined

    given = [alice.get(ksid) for _ in range(3)]

    assert [chunk.index for chunk in given] == [0, 1, 2]
    assert [peer.get(ksid).key for _ in range(3)] == [chunk.key for chunk in given]


def test_metadata_tell_age_and_trusted_nodes(joined, other):
    """As JSON; room that is too small is said, and nothing is used up."""
    alice, peer, ksid = joined
    assert alice.get(ksid, 0).status == SUCCESS

    small = peer.get(ksid, 0, metadata_size=1)
    told = peer.get(ksid, 0, metadata_size=small.needed)

    assert (small.status, told.status) == (METADATA, SUCCESS)
    about = json.loads(told.metadata)
    assert about["hops"] == (0 if other == "bob" else 1)
    assert 0 <= about["age"] < 60_000
    assert peer.get(ksid, 1).metadata == b""


def test_stream_id_may_have_been_agreed_on(kmes, dial, other):
    """Clause 6.2, case 3: both open with it, in either order, and nothing is sent between them."""
    ids = kmes.ids["alice"], kmes.ids[other]
    for first, second in (("alice", other), (other, "alice")):
        ksid = uuid.uuid4()
        one, two = dial(first), dial(second)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(one.open, *ids, ksid=ksid, timeout_ms=20_000)
            assert two.open(*ids, ksid=ksid).status == SUCCESS
            assert (waiting.result().status, waiting.result().ksid) == (SUCCESS, ksid)
        assert one.get(ksid).key == two.get(ksid).key != b""


def test_second_opener_gets_what_the_first_one_agreed_on(kmes, dial):
    """Clause 6.1: the stored quality of service, whatever the caller sent; TTL is no longer than keys live."""
    alice, bob = dial("alice"), dial("bob")
    ids = kmes.ids["alice"], kmes.ids["bob"]
    first = alice.open(*ids, chunk=64)
    second = bob.open(*ids, ksid=first.ksid, chunk=16)

    assert (first.qos[0], second.qos, second.mimetype) == (64, first.qos, "application/json")
    assert first.qos[6] <= kmes.node("a")["parameters"]["ttl_slots"]
    assert len(bob.get(first.ksid).key) == len(alice.get(first.ksid).key) == 64


def test_peer_that_does_not_come_is_waited_for_and_said(kmes, dial):
    """OPEN_CONNECT succeeds alone (status 1), GET_KEY says that the peer is not there (3); no key is made."""
    alice = dial("alice")
    ids = kmes.ids["alice"], kmes.ids["bob"]
    alone = alice.open(*ids, ksid=uuid.uuid4(), timeout_ms=300)
    assert alone.status == ALONE
    assert alice.get(alone.ksid).status == NO_PEER

    fresh = alice.open(*ids, timeout_ms=300)
    assert fresh.status == SUCCESS
    assert alice.get(fresh.ksid).status == NO_PEER


@pytest.mark.parametrize(
    ("wanted", "there_is"),
    [({"chunk": 4096}, (1024, "application/json")), ({"chunk": 1}, (8, "application/json")),
     ({"mimetype": "text/csv"}, (32, "application/json"))],
    ids=str,
)  # fmt: skip
def test_quality_that_cannot_be_had_is_answered_with_a_proposal(kmes, dial, wanted, there_is):
    """Status 7, and no stream; the proposal can be had."""
    alice = dial("alice")
    ids = kmes.ids["alice"], kmes.ids["bob"]
    refused = alice.open(*ids, **wanted)

    assert (refused.status, refused.ksid, refused.qos[0], refused.mimetype) == (QOS, NOBODY, *there_is)
    assert alice.open(*ids, chunk=refused.qos[0], mimetype=refused.mimetype).status == SUCCESS


def test_bandwidth_that_admission_refuses_is_answered_with_what_there_is(kmes, dial):
    """Min_bps is what the controller is told; it refuses, and the stream is not opened."""
    carl = dial("carl")
    kmes.set_policy(admission="reserve")
    try:
        ids = kmes.ids["carl"], kmes.ids["mallory"]

        def refusal():
            found = carl.open(*ids, chunk=1024, min_bps=1 << 30)
            return found.status == QOS and found

        refused = until(refusal)
    finally:
        kmes.set_policy(admission="none")

    assert 0 <= refused.qos[2] < 1 << 30
    assert refused.ksid == NOBODY


def test_stream_without_a_media_type_has_no_metadata(kmes, dial):
    """Clause 6.1: first byte 0."""
    alice, bob = dial("alice"), dial("bob")
    ids = kmes.ids["alice"], kmes.ids["bob"]
    opened = alice.open(*ids, mimetype="")
    bob.open(*ids, ksid=opened.ksid)

    assert (opened.status, opened.mimetype) == (SUCCESS, "")
    assert alice.get(opened.ksid, metadata_size=1000).metadata == b""


def test_closed_stream_gives_what_was_made_and_no_more(joined):
    """Clause 6.1: the peer closes at its own time."""
    alice, peer, ksid = joined
    made = alice.get(ksid)
    assert alice.close_stream(ksid) == SUCCESS

    assert alice.get(ksid).status == NO_PEER
    assert peer.get(ksid).key == made.key
    assert peer.get(ksid).status == NO_PEER
    assert peer.close_stream(ksid) == SUCCESS
    assert (peer.close_stream(ksid), alice.close_stream(ksid)) == (NOT_OPEN, NOT_OPEN)


def test_stream_of_others_is_in_use_and_gives_them_nothing(joined, dial, kmes, other):
    """Neither by opening it, nor by asking for its chunks; the two go on."""
    alice, peer, ksid = joined
    third = dial({"bob": "mallory", "carol": "carl"}[other])
    name = {"bob": "mallory", "carol": "carl"}[other]

    assert third.get(ksid).status == NO_PEER
    assert third.close_stream(ksid) == NOT_OPEN
    assert third.open(kmes.ids[name], kmes.ids["alice"], ksid=ksid).status == IN_USE
    assert third.open(kmes.ids["alice"], kmes.ids[other], ksid=ksid).status == NO_CONNECTION
    assert third.get(ksid).status == NO_PEER
    assert alice.get(ksid).key == peer.get(ksid).key != b""


@pytest.mark.parametrize("pair", [("nobody", "alice"), ("alice", "nobody"), ("alice", "adam"), ("alice", "alice")])
def test_pair_that_is_none_has_no_connection(kmes, dial, pair):
    """Unknown, at one site, or the same."""
    ids = [kmes.ids.get(name, name) for name in pair]

    assert dial("alice").open(*ids).status == NO_CONNECTION


def test_chunk_leaves_by_no_other_protocol(kmes, joined, alice, other):
    """It is fetched in the stream, and is gone; and what nobody has asked for cannot be guessed: its ID is random."""
    application, peer, ksid = joined
    assert application.get(ksid).key == peer.get(ksid).key
    delivered = [e for e in kmes.journal("a") if e["event"] == "key_delivered" and e.get("protocol") == "gs004"]
    key_id = delivered[-1]["key_ids"][0]

    assert kmes.saes[other].fetch(alice.id, key_id).status == 400
    assert uuid.UUID(key_id).version == 4


def test_sae_id_that_is_no_uuid_stands_in_its_uri(kmes, dial):
    """Percent-encoded, as everywhere (GS QKD 015)."""
    odd = Application(kmes.saes["odd"].context, kmes.stack.stream_port("a"))
    source = "urn:qkd:sae:" + quote(kmes.ids["odd"], safe="")

    assert odd.open(source, kmes.ids["bob"]).status == SUCCESS
    odd.hang_up()


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack("!3BbI", 1, 0, 1, 4, 3) + b"abc", struct.pack("!3BbI", 1, 0, 1, 2, 1 << 30),
     struct.pack("!3BbI", 9, 0, 0, 2, 0), struct.pack("!3BbI", 1, 0, 1, 7, 0), bytes(8)],
    ids=lambda d: str(d[:12]),
)  # fmt: skip
def test_message_that_is_none_ends_its_connection_and_no_other(dial, kmes, data):
    """Whoever sends it."""
    well, wrong = dial("alice"), dial("mallory")
    wrong.send(data)

    assert wrong.ended()
    assert well.open(kmes.ids["alice"], kmes.ids["bob"]).status == SUCCESS


def test_only_saes_of_the_network_are_served(kmes, alice):
    """Not other parties, nor who has no certificate."""
    port = kmes.stack.stream_port("a")
    for role in (Role.NODE, Role.CONTROLLER, Role.OPERATOR):
        credentials = kmes.stack.issue(role, "someone")
        context = ssl.create_default_context(cafile=str(credentials.ca))
        context.load_cert_chain(credentials.certificate, credentials.key)
        refused = Application(context, port)
        assert refused.ended()
        refused.hang_up()
    nobody = ssl.create_default_context(cafile=str(alice.credentials.ca))
    refused = Application(nobody, port)
    with pytest.raises(OSError):  # noqa: PT011 - TLS 1.3 tells it at the first read
        refused.open("a", "b")
    refused.hang_up()


def test_node_speaks_for_saes_of_its_own_site_only(kmes):
    """A hostile node closes no stream of others."""
    caller = kmes.stack.caller(Role.NODE, "c")
    url = f"{kmes.stack.agent('a')}/qkd/v1/streams/{uuid.uuid4()}/close"

    reply = caller.request("POST", url, to=Identity(Role.NODE, "a"), body={"side": kmes.ids["bob"]})
    assert reply.status == 401
    caller.close()


@pytest.mark.parametrize(("other", "victim"), [("bob", "b"), ("carol", "c"), ("carol", "b")])
def test_stream_outlives_a_node_that_dies_and_comes_back(kmes, joined, dial, other, victim):
    """What both had asked for before, and what they ask for then: the same bits for the same index, or none."""
    alice, peer, ksid = joined
    made = alice.get(ksid)
    kmes.restart(victim)
    again = dial(other) if victim == HOMES[other] else peer

    ids = kmes.ids["alice"], kmes.ids[other]
    until(lambda: again.open(*ids, ksid=ksid).status in (SUCCESS, IN_USE))
    assert again.get(ksid, made.index).key in (made.key, b"")

    def both() -> bool:
        one = alice.get(ksid)
        two = again.get(ksid, one.index)
        return one.status == two.status == SUCCESS and one.index == two.index and one.key == two.key != made.key

    until(both)


def test_stream_that_its_own_node_forgot_is_none_for_both_and_another_one_opens(kmes, joined, dial, other):
    """The node that kept it is killed: no chunk comes twice, and none to one side alone."""
    alice, peer, ksid = joined
    first = alice.get(ksid)
    assert peer.get(ksid).key == first.key
    kmes.restart("a")
    again = dial("alice")

    assert {again.get(ksid).status, peer.get(ksid).status} == {NO_PEER}

    ids = kmes.ids["alice"], kmes.ids[other]
    opened = until(lambda: (found := again.open(*ids)).status == SUCCESS and found)
    assert peer.open(*ids, ksid=opened.ksid).status == SUCCESS
    chunk = until(lambda: (found := again.get(opened.ksid)).status == SUCCESS and found)
    assert peer.get(opened.ksid, chunk.index).key == chunk.key != first.key
