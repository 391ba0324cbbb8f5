"""Paths of trusted relays."""

from __future__ import annotations

import itertools

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from decisions.paths import shortest


def graph_of(*edges: tuple[str, str, str]) -> nx.MultiGraph:
    """(node, node, QC)"""
    graph = nx.MultiGraph()
    for a, b, qc in edges:
        graph.add_edge(a, b, key=qc)
    return graph


def worthless(_: str) -> tuple[float, ...]:
    """The merit of QCs that are all alike."""
    return ()


def test_fewest_hops_win():
    """Whatever the names."""
    graph = graph_of(("a", "b", "q1"), ("b", "c", "q2"), ("a", "z", "q3"), ("z", "y", "q4"), ("y", "c", "q5"))

    path = shortest(graph, "a", "c", worthless)

    assert (path.nodes, path.qcs) == (("a", "b", "c"), ("q1", "q2"))


def test_ties_fall_to_the_first_by_name():
    """Among nodes and among the QCs of a link, in whatever order they registered."""
    edges = [("a", "m", "q1"), ("a", "b", "q3"), ("a", "b", "q2"), ("m", "c", "q4"), ("b", "c", "q5")]

    found = {shortest(graph_of(*order), "a", "c", worthless) for order in itertools.permutations(edges)}

    assert [(p.nodes, p.qcs) for p in found] == [(("a", "b", "c"), ("q2", "q5"))]


def test_qc_of_most_merit_is_taken_of_each_fibre():
    """Whatever the names; one that has no other beside it is taken unasked."""
    merits = {"q1": (1.0, 9.0), "q2": (2.0, 0.0), "q3": (2.0, 1.0), "q5": (0.0,), "q6": (-1.0,)}
    fibres = {"ab": ("q1", "q2", "q3"), "bc": ("q4",), "cd": ("q5", "q6")}
    graph = graph_of(*((*ends, qc) for ends, qcs in fibres.items() for qc in qcs))

    assert shortest(graph, "a", "d", merits.__getitem__).qcs == ("q3", "q4", "q5")


def test_node_that_relays_nothing_is_an_end_at_most():
    """The way leads around it, or there is none."""
    graph = graph_of(("a", "b", "q1"), ("b", "c", "q2"), ("a", "y", "q3"), ("y", "z", "q4"), ("z", "c", "q5"))
    graph.nodes["b"]["relays"] = False

    assert shortest(graph, "a", "c", worthless).nodes == ("a", "y", "z", "c")
    assert shortest(graph, "a", "b", worthless).nodes == ("a", "b")
    assert shortest(graph, "b", "c", worthless).nodes == ("b", "c")
    graph.remove_edge("y", "z")
    assert shortest(graph, "a", "c", worthless) is None


def test_no_way_is_none():
    """Also for a node that nobody knows."""
    graph = graph_of(("a", "b", "q1"), ("c", "d", "q2"))

    assert shortest(graph, "a", "d", worthless) is None
    assert shortest(graph, "a", "nobody", worthless) is None
    assert shortest(graph, "nobody", "a", worthless) is None


@given(st.integers(2, 8), st.data())
def test_path_is_as_short_as_any_and_its_qcs_join_its_nodes(n, data):
    """On random graphs."""
    pairs = list(itertools.combinations("abcdefgh"[:n], 2))
    chosen = data.draw(st.lists(st.sampled_from(pairs)))
    graph = graph_of(*((a, b, f"q{i}") for i, (a, b) in enumerate(chosen)))
    graph.add_nodes_from("abcdefgh"[:n])
    source, target = data.draw(st.sampled_from(pairs))

    path = shortest(graph, source, target, worthless)

    if path is None:
        assert not nx.has_path(graph, source, target)
    else:
        assert len(path.qcs) == nx.shortest_path_length(graph, source, target)
        assert (path.nodes[0], path.nodes[-1]) == (source, target)
        for (a, b), qc in zip(itertools.pairwise(path.nodes), path.qcs, strict=True):
            assert qc in graph[a][b]
