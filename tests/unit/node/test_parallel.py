"""Mode `parallel`: nodes of a path in one process, with stores of their own, who answer one another directly."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decisions.ranges import Range
from documents.secret import Secret
from mtls.call import Reply
from node.failures import KeyFailure, RelayAltered, RelayBroken
from node.limits import PARTS_BYTES_PER_NODE, RELAYS_PER_NODE
from node.relaying.relayed_keys import Arrivals, Relayed
from tests.support.relay_line import KEY_BYTES, KSID, LINK, STORED, Line
from tests.support.waiting import until


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Line]]:
    """Makes them; what waits at a last node waits shortly."""
    monkeypatch.setattr("node.relaying.relayed_keys.CLAIM_S", 0.05)
    made: list[Line] = []

    def build(hops: int) -> Line:
        made.append(Line(tmp_path, hops))
        return made[-1]

    yield build
    for line in made:
        line.close()


@pytest.mark.parametrize("hops", [2, 3, 4, 7])
def test_slave_has_the_keys_that_the_first_node_made(lines, hops):
    """Over any number of hops, one key or several; each link gives as many bytes as the keys have."""
    line = lines(hops)

    first, more = line.key(), None
    assert line.at_last() == first
    more = line.key(3)
    assert line.at_last() == more

    assert len({*first, *more}) == 4
    for name in line.names:
        links = 1 if name in (line.names[0], line.names[-1]) else 2
        assert line.left(name) == links * (STORED - 4 * KEY_BYTES)


def test_no_node_waits_for_the_one_before_it(lines):
    """The first node tells all of them; each tells the last one."""
    line = lines(4)
    line.key()

    assert sorted(line.said) == sorted(
        [("n0", n, "pads") for n in ("n1", "n2", "n3")] + [(n, "n4", "difference") for n in ("n1", "n2", "n3")]
        + [("n0", "n4", "sealed")]
    )  # fmt: skip


@pytest.mark.parametrize("first", ["sealed", "difference"])
def test_parts_may_come_in_any_order(lines, monkeypatch, first):
    """The first node's, which waits for those of the others, or the others', which wait for it."""
    monkeypatch.setattr("node.relaying.relayed_keys.CLAIM_S", 60.0)
    line = lines(3)
    arrivals = line.nodes["n3"].relay.as_last.arrivals

    def hold(_: str, __: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what not in {first, "pads"}:
            until(lambda: arrivals.waiting == 1 if first == "sealed" else len(arrivals._found) == 2)
        return body

    line.on_the_way = hold

    assert line.key() == line.at_last()


def test_where_no_thread_is_left_one_node_is_told_after_the_other(lines, monkeypatch):
    """And the key is the same at both ends."""
    line = lines(4)
    monkeypatch.setattr(line.nodes["n0"].relay._exchange._places, "take", lambda *_: False)

    assert line.key() == line.at_last()


def test_where_too_many_wait_at_the_last_node_it_is_asked_again(lines, monkeypatch):
    """When all have said that they sent theirs."""
    line = lines(3)
    monkeypatch.setattr("node.relaying.relayed_keys.CLAIMS", 0)

    assert line.key() == line.at_last()


@pytest.mark.parametrize("liar", ["n1", "n2", "n3"])
def test_difference_that_a_node_alters_is_noticed(lines, liar):
    """Wherever it stands: nobody has a key of it, and the whole way is named."""
    line = lines(4)

    def alter(sender: str, _: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"difference": "A" * 22 + "=="} if (sender, what) == (liar, "difference") else body

    line.on_the_way = alter
    with pytest.raises(RelayAltered) as failure:
        line.key()

    assert failure.value.facts["path"] == "n0 - n1 - n2 - n3 - n4"
    assert line.at_last() == []


@pytest.mark.parametrize("liar", ["n1", "n2", "n3"])
def test_node_that_sends_nothing_and_says_it_did_is_named(lines, liar):
    """By the last node, which knows who did."""
    line = lines(4)
    line.on_the_way = lambda sender, _, what, body: None if (sender, what) == (liar, "difference") else body

    with pytest.raises(RelayBroken) as failure:
        line.key()

    assert failure.value.facts["node"] == liar
    assert line.at_last() == []


@pytest.mark.parametrize("gone", ["n1", "n3"])
def test_failure_of_a_node_between_is_told_at_once(lines, monkeypatch, gone):
    """The first node does not wait until the last one has given up."""
    monkeypatch.setattr("node.relaying.relayed_keys.CLAIM_S", 60.0)
    line = lines(4)
    line.nodes[gone].store.take([Range(line.qcs[int(gone[1])], 0, 8)], "another", "server")

    with pytest.raises(KeyFailure) as failure:
        line.key()

    assert (failure.value.cause, failure.value.facts["node"]) == ("expired", gone)


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "bytes of nobody": lambda body: {"ranges": [_moved(r) for r in body["ranges"]]},
    "one pad": lambda body: {"ranges": body["ranges"][:1]},
    "the same pad twice": lambda body: {"ranges": [body["ranges"][0]] * 2},
    "a pad that is shorter": lambda body: {"ranges": [body["ranges"][0], body["ranges"][1] | {"end": 8}]},
    "another place": lambda body: {"position": body["position"] % 2 + 1},
    "a longer path": lambda body: {"hops": body["hops"] + 1},
    "another server": lambda _: {"server": "another"},
    "a proof made up": lambda _: {"proof": "0" * 64},
    "to itself": lambda body: {"to": f"n{body['position']}"},
    "to nobody": lambda _: {"to": "nobody"},
}


def _moved(r: dict[str, Any]) -> dict[str, Any]:
    return r | {"start": r["start"] + KEY_BYTES, "end": r["end"] + KEY_BYTES}


@pytest.mark.parametrize("name", CHANGES)
def test_node_between_takes_only_what_was_allocated(lines, name):
    """It refuses before it takes a byte."""
    line = lines(3)

    def change(_: str, to: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        return body | CHANGES[name](body) if (to, what) == ("n2", "pads") else body

    line.on_the_way = change
    with pytest.raises(RelayBroken):
        line.key()

    assert line.left("n2") == 2 * STORED
    assert line.at_last() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda path: {"pad": path["pad"] | {"ranges": [_moved(r) for r in path["pad"]["ranges"]]}},
        lambda path: {"pad": path["pad"] | {"ranges": path["pad"]["ranges"] * 2}},
        lambda path: {"pad": path["pad"] | {"link": str(uuid.uuid4())}},
        lambda path: {"pad": path["pad"] | {"proof": "0" * 64}},
        lambda path: {"pad": path["pad"] | {"sealed": "AAAA"}},
        lambda path: {"nodes": path["nodes"][::-1]},
        lambda path: {"nodes": [*path["nodes"], path["nodes"][0]]},
        lambda path: {"nodes": path["nodes"][1:]},
        lambda _: {"nodes": []},
    ],
    ids=["bytes of nobody", "two pads", "another link", "made up", "too short", "another order", "twice", "too few",
         "none"],
)  # fmt: skip
def test_last_node_takes_only_what_was_allocated(lines, change):
    """It refuses before it takes a byte."""
    line = lines(3)

    def alter(_: str, __: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what != "sealed" or "pad" not in body["paths"][0]:
            return body
        return body | {"paths": [body["paths"][0] | change(body["paths"][0])]}

    line.on_the_way = alter

    with pytest.raises(RelayBroken):
        line.key()

    assert line.left("n3") == STORED
    assert line.at_last() == []


def test_what_is_sent_twice_gives_no_second_key(lines):
    """The pads are gone, and the first node's order is of no use any more."""
    line, kept = lines(3), []
    line.on_the_way = lambda *said: kept.append(said) or said[3]
    line.key()
    first = line.at_last()
    left = [line.left(name) for name in line.names]
    line.on_the_way = lambda *said: said[3]

    for sender, to, what, body in kept:
        path = f"qkd/v1/relay/{uuid.uuid4()}/{what}"  # of another request, too
        assert not line.say(sender, to, path, body).ok or what == "difference"

    assert first
    assert [line.left(name) for name in line.names] == left


