"""The KME's decisions where real nodes seldom get to: a stock beyond the limit, keys that are gone, mixed owners."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decisions.ranges import Allocation, Instruction, Range, Shortage
from documents.checks import Malformed
from documents.secret import Secret
from etsi.gs014 import KEYS_NOT_FOUND, KeyRequest, Limits
from mtls import deadline
from node.associations.sessions import Session, over
from node.config import Parameters
from node.failures import (
    DatabaseChanged,
    DatabaseUnreachable,
    KeyFailure,
    PathDown,
    ShortOfMaterial,
    TooFewPaths,
    TooLate,
)
from node.material.blocks import Block, boottime
from node.material.key_store import KeyStore, RelayedKey
from node.material.losses import Losses
from node.material.shared_db import Foreign, NotFound
from node.serving.fetching import Unauthorized
from node.serving.kme import Kme
from node.serving.requested_bytes import Requested
from node.tree.performance import Performance
from telemetry.journal import Journal
from tests.support.waiting import until

ALICE, ADAM, BOB, MALLORY = (f"{n:08d}-0000-4000-8000-000000000000" for n in range(4))
KSID = "99999999-0000-4000-8000-000000000000"
KEYS = [f"{n:08d}-1111-4000-8000-000000000000" for n in range(3)]
QC = "a-b/1"
OVER_B = Session(KSID, ALICE, BOB, ("a", "b", "c"), (QC, "b-c/1"), "link")


class Network:
    """The shared database, and the one session of alice and bob, as the KME asks for them."""

    def __init__(self) -> None:
        self.available_bytes = self.limit = 0
        self.instructions: dict[str, Instruction] = {}
        self.poisoned: set[str] = set()

    def has(self, key_id: str, *, master: str, slave: str, where: Range) -> None:
        """A single-hop key that waits for its slave."""
        self.instructions[key_id] = Instruction(key_id, key_id, KSID, master, slave, where, asked=True)

    def available(self, qcs: tuple[str, ...]) -> dict[str, int]:
        """Bytes that could be allocated."""
        return dict.fromkeys(qcs, self.available_bytes)

    def deliver(self, master: str, slave: str, key_ids: list[str]) -> tuple[list[Instruction], list[str]]:
        """As qkd_deliver: a foreign key goes before a missing one; all or none, once."""
        known = [self.instructions[k] for k in key_ids if k in self.instructions]
        if any(k.slave_sae != slave for k in known):
            raise Foreign
        if len(known) < len(key_ids) or any(k.master_sae != master for k in known):
            raise NotFound
        found = [self.instructions.pop(k) for k in key_ids]
        return [i for i in found if i.key_id not in self.poisoned], [*self.poisoned.intersection(key_ids)]

    def allocate(self, request: str, needs: list[tuple[str, int]], **_: object) -> Allocation | Shortage:
        """Ranges, if none is larger than `limit` bytes."""
        short = [Shortage(qc, n - self.limit) for qc, n in needs if n > self.limit]
        return short[0] if short else Allocation(request, "", [Range(qc, 0, n) for qc, n in needs])

    collect = staticmethod(lambda _: ([], []))
    max_bps = min_bps = check_path = staticmethod(lambda *_: None)

    def session(self, *_: object) -> Session:
        """That of the pair, which `of` finds a route for."""
        return Session(KSID, ALICE, BOB, ("a", "b"), (QC,), "link")

    of = staticmethod(lambda session, _: session)
    led = staticmethod(lambda *_: None)
    forget = staticmethod(lambda _: None)
    ksid = staticmethod(lambda *_: KSID)


@pytest.fixture
def store(tmp_path: Path):
    """Bob's node holds the first 64 bytes of the QC's stream."""
    found = KeyStore(tmp_path / "local.db", tmp_path / "node.key", ttl_slots=15)
    found.follow("")
    found.store(Block(QC, 0, 1, 0, Secret(bytes(range(64))), made=boottime()), b"")
    yield found
    found.close()


@pytest.fixture
def network() -> Network:
    """The rest of the world."""
    return Network()


@pytest.fixture
def losses(tmp_path: Path) -> Losses:
    """What bob's node loses."""
    return Losses(Journal(tmp_path / "losses.jsonl", "node:b"))


