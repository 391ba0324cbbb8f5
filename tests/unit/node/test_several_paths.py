"""Modes `paths-...`: a key in parts, over paths that share no node between."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from decisions.modes import PATHS_2, PATHS_2_OF_3, PATHS_3, Mode
from decisions.ranges import Range
from node.associations.sessions import Session, over
from node.failures import KeyFailure, RelayAltered, RelayBroken
from tests.support.relay_line import KEY_BYTES, STORED, Line

THREE = (2, 3, 4)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Line]]:
    """Makes them; what waits at a last node waits shortly."""
    monkeypatch.setattr("node.relaying.relayed_keys.CLAIM_S", 0.05)
    made: list[Line] = []

    def build(mode: Mode, *hops: int) -> Line:
        made.append(Line(tmp_path, *hops, mode=mode))
        return made[-1]

    yield build
    for line in made:
        line.close()


def lost(line: Line) -> list[tuple[str, str]]:
    """What the first node's journal tells of paths that lost their part: the path, and why."""
    events = map(json.loads, line.nodes["n0"].journal.read_text().splitlines())
    return [(" - ".join(e["path"]), e["cause"]) for e in events if e["event"] == "part_lost"]


@pytest.mark.parametrize(
    ("mode", "hops"), [(PATHS_2, (2, 2)), (PATHS_2, (1, 4)), (PATHS_3, THREE), (PATHS_2_OF_3, THREE)],
    ids=["two", "a link and a path", "three", "two of three"],
)  # fmt: skip
def test_slave_has_the_keys_that_the_first_node_made(lines, mode, hops):
    """One key or several; each link of each path gives as many bytes as the keys have."""
    line = lines(mode, *hops)

    assert line.key() == line.at_last()
    assert line.key(3) == line.at_last()

    for name in line.names:
        links = sum(name in ends for ends in line.ends.values())
        assert line.left(name) == links * (STORED - 4 * KEY_BYTES)
    assert lost(line) == []


def test_no_node_between_is_told_anything_but_to_send_the_difference_of_its_pads(lines):
    """All else goes from the first node to the last one: no part of a key comes to a node between."""
    line = lines(PATHS_2, 3, 3)
    line.key()

    assert sorted(line.said) == sorted(
        [("n0", n, "pads") for n in ("n1", "n2", "m1", "m2")]
        + [(n, "n3", "difference") for n in ("n1", "n2", "m1", "m2")]
        + [("n0", "n3", "sealed")]
    )


def test_what_goes_over_one_path_is_no_part_of_the_key_by_itself(lines):
    """Who knows all pads of a path, and all messages about it, has something else than the key."""
    line = lines(PATHS_2, 1, 2)
    sealed: list[str] = []

    def listen(_: str, __: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "sealed":
            sealed.extend(path["pad"]["sealed"] for path in body["paths"])
        return body

    line.on_the_way = listen
    (key,) = line.key()
    pads = [line.streams[qc][:KEY_BYTES] for qc in ("n0-n1", "n0-m1")]
    parts = [bytes(a ^ b for a, b in zip(pad, _bytes(s), strict=True)) for pad, s in zip(pads, sealed, strict=True)]

    assert key not in parts
    assert bytes(a ^ b for a, b in zip(*parts, strict=True)) == key


def _bytes(encoded: str) -> bytes:
    return base64.b64decode(encoded)


def altering(line: Line, *liars: str) -> None:
    """Have these nodes send another difference than that of their pads."""
    other = {"difference": "A" * 22 + "=="}
    line.on_the_way = lambda sender, _, what, body: (
        body | other if sender in liars and what == "difference" else body
    )


BETWEEN = {"n1": "n0 - n1 - n2", "m1": "n0 - m1 - m2 - n2", "m2": "n0 - m1 - m2 - n2", "o3": "n0 - o1 - o2 - o3 - n2"}


@pytest.mark.parametrize("liar", BETWEEN)
def test_path_that_alters_its_part_is_named(lines, liar):
    """Wherever the node stands; nobody has a key of it."""
    line = lines(PATHS_3, *THREE)
    altering(line, liar)

    with pytest.raises(RelayAltered) as failure:
        line.key()

    assert failure.value.facts["path"] == BETWEEN[liar]
    assert line.at_last() == []


@pytest.mark.parametrize("liar", BETWEEN)
def test_key_outlives_a_path_that_alters_its_part_where_others_are_enough(lines, liar):
    """The path is named all the same."""
    line = lines(PATHS_2_OF_3, *THREE)
    altering(line, liar)

    assert line.key() == line.at_last()
    assert lost(line) == [(BETWEEN[liar], "relay_altered")]


def test_key_does_not_outlive_two_paths_of_three_that_alter_their_parts(lines):
    """One of them is named."""
    line = lines(PATHS_2_OF_3, *THREE)
    altering(line, "n1", "m2")

    with pytest.raises(RelayAltered) as failure:
        line.key()

    assert failure.value.facts["path"] == BETWEEN["n1"]
    assert line.at_last() == []


@pytest.mark.parametrize("silent", BETWEEN)
def test_key_outlives_a_node_that_sends_nothing_where_others_are_enough(lines, silent):
    """Though it says that it did."""
    line = lines(PATHS_2_OF_3, *THREE)
    line.on_the_way = lambda sender, _, what, body: (
        None if (sender, what) == (silent, "difference") else body
    )

    assert line.key() == line.at_last()
    assert lost(line) == [(BETWEEN[silent], "relay_broken")]


@pytest.mark.parametrize("gone", BETWEEN)
def test_key_outlives_a_node_that_cannot_relay_where_others_are_enough(lines, gone):
    """What its links were to give is not there any more."""
    line = lines(PATHS_2_OF_3, *THREE)
    spend(line, gone)

    assert line.key() == line.at_last()
    assert lost(line) == [(BETWEEN[gone], "expired")]


@pytest.mark.parametrize("gone", BETWEEN)
def test_key_fails_where_all_parts_are_needed_and_a_node_cannot_relay(lines, gone):
    """It is named, and nobody has a key."""
    line = lines(PATHS_3, *THREE)
    spend(line, gone)

    with pytest.raises(KeyFailure) as failure:
        line.key()

    assert (failure.value.cause, failure.value.facts["node"]) == ("expired", gone)
    assert line.at_last() == []


def spend(line: Line, name: str) -> None:
    """Have a node's stock of its incoming link be used for something else."""
    qc = next(qc for qc, ends in line.ends.items() if ends[1] == name)
    line.nodes[name].store.take([Range(qc, 0, 8)], "another", "server")


def test_node_on_two_paths_is_refused(lines):
    """By the last node, before it takes a byte."""
    line = lines(PATHS_2, 2, 3)

    def lead(_: str, __: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "sealed" and "pad" in body["paths"][0]:
            body["paths"][1]["nodes"] = ["m1", "n1"]
        return body

    line.on_the_way = lead
    with pytest.raises(RelayBroken):
        line.key()

    assert line.left("n2") == 2 * STORED


def test_links_beside_each_other_are_one_path():
    """Two QCs between the same nodes bring no second part: a session over them has one path, the first of them."""
    first, second = (Session("k", "alice", "bob", ("a", "b"), (qc,), qc) for qc in ("a-b/1", "a-b/2"))
    round_about = Session("k", "alice", "bob", ("a", "c", "b"), ("a-c/1", "c-b/1"), "virtual")

    assert over([first, second]) is first
    assert over([first, second, round_about]).paths == (first, round_about)
