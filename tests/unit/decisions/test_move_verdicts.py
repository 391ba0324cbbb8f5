"""Whether a key session stays, moves or waits; what of a path is down, and since when that counts."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

from controller.network.graph import Graph
from controller.network.nodes import Agent, Report
from decisions.admission import QcView
from decisions.paths import Path, Verdict, judge, shortest
from etsi import gs015
from node.tree.model import link_id, node_id

# A square with a diagonal: a-b, b-c, c-d, d-a, a-c.
QCS = {"ab": "ab", "bc": "bc", "cd": "cd", "ad": "ad", "ac": "ac"}
GRACE_S = 2.0


def network(*missing: str) -> nx.MultiGraph:
    """The square without those nodes and QCs."""
    graph: nx.MultiGraph = nx.MultiGraph()
    graph.add_nodes_from(n for n in "abcd" if n not in missing)
    for qc, (a, b) in QCS.items():
        if not {qc, a, b} & set(missing):
            graph.add_edge(a, b, key=qc)
    return graph


def way(graph: nx.MultiGraph, source: str, target: str) -> Path | None:
    """The shortest, where all QCs are alike."""
    return next(iter(shortest(graph, source, target, lambda qc: QcView(qc, 0, 0, 0, 0))), None)


SHORT, LONG = Path(("a", "c"), ("ac",)), Path(("a", "b", "c"), ("ab", "bc"))


@pytest.mark.parametrize(
    ("path", "down", "usable", "steady", "verdict"),
    [
        (SHORT, (), network(), network(), Verdict(None)),
        (SHORT, ("QC ac",), network("ac"), network("ac"), Verdict(LONG, ("QC ac",))),
        (LONG, ("node b",), network("ac", "b"), network("ac", "b"),
         Verdict(Path(("a", "d", "c"), ("ad", "cd")), ("node b",))),
        (LONG, ("QC bc",), network("bc", "cd", "ac"), network("bc", "cd", "ac"), Verdict(None, ("QC bc",))),
        (LONG, ("node c",), network("c"), network("c"), Verdict(None, ("node c",))),
        (LONG, (), network(), network("ac"), Verdict(None)),
        (LONG, (), network(), network(), Verdict(SHORT)),
        (LONG, (), network("b", "ac"), network("b", "ac"), Verdict(None)),
    ],
    ids=["all is well", "another way", "around a node", "no way", "an end is down", "not trusted yet", "back",
         "as long"],
)  # fmt: skip
def test_session_moves_when_it_must_or_may_take_a_shorter_way(path, down, usable, steady, verdict):
    """And never from one way to another that is as long."""
    assert judge(path, down, usable, steady, way) == verdict


def test_session_takes_another_qc_of_the_same_fibre():
    """Its own is dead; the way is as short as it was."""
    graph = network("ac")
    graph.add_edge("a", "c", key="ac-2")

    assert judge(SHORT, ("QC ac",), graph, graph, way) == Verdict(Path(("a", "c"), ("ac-2",)), ("QC ac",))


class Shown:
    """A graph that is shown nodes at moments of the test's choice."""

    def __init__(self) -> None:
        self.time = 100.0
        self.graph = Graph(GRACE_S, now=lambda: self.time)

    def show(self, name: str, **status: str) -> None:
        """What a node says: the status of each of its QCs."""
        entries: list[dict[str, Any]] = [
            {
                "qkdl_id": link_id(qc), "qkdl_type": gs015.PHYS, "qkdl_status": f"etsi-qkdn-types:{word}",
                "qkdl_remote": {"qkdn_id": node_id(qc.replace(name, ""))}, "qkdl_local": {"qkdi_id": i},
            }
            for i, (qc, word) in enumerate(status.items())
        ]  # fmt: skip
        document = {"qkdn_id": node_id(name), "qkd_links": {"qkd_link": entries}}
        self.graph.put(Agent(name, f"https://{name}"), document, dict(enumerate(status)), extended=True)


@pytest.fixture
def shown() -> Shown:
    """With a - b - c, all well."""
    made = Shown()
    made.show("a", ab="ACTIVE")
    made.show("b", ab="ACTIVE", bc="PENDING")
    made.show("c", bc="PENDING")
    return made


PATH = Path(("a", "b", "c"), ("ab", "bc"))


def test_qc_that_has_made_no_keys_for_a_while_is_down(shown):
    """One end is enough to say so; a stumble does not count, and a stock does not help."""
    shown.show("b", ab="PASSIVE", bc="PENDING")
    shown.time += GRACE_S - 0.1
    assert shown.graph.lacking(PATH) == ()
    shown.show("b", ab="ACTIVE", bc="PENDING")
    shown.show("b", ab="PASSIVE", bc="PENDING")
    shown.time += GRACE_S - 0.1
    assert shown.graph.lacking(PATH) == ()
    assert shown.graph.topology().has_edge("a", "b")

    shown.time += 0.2

    assert shown.graph.lacking(PATH) == ("QC ab",)
    assert shown.graph.down() == ("QC ab",)
    assert not shown.graph.topology().has_edge("a", "b")


def test_node_that_is_lost_is_named_and_its_qcs_are_not(shown):
    """New sessions avoid it at once; the QC behind it counts when it is known by nobody."""
    shown.graph.lost("b")

    assert "b" not in shown.graph.topology()
    assert shown.graph.lacking(PATH) == ()
    shown.time += GRACE_S
    assert shown.graph.lacking(PATH) == ("node b",)
    assert shown.graph.down() == ("node b",)


def test_qcs_of_a_node_that_is_lost_are_off_and_have_no_stock(shown):
    """What it said before it was gone is no longer so; it counts again when the node is back."""
    for name in "ab":
        shown.graph.report(name, 1, [Report("ab", 40, 0, 400)])
    assert shown.graph.links()["ab"].status == "ACTIVE"
    assert shown.graph.views(["ab"], 1)[0].stored_bytes == 400

    shown.graph.lost("b")

    assert [shown.graph.links()[qc].status for qc in ("ab", "bc")] == ["OFF", "OFF"]
    assert shown.graph.views(["ab"], 1)[0].stored_bytes == 0
    shown.show("b", ab="ACTIVE", bc="PENDING")
    assert shown.graph.links()["ab"].status == "ACTIVE"
    assert shown.graph.views(["ab"], 1)[0].stored_bytes == 400


def test_what_a_new_controller_has_not_seen_yet_is_not_down_at_once():
    """Nodes answer one after another."""
    shown = Shown()
    shown.show("a", ab="ACTIVE")
    assert shown.graph.lacking(PATH) == ()

    shown.time += GRACE_S

    assert shown.graph.lacking(PATH) == ("node b", "node c")


def test_what_comes_back_is_trusted_after_a_while(shown):
    """It is used again at once by who has no other way."""
    shown.time += 10
    shown.graph.lost("b")
    shown.time += 10
    shown.show("b", ab="ACTIVE", bc="PENDING")

    assert shown.graph.lacking(PATH) == ()
    assert set(shown.graph.topology()) == {"a", "b", "c"}
    assert set(shown.graph.topology(5.0)) == {"a", "c"}
    shown.time += 5
    assert set(shown.graph.topology(5.0)) == {"a", "b", "c"}
