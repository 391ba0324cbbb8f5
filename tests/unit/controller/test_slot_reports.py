"""Slot reports: nothing that was asked for is lost with a connection, and nothing counts twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller import limits
from controller.network.graph import Graph
from controller.network.nodes import Agent, Report
from decisions.admission import Need
from etsi import gs015
from node.agent.reporting import Reports, Totals
from node.limits import RETOLD_SLOTS
from node.tree.model import link_id, node_id

QC = "ab"


def graph_of_two() -> Graph:
    """Nodes a and b with a QC between them, and a stranger c."""
    graph = Graph()
    for name, peer in (("a", "b"), ("b", "a"), ("c", "d")):
        qc = "".join(sorted((name, peer)))
        link = {
            "qkdl_id": link_id(qc), "qkdl_type": gs015.PHYS, "qkdl_remote": {"qkdn_id": node_id(peer)},
            "qkdl_local": {"qkdi_id": 1},
        }  # fmt: skip
        document = {"qkdn_id": node_id(name), "qkd_links": {"qkd_link": [link]}}
        graph.put(Agent(name, ""), document, {1: qc}, extended=True)
    return graph


def told(graph: Graph, reports: Reports, now: Totals, listener: int = 1) -> None:
    """Node a reports to the controller whose graph that is."""
    before = reports.since(now, listener)
    n_bytes = now.requested.get(QC, 0) - before.requested.get(QC, 0)
    graph.report("a", now.slot, [Report(QC, 0, n_bytes, 0)], since=min(before.slot, now.slot - 1))


def requested(graph: Graph, slots: int = 1000) -> int:
    """What was asked of the QC in the last slots, as the controller has it."""
    (view,) = graph.views([QC], slots)
    return view.requested_bytes


slots = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 100), st.booleans()), min_size=1, max_size=30)


@given(slots)
def test_connections_that_swallow_reports_lose_nothing_of_the_last_slots(steps):
    """Whichever reports are lost, the next that arrives after a new connection makes up for them."""
    graph, reports, total, slot, listener = graph_of_two(), Reports(Totals(0)), 0, 0, 1
    lost_since = None
    for gap, n_bytes, lost in steps:
        slot, total = slot + gap, total + n_bytes
        now = Totals(slot, {}, {QC: total})
        if lost and (lost_since is None or slot - lost_since < RETOLD_SLOTS):
            lost_since = slot - gap if lost_since is None else lost_since
            reports.since(now, listener)
        else:
            listener += lost_since is not None
            lost_since = None
            told(graph, reports, now, listener)
            assert requested(graph) == total


def test_reports_of_one_slot_take_the_place_of_one_another():
    """A node reports several times in a slot."""
    graph, reports = graph_of_two(), Reports(Totals(4))
    for total in (10, 25, 40):
        told(graph, reports, Totals(5, {}, {QC: total}))
    told(graph, reports, Totals(6, {}, {QC: 41}))

    assert requested(graph) == 41
    assert requested(graph, 1) == 1


def test_slots_that_count_from_the_beginning_again_hide_nothing():
    """A node that was set up anew is heard."""
    graph, reports = graph_of_two(), Reports(Totals(100))
    told(graph, reports, Totals(101, {}, {QC: 10}))
    told(graph, reports, Totals(1, {}, {QC: 17}))

    assert requested(graph) == 7


def test_absurd_slot_of_one_node_hides_nothing_that_others_report():
    """Each counts slots in its own way."""
    graph = graph_of_two()
    graph.report("b", 7, [Report(QC, 40, 0, 80)])
    graph.report("a", 1 << 62, [Report(QC, 0, 0, 80)])

    (view,) = graph.views([QC], 15)
    assert (view.generated_bytes, view.slots) == (40, 1)


def test_node_has_no_word_on_qcs_that_it_neither_has_nor_uses():
    """On those that it uses it says what it asks for, not what they make."""
    graph = graph_of_two()
    graph.report("a", 1, [Report(QC, 40, 1, 80)])
    graph.report("c", 1, [Report(QC, 10_000, 10_000, 1)])
    assert graph.views([QC], 15)[0].requested_bytes == 1

    graph.report("c", 1, [Report(QC, 10_000, 5, 1)], needs=lambda: {QC: Need(5, 5)})

    (view,) = graph.views([QC], 15)
    assert (view.generated_bytes, view.requested_bytes, view.stored_bytes) == (40, 6, 80)


def test_no_figure_counts_for_more_than_a_qc_can_make():
    """However large it is."""
    graph = graph_of_two()
    graph.report("a", 10, [Report(QC, 1 << 62, 1 << 62, 1 << 62)], since=8)

    (view,) = graph.views([QC], 15)
    assert view.generated_bytes == view.requested_bytes == 2 * limits.MAX_BYTES_A_SLOT
    assert view.stored_bytes < 1 << 62


def test_node_that_is_silent_fades_away():
    """What it said last is not of now for ever."""
    clock = [0.0]
    graph = graph_of_two()
    graph.now = lambda: clock[0]
    graph.report("a", 10, [Report(QC, 400, 10, 0)], since=0)

    clock[0] = 15.0
    assert graph.views([QC], 10)[0].requested_bytes == 5
    clock[0] = 60.0
    assert graph.views([QC], 10)[0].requested_bytes == 0
