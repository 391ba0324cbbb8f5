"""Paths of trusted relays."""

from __future__ import annotations

import itertools

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.admission import QcView
from decisions.paths import PATH_POLICIES, Path, least_backlog, shortest, widest_shortest


def graph_of(*edges: tuple[str, str, str]) -> nx.MultiGraph:
    """(node, node, QC)"""
    graph = nx.MultiGraph()
    for a, b, qc in edges:
        graph.add_edge(a, b, key=qc)
    return graph


def alike(qc: str) -> QcView:
    """QCs that fare all the same."""
    return QcView(qc, 600, 0, 600, 15)


def first(graph: nx.MultiGraph, source: str, target: str) -> Path | None:
    """The shortest path, where all QCs are alike."""
    return next(iter(shortest(graph, source, target, alike)), None)


def test_fewest_hops_win():
    """Whatever the names."""
    graph = graph_of(("a", "b", "q1"), ("b", "c", "q2"), ("a", "z", "q3"), ("z", "y", "q4"), ("y", "c", "q5"))

    path = first(graph, "a", "c")

    assert (path.nodes, path.qcs) == (("a", "b", "c"), ("q1", "q2"))


def test_ties_fall_to_the_first_by_name():
    """Among nodes and among the QCs of a link, in whatever order they registered."""
    edges = [("a", "m", "q1"), ("a", "b", "q3"), ("a", "b", "q2"), ("m", "c", "q4"), ("b", "c", "q5")]

    found = {first(graph_of(*order), "a", "c") for order in itertools.permutations(edges)}

    assert [(p.nodes, p.qcs) for p in found] == [(("a", "b", "c"), ("q2", "q5"))]


def test_qc_of_most_merit_is_taken_of_each_fibre():
    """Whatever the names; one that has no other beside it is taken unasked."""
    free = {"q1": (15, 9), "q2": (30, 0), "q3": (30, 1), "q5": (0, 0), "q6": (-15, 0)}
    fibres = {"ab": ("q1", "q2", "q3"), "bc": ("q4",), "cd": ("q5", "q6")}
    graph = graph_of(*((*ends, qc) for ends, qcs in fibres.items() for qc in qcs))

    def view(qc: str) -> QcView:
        generated, stored = free[qc]
        return QcView(qc, 100 + generated, 100, stored, 15)

    assert next(iter(shortest(graph, "a", "d", view))).qcs == ("q3", "q4", "q5")


def test_node_that_relays_nothing_is_an_end_at_most():
    """The way leads around it, or there is none."""
    graph = graph_of(("a", "b", "q1"), ("b", "c", "q2"), ("a", "y", "q3"), ("y", "z", "q4"), ("z", "c", "q5"))
    graph.nodes["b"]["relays"] = False

    assert first(graph, "a", "c").nodes == ("a", "y", "z", "c")
    assert first(graph, "a", "b").nodes == ("a", "b")
    assert first(graph, "b", "c").nodes == ("b", "c")
    graph.remove_edge("y", "z")
    assert first(graph, "a", "c") is None


def test_no_way_is_none():
    """Also for a node that nobody knows."""
    graph = graph_of(("a", "b", "q1"), ("c", "d", "q2"))

    assert first(graph, "a", "d") is None
    assert first(graph, "a", "nobody") is None
    assert first(graph, "nobody", "a") is None


@given(st.integers(2, 8), st.data())
def test_path_is_as_short_as_any_and_its_qcs_join_its_nodes(n, data):
    """On random graphs."""
    pairs = list(itertools.combinations("abcdefgh"[:n], 2))
    chosen = data.draw(st.lists(st.sampled_from(pairs)))
    graph = graph_of(*((a, b, f"q{i}") for i, (a, b) in enumerate(chosen)))
    graph.add_nodes_from("abcdefgh"[:n])
    source, target = data.draw(st.sampled_from(pairs))

    path = first(graph, source, target)

    if path is None:
        assert not nx.has_path(graph, source, target)
    else:
        assert len(path.qcs) == nx.shortest_path_length(graph, source, target)
        assert (path.nodes[0], path.nodes[-1]) == (source, target)
        for (a, b), qc in zip(itertools.pairwise(path.nodes), path.qcs, strict=True):
            assert qc in graph[a][b]


