"""A way along a virtual link, as its nodes tell it: followed as far as both ends of each hop say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.failures import RelayBroken
from node.relaying.routes import Neighbours, along


def honest(path: list[str]) -> dict[str, Neighbours]:
    """What the nodes of a path say, two QCs between each and the next."""
    return {
        node: {near: [f"{min(node, near)}-{max(node, near)}/{i}" for i in (1, 2)] for near in near_to(path, node)}
        for node in path
    }


def near_to(path: list[str], node: str) -> list[str]:
    """The neighbours of a node on a path."""
    at = path.index(node)
    return path[max(0, at - 1) : at] + path[at + 1 : at + 2]


def test_way_leads_from_end_to_end_by_the_first_qc_that_both_name():
    """Each node puts first what the link is configured on; what one end alone has in use is left out."""
    said = honest(["a", "b", "c"])
    said["c"] = {"b": ["b-c/2"]}

    assert along("a", said.__getitem__) == (("a", "b", "c"), ("a-b/1", "b-c/2"))
    assert along("c", said.__getitem__) == (("c", "b", "a"), ("b-c/2", "a-b/1"))


NODES = ["a", "b", "c", "d", "e", "f"]


@given(
    path=st.permutations(NODES).map(lambda nodes: nodes[:4]),
    liar=st.integers(1, 3),
    lie=st.dictionaries(st.sampled_from(NODES), st.just(["x/1"]), max_size=2),
)
def test_a_node_that_lies_leads_the_way_nowhere_else(path, liar, lie):
    """Law: whatever one node says, the way is the true one as far as it goes, or there is none."""
    said = {node: {} for node in NODES} | {node: {near: ["x/1"] for near in near_to(path, node)} for node in path}
    said[path[liar]] = lie
    try:
        found, _ = along(path[0], said.__getitem__)
    except RelayBroken:
        return
    assert list(found) == path[: len(found)]


def test_relay_that_makes_up_a_way_is_named():
    """It leads to a node whose virtual link does not lead back."""
    said = honest(["a", "b", "c", "d"])
    said["b"] = {"a": ["a-b/1"], "d": ["b-d/1"]}

    with pytest.raises(RelayBroken) as broken:
        along("a", said.__getitem__)

    assert broken.value.facts == {"node": "b"}


def test_way_without_an_end_is_given_up():
    """Nodes that lead on for ever: no longer than a path may be."""
    with pytest.raises(RelayBroken, match="circles"):
        along("0", lambda n: {str(near): ["q"] for near in (int(n) - 1, int(n) + 1) if near >= 0})