@pytest.fixture
def kme(store: KeyStore, network: Network, losses: Losses, tmp_path: Path) -> Kme:
    """That of bob's node."""
    journal = Journal(tmp_path / "journal.jsonl", "node:b")
    made = Kme(
        "b", saes={ALICE: "a", ADAM: "a", BOB: "b", MALLORY: "b"}, limits=Limits(max_key_count=100), store=store,
        shared=network, sessions=network, routes=network, relay=SimpleNamespace(),
        performance=Performance(store.held), requested=Requested(), losses=losses, parameters=Parameters,
        journal=journal,
    )  # fmt: skip
    made.collect()
    return made


def originate(*_: object, key_ids: Sequence[str], **__: object) -> list[Secret]:
    """As a relay, which has made all of them."""
    return [Secret(bytes(16)) for _ in key_ids]


@pytest.fixture
def ahead(store: KeyStore, network: Network, tmp_path: Path) -> Kme:
    """That of alice's node, which makes keys over two hops ahead."""
    journal = Journal(tmp_path / "journal.jsonl", "node:a")
    return Kme(
        "a", saes={ALICE: "a", BOB: "b"}, limits=Limits(), store=store, shared=network, sessions=network,
        routes=network, relay=SimpleNamespace(originate=originate, least_s=lambda *_: 0.0),
        performance=Performance(store.held), requested=Requested(), losses=Losses(journal),
        parameters=lambda: Parameters(mode="qkp"), journal=journal,
    )  # fmt: skip


def test_pool_is_refilled_by_one_request_at_a_time_though_its_session_ends_meanwhile(ahead, network, monkeypatch):
    """Whoever asks then waits for its turn as before, and leaves nothing behind for a session that is over."""
    network.limit = 1000
    begun, go = [], threading.Event()

    def slow(*args: object, **facts: Any) -> list[Secret]:
        begun.append(facts)
        go.wait(20)
        return originate(*args, **facts)

    monkeypatch.setattr(ahead._relay, "originate", slow)
    refill = threading.Thread(target=ahead.get_keys, args=(OVER_B, KeyRequest(1, 128)), daemon=True)
    refill.start()
    until(lambda: begun)
    ahead.end_session(KSID)

    try:
        with deadline.until(time.monotonic() + 0.5), pytest.raises(TooLate):
            ahead.get_keys(OVER_B, KeyRequest(1, 128))
        assert len(begun) == 1
    finally:
        go.set()
    refill.join(20)
    assert not ahead._delivery._refilling._of


def test_request_that_is_tried_again_for_fewer_keys_counts_once(ahead, network):
    """In QKP a batch of four is too much for what there is, one key is not: that one alone is asked of the QCs."""
    requested, session, kme = ahead._delivery._requested, OVER_B, ahead
    network.limit = 40

    kme.get_keys(session, KeyRequest(1, 128))
    assert requested.totals() == {QC: 32, "b-c/1": 16}

    network.limit = 10
    for _ in range(3):
        with pytest.raises(ShortOfMaterial):
            kme.get_keys(session, KeyRequest(1, 128))
    assert requested.totals() == {QC: 2 * 32, "b-c/1": 2 * 16}


def test_nothing_is_allocated_for_keys_that_cannot_be_relayed_in_the_time_that_is_left(kme, network):
    """Over one hop they could be made."""
    network.limit = 1000
    kme._delivery._relay = SimpleNamespace(least_s=lambda links, _: 10.0 * links)
    session = Session(KSID, ALICE, BOB, ("b", "a", "c"), (QC, "a-c/1"), "link")

    with deadline.until(time.monotonic() + 15), pytest.raises(TooLate):
        kme.get_keys(session, KeyRequest(1, 128))
    assert kme._losses.by_qc() == {}


@pytest.mark.parametrize(("stored_bytes", "counted"), [(0, 0), (31, 0), (99 * 32, 99), (100 * 32, 100), (1 << 20, 100)])
def test_stored_key_count_is_of_whole_keys_and_never_exceeds_max_key_count(kme, network, stored_bytes, counted):
    """Keys of key_size bits, rounded down; max_key_count is the upper bound (clause 6.1)."""
    network.available_bytes = stored_bytes

    status = kme.status(BOB, ALICE)

    assert (status.stored_key_count, status.max_key_count) == (counted, 100)


