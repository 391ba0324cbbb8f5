"""Key sessions over several node-disjoint paths: the real controller chooses and keeps them; nodes are played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from etsi import gs015
from node.tree.model import link_id, links
from tests.support.ring import Ring
from tests.support.waiting import until

A_TO_C = [["a", "b", "c"], ["a", "d", "c"]]


class TwoWays(Ring):
    """The ring, with sessions over both ways round."""

    def goes_both_ways(self, ksid: str, *paths: str) -> bool:
        """Whether the session goes over these paths, as the controller and all nodes have it, and over nothing else."""
        if self.open_sessions()[ksid]["paths"] != [list(path) for path in paths]:
            return False
        first, last = paths[0][0], paths[0][-1]
        try:
            feeds = self.nodes[first].app(ksid)["backing_qkdl_id"]
            same = sorted(self.nodes[last].app(ksid)["backing_qkdl_id"]) == sorted(feeds)
        except StopIteration:
            return False
        at = {
            name: {link["qkdl_id"] for link in links(node.datastore.tree) if link["qkdl_type"] == gs015.VIRT}
            for name, node in self.nodes.items()
        }
        between = {node: number for number, path in enumerate(paths) for node in path[1:-1]}
        owns = all(len(at[node]) == (1 if node in between else at_ends(paths)) for node in at)
        apart = len({frozenset(at[node]) for node in between}) == at_ends(paths)
        return same and len(feeds) == len(paths) and owns and apart and at[first] <= set(feeds)


def at_ends(paths: tuple[str, ...]) -> int:
    """How many virtual links the session has; a path of one link is none."""
    return sum(len(path) > 2 for path in paths)


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[TwoWays]:
    """The ring, up, in mode paths-2."""
    made = TwoWays(tmp_path)
    try:
        made.start_all()
        assert made.set(mode="paths-2").ok
        yield made
    finally:
        made.stop()


def test_session_has_a_virtual_link_for_each_path(ring):
    """Both feed its application at both ends (GS QKD 015, backing_qkdl_id); a node between has that of its path."""
    ksid = ring.open("a", "c")["ksid"]

    assert ring.goes_both_ways(ksid, "abc", "adc")
    assert sorted(ring.open_sessions()[ksid]["qcs"]) == ["ab", "ad", "bc", "cd"]


def test_link_between_neighbours_is_one_of_the_paths(ring):
    """As a physical link, beside the virtual one round the ring."""
    ksid = ring.open("a", "b")["ksid"]

    assert ring.goes_both_ways(ksid, "ab", "adcb")
    assert link_id("ab") in ring.nodes["a"].app(ksid)["backing_qkdl_id"]


def test_session_waits_while_one_of_its_paths_is_down(ring):
    """No part of a key may take the way of another one; its master is told why."""
    ksid = ring.open("a", "c")["ksid"]
    pair = ring.nodes["a"].sessions.get(ksid).pair

    ring.nodes["d"].fail("cd")
    assert until(lambda: ring.nodes["a"].registrations.interruption(*pair))
    assert "down at QC cd" in ring.nodes["a"].registrations.interruption(*pair).message
    ring.nodes["d"].heal("cd")

    assert until(lambda: not ring.nodes["a"].registrations.interruption(*pair))
    assert ring.goes_both_ways(ksid, "abc", "adc")


def test_too_few_paths_are_a_refusal_that_says_so(ring):
    """With how many there are."""
    assert ring.set(mode="paths-3").ok

    _, refused = ring.request("a", "c")

    assert (refused.status, refused.detail("cause"), refused.detail("paths")) == (503, "too_few_paths", 2)
    assert refused.message == "mode paths-3 needs 3 node-disjoint paths between a and c; there are 2"


def test_open_session_gets_as_many_paths_as_another_mode_takes(ring):
    """And gives them up; nothing of them is left at any node."""
    ksid = ring.open("a", "c")["ksid"]
    assert ring.goes_both_ways(ksid, "abc", "adc")

    assert ring.set(mode="parallel").ok
    assert until(lambda: ring.goes(ksid, "a", "b", "c"))
    assert ring.set(mode="paths-2").ok

    assert until(lambda: ring.goes_both_ways(ksid, "abc", "adc"))


def test_new_controller_knows_the_paths_of_open_sessions(ring):
    """And has all of them forgotten when the session ends."""
    ksid = ring.open("a", "c")["ksid"]
    ring.restart()

    assert until(lambda: ksid in ring.open_sessions() and ring.goes_both_ways(ksid, "abc", "adc"))
    assert ring.call("DELETE", f"key_sessions/{ksid}").ok
    assert until(
        lambda: not any(
            link["qkdl_type"] == gs015.VIRT for node in ring.nodes.values() for link in links(node.datastore.tree)
        )
    )