RING = [("a", "b", "q1"), ("b", "c", "q2"), ("c", "d", "q3"), ("d", "e", "q4"), ("a", "e", "q5")]


@pytest.mark.parametrize("policy", sorted(PATH_POLICIES))
def test_each_policy_gives_both_ways_round_a_ring_the_shorter_one_first(policy):
    """And no other; nor any where there is none."""
    graph = nx.freeze(graph_of(*RING))

    found = [path.nodes for path in PATH_POLICIES[policy](graph, "a", "c", alike)]

    assert found == [("a", "b", "c"), ("a", "e", "d", "c")]
    assert not list(PATH_POLICIES[policy](graph, "a", "nobody", alike))


@pytest.mark.parametrize(("policy", "either"), [("shortest", False), ("widest-shortest", True), ("backlog", True)])
def test_end_that_has_more_left_is_to_pay_double_but_in_the_paper_the_masters(policy, either):
    """The other end may where that one cannot. Over one hop nobody pays double."""
    graph = graph_of(("a", "b", "ab"), ("b", "c", "bc"))
    left = {"ab": 10, "bc": 20}

    def path(source: str, target: str) -> Path:
        return next(iter(PATH_POLICIES[policy](graph, source, target, lambda qc: QcView(qc, left[qc], 0, 0, 1))))

    assert (path("a", "c").double_at_last, path("a", "c").either_end) == (either, either)
    assert (path("c", "a").double_at_last, path("c", "a").either_end) == (False, either)
    assert not path("a", "b").either_end


@pytest.mark.parametrize("policy", sorted(PATH_POLICIES))
def test_no_policy_leads_over_a_node_that_relays_nothing(policy):
    """Not among the longer paths either."""
    graph = graph_of(*RING, ("b", "d", "q6"))
    graph.nodes["e"]["relays"] = False

    assert all("e" not in path.nodes for path in PATH_POLICIES[policy](graph, "a", "d", alike))


def test_widest_of_the_shortest_paths_is_the_one_whose_poorest_qc_has_most_left():
    """Over c there is a QC with much and one with little, over b two with something."""
    graph = graph_of(("a", "b", "ab"), ("b", "d", "bd"), ("a", "c", "ac"), ("c", "d", "cd"))
    left = {"ab": 10, "bd": 10, "ac": 30, "cd": 5}

    found = list(widest_shortest(graph, "a", "d", lambda qc: QcView(qc, 40, 40 - left[qc], 0, 1)))

    assert [path.nodes for path in found] == [("a", "b", "d"), ("a", "c", "d")]


def test_widest_shortest_path_is_never_a_longer_one():
    """However much that would have."""
    graph = graph_of(("a", "d", "ad"), ("a", "b", "ab"), ("b", "d", "bd"))

    found = next(iter(widest_shortest(graph, "a", "d", lambda qc: QcView(qc, 40 * (qc != "ad"), 0, 0, 1))))

    assert found.nodes == ("a", "d")


def test_path_of_least_backlog_goes_round_a_qc_of_which_all_is_claimed():
    """Two hops over idle QCs are shorter than one for which nine of ten bytes are taken."""
    graph = graph_of(("a", "d", "ad"), ("a", "b", "ab"), ("b", "d", "bd"))

    def view(qc: str, claimed: int) -> QcView:
        return QcView(qc, 40, claimed if qc == "ad" else 0, 0, 1)

    assert next(iter(least_backlog(graph, "a", "d", lambda qc: view(qc, 36)))).nodes == ("a", "b", "d")
    assert next(iter(least_backlog(graph, "a", "d", lambda qc: view(qc, 10)))).nodes == ("a", "d")


@given(st.integers(2, 7), st.data())
def test_frozen_graph_gives_what_one_gives_that_may_change(n, data):
    """What is remembered of it is true, whoever asks first."""
    pairs = list(itertools.combinations("abcdefg"[:n], 2))
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    graph = graph_of(*((a, b, f"q{i}") for i, (a, b) in enumerate(chosen)))
    graph.add_nodes_from("abcdefg"[:n])
    frozen = nx.freeze(graph.copy())

    for source, target in data.draw(st.lists(st.sampled_from(pairs), max_size=4)):
        assert first(frozen, source, target) == first(graph, source, target)
        assert first(frozen, target, source) == first(graph, target, source)