def test_status_promises_no_key_that_a_request_would_not_get(kme, network):
    """The path is down: whatever is in stock, the request for keys is answered so."""
    network.available_bytes = 1 << 20

    def down(*_: str) -> None:
        raise PathDown("no path")

    network.check_path = down

    assert kme.status(BOB, ALICE).stored_key_count == 0


@pytest.mark.parametrize("failure", [DatabaseUnreachable("no answer"), DatabaseChanged("another server")])
def test_allocation_whose_answer_did_not_come_is_lost_by_qc_once_the_database_tells_of_it(
    kme, network, losses, failure
):
    """Then it is known whether there is one, and of which ranges."""
    asked_for: list[str] = []

    def allocate(*_: object, key_ids: list[str], **__: object) -> Allocation:
        asked_for.extend(key_ids)
        raise failure

    network.allocate = allocate
    network.cost = lambda key_ids: [(key_id, "r", Range(QC, 16 * i, 16 * i + 16)) for i, key_id in enumerate(key_ids)]
    with pytest.raises(type(failure)):
        kme.get_keys(network.session(), KeyRequest(3, 128))
    assert losses.by_qc() == {}
    kme.settle_losses()

    assert len(asked_for) == 3
    assert losses.by_qc() == {QC: 48}


def test_allocation_that_was_refused_at_a_second_try_is_lost_if_the_first_was_granted(kme, network, losses):
    """The database got it late. A refusal at the first try is all there is to it."""
    network.cost = lambda key_ids: [(key_id, "r", Range(QC, 16 * i, 16 * i + 16)) for i, key_id in enumerate(key_ids)]
    for in_doubt, lost in ((False, {}), (True, {QC: 48})):
        network.allocate = lambda *_, in_doubt=in_doubt, **__: Shortage(QC, 16, in_doubt=in_doubt)
        with pytest.raises(ShortOfMaterial):
            kme.get_keys(network.session(), KeyRequest(3, 128))
        kme.settle_losses()

        assert losses.by_qc() == lost


def test_key_whose_bytes_are_gone_cannot_be_returned_and_others_stay(kme, network, losses):
    """400 with the standard's message (clause 6.4), as for any key that is not there; the details say why."""
    network.has(KEYS[0], master=ALICE, slave=BOB, where=Range(QC, 0, 32))
    network.has(KEYS[1], master=ALICE, slave=BOB, where=Range(QC, 64, 96))

    with pytest.raises(KeyFailure, match=f"^{KEYS_NOT_FOUND}$") as failure:
        kme.get_keys_by_id(BOB, ALICE, KEYS[:2])

    assert failure.value.status == 400
    assert failure.value.details() == {"cause": "expired", "qc": QC, "node": "b"}
    assert losses.by_qc() == {QC: 32}, "its master may have it, but nobody else"
    ((_, key),) = kme.get_keys_by_id(BOB, ALICE, KEYS[:1])
    assert key.reveal() == bytes(range(32))


def test_key_of_which_the_database_says_nothing_that_makes_sense_is_lost_and_others_stay(kme, network, losses):
    """400, as for any key that is not there; those that were asked for with it can be asked for without it."""
    for i in (0, 1):
        network.has(KEYS[i], master=ALICE, slave=BOB, where=Range(QC, 32 * i, 32 * i + 32))
    network.poisoned = {KEYS[0]}
    network.cost = lambda key_ids: [(key_id, "r", Range(QC, 0, 32)) for key_id in key_ids]

    with pytest.raises(Malformed, match=f"^{KEYS_NOT_FOUND}$"):
        kme.get_keys_by_id(BOB, ALICE, KEYS[:2])
    kme.settle_losses()

    assert losses.by_qc() == {QC: 32}
    ((_, key),) = kme.get_keys_by_id(BOB, ALICE, KEYS[1:2])
    assert key.reveal() == bytes(range(32, 64))


