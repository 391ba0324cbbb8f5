"""Several node-disjoint paths: which they are, how they are one path of a session, and when a session leaves them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.admission import QcView, Refused
from decisions.choice import choose
from decisions.modes import PARALLEL, PATHS_2, PATHS_2_OF_3, PATHS_3, Mode
from decisions.paths import RELAYS, Path, Verdict, disjoint, fewest_links, judge, several, shortest


def graph(*edges: str) -> nx.MultiGraph:
    """Nodes of one letter, a QC named after the two that it joins."""
    made: nx.MultiGraph = nx.MultiGraph()
    for a, b in edges:
        made.add_edge(a, b, key=a + b)
    return made


def view(qc: str) -> QcView:
    """All QCs are alike."""
    return QcView(qc, 0, 0, 0, 0)


RING = graph("ab", "bc", "cd", "de", "ae")
# The shortest path from s to t, s-b-c-t, bars the way of every other one.
BARRED = graph("sb", "bc", "ct", "sx", "xy", "yc", "bz", "zw", "wt")


@st.composite
def graphs(draw: st.DrawFn) -> nx.MultiGraph:
    """Up to eight nodes, joined at random; from "0" to the last one."""
    n = draw(st.integers(2, 8))
    made: nx.MultiGraph = nx.MultiGraph()
    made.add_nodes_from(map(str, range(n)))
    for a, b in itertools.combinations(range(n), 2):
        if draw(st.booleans()):
            made.add_edge(str(a), str(b), key=f"{a}-{b}")
    return made


def between(paths: list[tuple[str, ...]]) -> list[str]:
    """The nodes between, of all paths."""
    return [node for path in paths for node in path[1:-1]]


def total(paths: tuple[list[str], ...]) -> int:
    """Links of all paths."""
    return sum(len(path) - 1 for path in paths)


@given(graphs(), st.integers(1, 3))
def test_as_many_disjoint_paths_are_found_as_there_are_of_the_fewest_links(network, most):
    """Whatever the network: compared with all sets of paths."""
    source, target = "0", str(len(network) - 1)
    found = fewest_links(network, source, target, most)

    assert all(network.has_edge(a, b) for path in found for a, b in itertools.pairwise(path))
    assert all((path[0], path[-1]) == (source, target) for path in found)
    assert len(set(between(found))) == len(between(found))

    simple = list(nx.all_simple_paths(nx.Graph(network), source, target))
    for number in range(len(found), most + 1):
        there = [
            paths
            for paths in itertools.combinations(simple, number)
            if len(set(between(paths))) == len(between(paths))  # type: ignore[arg-type]
        ]
        if number > len(found):
            assert not there
        else:
            assert total(found) == min(map(total, there), default=0)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_several_paths_as_one_give_each_back(hops):
    """With all nodes once, the ends at its ends, and each QC between the nodes that it joins."""
    paths = []
    for number, links in enumerate(hops):
        nodes = ("first", *(f"{number}.{i}" for i in range(1, links)), "last")
        paths.append(Path(nodes, tuple(f"{a}-{b}/{number}" for a, b in itertools.pairwise(nodes))))
    whole = several(paths)

    assert whole.paths == tuple(paths)
    assert (whole.nodes[0], whole.nodes[-1]) == ("first", "last")
    assert len(set(whole.nodes)) == len(whole.nodes)
    for place, qc in enumerate(whole.qcs):
        assert qc.split("/")[0] == "-".join(whole.joined_by(place))
    left = whole.within(paths[0].qcs + paths[-1].qcs)
    assert left.paths == tuple(path for path in paths if path in (paths[0], paths[-1]))


def test_both_ways_round_a_ring_are_taken_together():
    """The shorter one first; between neighbours their link is one of the two."""
    both = disjoint(shortest, 2)

    assert [path.nodes for path in next(iter(both(RING, "a", "c", view))).paths] == [("a", "b", "c"), tuple("aedc")]
    assert [path.nodes for path in next(iter(both(RING, "a", "b", view))).paths] == [("a", "b"), tuple("aedcb")]
    assert list(disjoint(shortest, 3)(RING, "a", "c", view)) == []
    assert next(iter(disjoint(shortest, 1)(RING, "a", "c", view))) == Path(("a", "b", "c"), ("ab", "bc"))


def test_path_that_bars_the_way_of_all_others_gives_way():
    """Taken one by one, the best first, there would be no second one."""
    (found,) = disjoint(shortest, 2)(BARRED, "s", "t", view)

    assert {path.nodes for path in found.paths} == {tuple("sbzwt"), tuple("sxyct")}


def test_paths_of_the_policy_come_before_those_of_fewest_links():
    """Where both are there and differ, the second ones are an alternative."""
    network = graph("sa", "ax", "xt", "sb", "bt", "sc", "ct")

    def over_a_first(*of: Any) -> list[Path]:
        return sorted(shortest(*of), key=lambda path: "a" not in path.nodes)

    first, second = disjoint(over_a_first, 2)(network, "s", "t", view)

    assert [path.nodes for path in first.paths] == [tuple("saxt"), tuple("sbt")]
    assert [path.nodes for path in second.paths] == [tuple("sbt"), tuple("sct")]


def test_no_path_leads_over_a_node_that_relays_nothing():
    """Though it is there."""
    network = RING.copy()
    network.nodes["d"][RELAYS] = False

    assert list(disjoint(shortest, 2)(network, "a", "c", view)) == []
    assert fewest_links(network, "a", "c", 2) == [("a", "b", "c")]


def test_qc_beside_one_that_is_short_takes_its_place_on_any_of_the_paths():
    """And all others stay."""
    network = RING.copy()
    network.add_edge("d", "e", key="de2")
    short = {"de"}

    def admit(path: Path) -> Refused | None:
        return next((Refused(qc, 2, 1) for qc in path.qcs if qc in short), None)

    found = choose(
        disjoint(shortest, 2)(network, "a", "c", view), admit, lambda a, b: sorted(network[a][b]), most=1
    )

    assert isinstance(found, Path)
    assert sorted(found.qcs) == ["ab", "ae", "bc", "cd", "de2"]


def way(mode: Mode, network: nx.MultiGraph, source: str, target: str) -> Path | None:
    """As many at once as the mode takes."""
    return next(iter(disjoint(shortest, mode.paths)(network, source, target, view)), None)


THETA = graph("sa", "at", "sb", "bt", "sc", "ct", "sd", "dt")
TWO, ONE = way(PATHS_2, RING, "a", "c"), Path(("a", "b", "c"), ("ab", "bc"))
THREE = way(PATHS_3, THETA, "s", "t")
WITHOUT_A = graph("sb", "bt", "sc", "ct", "sd", "dt")
WITHOUT_AB = graph("sc", "ct", "sd", "dt")


@pytest.mark.parametrize(
    ("path", "down", "usable", "mode", "verdict"),
    [
        (TWO, (), RING, PATHS_2, Verdict(None)),
        (ONE, (), RING, PATHS_2, Verdict(TWO, ("path 2 of 2",))),
        (ONE, (), graph("ab", "bc"), PATHS_2, Verdict(None, ("path 2 of 2",))),
        (TWO, (), RING, PARALLEL, Verdict(ONE)),
        (TWO, ("node e",), graph("ab", "bc"), PATHS_2, Verdict(None, ("node e",))),
        (THREE, ("node a",), WITHOUT_A, PATHS_3, Verdict(way(PATHS_3, WITHOUT_A, "s", "t"), ("node a",))),
        (THREE, ("node a",), WITHOUT_A, PATHS_2_OF_3, Verdict(way(PATHS_3, WITHOUT_A, "s", "t"))),
        (THREE, ("node a", "QC bt"), WITHOUT_AB, PATHS_2_OF_3, Verdict(None, ("node a", "QC bt"))),
        (THREE, ("node a",), graph("sb", "bt", "sc", "ct"), PATHS_2_OF_3, Verdict(None)),
    ],
    ids=["all is well", "the mode wants more", "and there are none", "the mode wants fewer", "one of two is down",
         "of three another one", "which it could do without", "too few are left", "enough are left"],
)  # fmt: skip
def test_session_has_as_many_paths_as_its_mode_takes(path, down, usable, mode, verdict):
    """It moves to have them, and waits where there are fewer than enough."""
    finds = functools.partial(way, mode)

    assert judge(path, down, usable, usable, finds, number=mode.paths, enough=mode.enough) == verdict
