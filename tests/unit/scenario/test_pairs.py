"""Which applications share keys with which."""

from __future__ import annotations

import itertools

import pytest

from scenario.workload import Pairs, draw_pairs
from testbed.planning.plan import SaePlan

SAES = [SaePlan(f"{node}{i}", node, f"id-{node}{i}", 1) for node in "abc" for i in range(3)]


def test_pairs_join_different_nodes_and_differ():
    """No pair twice, none within one datacenter."""
    pairs = draw_pairs(SAES, len(Pairs(SAES)), 1)

    assert len(set(pairs)) == len(pairs) == 9 * 8 - 3 * 3 * 2
    assert all(master.node != slave.node for master, slave in pairs)


def test_same_seed_draws_the_same_pairs():
    """Whatever UUIDs the SAEs have in a run."""
    renamed = [SaePlan(s.name, s.node, f"other-{s.id}", s.port) for s in SAES]

    def names(saes):
        return [(a.name, b.name) for a, b in draw_pairs(saes, 10, 7)]

    assert names(SAES) == names(renamed)
    assert len({tuple(n) for n in ([(a.name, b.name) for a, b in draw_pairs(SAES, 10, s)] for s in range(9))}) > 1


def test_more_pairs_than_there_are_is_refused():
    """With the number that there are."""
    with pytest.raises(ValueError, match="at most 54"):
        draw_pairs(SAES, 55, 1)


def test_no_pairs_without_a_second_node():
    """All SAEs in one datacenter have nobody to share keys with."""
    assert list(Pairs([s for s in SAES if s.node == "a"])) == []
    assert list(itertools.islice(Pairs(SAES), 1))