def test_foreign_key_is_unauthorized_beside_one_that_waits_here_for_another_masters_url(kme, store, network):
    """401 if any known ID is foreign, wherever each of them lies; nothing is delivered."""
    store.put_relayed([RelayedKey(KEYS[0], KSID, ADAM, BOB, Secret(bytes(32)), boottime())])
    network.has(KEYS[1], master=ALICE, slave=MALLORY, where=Range(QC, 0, 32))
    network.has(KEYS[2], master=ALICE, slave=BOB, where=Range(QC, 32, 64))

    with pytest.raises(Unauthorized):
        kme.get_keys_by_id(BOB, ALICE, KEYS)

    assert [key_id for key_id, _ in kme.get_keys_by_id(BOB, ADAM, KEYS[:1])] == KEYS[:1]
    assert [key_id for key_id, _ in kme.get_keys_by_id(BOB, ALICE, KEYS[2:])] == KEYS[2:]


def over_paths(*short: str) -> Session:
    """Of alice and bob: over their link, and by way of c and of d; those named are short."""
    paths = [(("a", "b"), (QC,)), (("a", "c", "b"), ("a-c/1", "c-b/1")), (("a", "d", "b"), ("a-d/1", "d-b/1"))]
    return over([Session(KSID, ALICE, BOB, nodes, qcs, "link") for nodes, qcs in paths if not set(qcs) & set(short)])


@pytest.fixture
def several(store: KeyStore, network: Network, tmp_path: Path) -> Kme:
    """That of alice's node, in a mode for which two of three paths are enough. `short` lack key material."""
    journal = Journal(tmp_path / "journal.jsonl", "node:a")
    found = Kme(
        "a", saes={ALICE: "a", BOB: "b"}, limits=Limits(), store=store, shared=network, sessions=network,
        routes=network, relay=SimpleNamespace(originate=originate, least_s=lambda *_: 0.0),
        performance=Performance(store.held), requested=Requested(), losses=Losses(journal),
        parameters=lambda: Parameters(mode="paths-2of3"), journal=journal,
    )  # fmt: skip
    network.limit = 1000
    return found


@pytest.mark.parametrize("short", [QC, "a-c/1", "d-b/1"])
def test_path_that_is_short_is_left_out_where_others_are_enough(several, network, monkeypatch, short):
    """All or nothing is allocated on the other two."""
    asked, allocate = [], network.allocate

    def allocate_but_one(request: str, needs: list[tuple[str, int]], **facts: object) -> Allocation | Shortage:
        asked.append([qc for qc, _ in needs])
        return Shortage(short, 16) if short in asked[-1] else allocate(request, needs, **facts)

    monkeypatch.setattr(network, "allocate", allocate_but_one)

    assert len(several.get_keys(over_paths(), KeyRequest(1, 128)).keys) == 1
    assert asked == [list(over_paths().qcs), list(over_paths(short).qcs)]


def test_two_paths_of_three_that_are_short_are_a_shortage(several, network, monkeypatch):
    """One part is no key."""
    monkeypatch.setattr(
        network, "allocate", lambda _, needs, **__: next(Shortage(qc, 16) for qc, _ in needs if qc != "d-b/1")
    )

    with pytest.raises(ShortOfMaterial):
        several.get_keys(over_paths(), KeyRequest(1, 128))


def test_session_with_fewer_paths_than_enough_gets_no_key(several, network, monkeypatch):
    """The cause says how many there are; status tells of no keys."""
    one = over_paths("a-c/1", "a-d/1")
    network.available_bytes = 1000

    with pytest.raises(TooFewPaths) as failure:
        several.get_keys(one, KeyRequest(1, 128))

    assert (failure.value.facts["needed"], failure.value.facts["paths"]) == (2, 1)
    monkeypatch.setattr(network, "session", lambda *_: one)
    assert several.status(ALICE, BOB).stored_key_count == 0


def test_session_of_too_few_paths_gets_its_key_over_those_that_the_controller_leads_it_over(several, network):
    """The mode was set a moment ago. What was known of the route is forgotten; the journal has what the key went over.
    """
    forgotten: list[str] = []
    network.led = lambda ksid, links: over_paths() if (ksid, links) == (KSID, 2) else None
    network.forget = forgotten.append

    delivered = several.get_keys(over_paths("a-c/1", "a-d/1"), KeyRequest(1, 128))

    assert len(delivered.keys) == 1
    assert (delivered.mode, delivered.hops) == ("paths-2of3", 2)
    assert forgotten == [KSID]