def test_node_that_sends_more_than_it_is_asked_for_is_refused(lines):
    """It keeps the room of no other node."""
    line = lines(3)
    body = {"ksid": KSID, "link": LINK, "difference": "AAAA" * 4096}

    def send(sender: str) -> Reply:
        return line.say(sender, "n3", f"qkd/v1/relay/{uuid.uuid4()}/difference", body)

    for _ in range(PARTS_BYTES_PER_NODE // (3 * 4096 + 1024)):
        assert send("n1").ok
    assert (send("n1").status, send("n1").detail("node")) == (503, "n1")

    assert send("n2").ok
    assert line.key() == line.at_last()


@pytest.mark.parametrize("silent", ["n1", "n2"])
def test_node_that_does_not_answer_in_time_is_named(lines, silent):
    """Its key fails as any other does; n1 has done its part, but does not say so, and is asked again in vain."""
    line, answered = lines(2), threading.Event()
    line.answer_s = 0.3

    def hold(_: str, to: str, what: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if to == silent and what in ("pads", "sealed"):
            answered.wait(10)
        return body

    line.on_the_way = hold
    try:
        with pytest.raises(RelayBroken, match="no answer in time") as broken:
            line.key()
    finally:
        answered.set()

    assert broken.value.details()["node"] == silent


def test_first_node_that_has_left_too_much_unclaimed_is_named_itself(lines):
    """It is not the nodes between that are to blame."""
    line = lines(2)
    arrivals = line.nodes["n2"].relay.as_last.arrivals
    while arrivals.put(str(uuid.uuid4()), Relayed(Secret(bytes(KEY_BYTES)), KSID), sender="n0", number=1):
        pass

    with pytest.raises(RelayBroken) as broken:
        line.key()

    assert broken.value.details()["node"] == "n0"


def test_session_of_others_gets_no_difference(lines):
    """One that does not end here."""
    line = lines(2)
    body = {"ksid": str(uuid.uuid4()), "link": LINK, "difference": "AAAA"}

    assert line.say("n1", "n2", f"qkd/v1/relay/{uuid.uuid4()}/difference", body).detail("cause") == "no_session"


def test_relays_of_one_neighbour_have_so_many_places(lines):
    """More are refused before they take material."""
    line = lines(2)
    for _ in range(RELAYS_PER_NODE):
        assert line.nodes["n1"].relay._under_way.take("n0", "n2")

    with pytest.raises(RelayBroken, match="too many keys"):
        line.key()
    assert line.left("n1") == 2 * STORED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.integers(0, 1 << 32))
def test_parts_are_claimed_all_or_none_and_once(seed):
    """Whatever comes in whatever order, of whichever request."""
    rng, now = random.Random(seed), 0.0
    arrivals, senders = Arrivals(lambda: 10.0, lambda: now), ["a", "b", "c"]
    there: dict[str, set[str]] = {}
    for _ in range(60):
        request, sender = rng.choice("xyz"), rng.choice(senders)
        if rng.random() < 0.7:
            assert arrivals.put(request, Relayed(Secret(b"part"), "s"), sender=sender) == (
                sender not in there.get(request, set())
            )
            there.setdefault(request, set()).add(sender)
        else:
            whole = {0: [(name, 0) for name in senders]}
            parts, missing = arrivals.claim_parts(request, "s", whole, enough=1, patiently=False)
            assert set(missing) == set(senders) - there.get(request, set())
            assert [len(part) for part in parts.values()] == ([] if missing else [3])
            if not missing:
                del there[request]
    now = 20.0
    arrivals.expire()
    assert not arrivals._found
    assert not any(arrivals._kept.values())
