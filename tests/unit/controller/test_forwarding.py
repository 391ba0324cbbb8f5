"""Classical forwarding over a fabric full of loops."""

from __future__ import annotations

import itertools
import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.openflow.forwarding import Fabric, Host, Port, Switch, changes, forwarding, parse_fabric


def fabric_of(graph: nx.Graph, delay_ms=lambda *_: 1.0) -> Fabric:
    """A switch a node, with a host each, a link an edge."""
    return Fabric(
        tuple(
            Switch(
                f"s{n}", n + 1,
                tuple(Port(f"s{n}-to{m}", f"s{m}", f"s{m}-to{n}", delay_ms(n, m)) for m in sorted(graph[n])),
                (Host(f"s{n}-host", f"10.0.0.{n + 1}"),),
            )
            for n in sorted(graph)
        )
    )  # fmt: skip


def travel(fabric: Fabric, flows, start: str, ip: str) -> list[str] | None:
    """The switches that a packet for `ip` passes from `start` on; None if it is dropped, an error if it circles."""
    by_name = {s.name: s for s in fabric.switches}
    passed = [start]
    while True:
        out = flows[passed[-1]].get(ip)
        if out is None:
            return None
        switch = by_name[passed[-1]]
        if any(h.interface == out and h.ip == ip for h in switch.hosts):
            return passed
        passed.append(next(p.peer_switch for p in switch.ports if p.interface == out))
        assert len(passed) <= len(by_name), f"{passed} is a loop"


@st.composite
def fabrics(draw):
    """A random graph with random delays, zero among them, each direction its own, and some of its ports down."""
    n = draw(st.integers(2, 7))
    edges = draw(st.sets(st.sampled_from(list(itertools.combinations(range(n), 2)))))
    graph = nx.Graph(edges)
    graph.add_nodes_from(range(n))
    ways = sorted(way for a, b in edges for way in ((a, b), (b, a)))
    delays = {way: draw(st.sampled_from([0.0, 0.5, 1.0, 20.0])) for way in ways}
    fabric = fabric_of(graph, lambda a, b: delays[a, b])
    ports = [(s.name, p.interface) for s in fabric.switches for p in s.ports]
    down = draw(st.sets(st.sampled_from(ports))) if ports else set()
    return fabric, graph, down


@given(fabrics())
def test_packet_arrives_without_a_loop_wherever_there_is_a_way(case):
    """And is dropped at once where there is none."""
    fabric, graph, down = case
    alive = graph.copy()
    alive.remove_edges_from(
        [(a, b) for a, b in graph.edges if (f"s{a}", f"s{a}-to{b}") in down or (f"s{b}", f"s{b}-to{a}") in down]
    )
    flows = forwarding(fabric, down)

    for a, b in itertools.permutations(graph, 2):
        way = travel(fabric, flows, f"s{a}", f"10.0.0.{b + 1}")
        assert (way is not None) == nx.has_path(alive, a, b)


@given(fabrics())
def test_way_is_the_shortest_by_delay(case):
    """Summed over its links, none is faster."""
    fabric, graph, _ = case
    delay = {(s.name, p.peer_switch): p.delay_ms for s in fabric.switches for p in s.ports}
    weighted = nx.DiGraph()
    weighted.add_nodes_from(f"s{n}" for n in graph)
    weighted.add_weighted_edges_from((a, b, d) for (a, b), d in delay.items())
    flows = forwarding(fabric, set())

    for a, b in itertools.permutations(graph, 2):
        way = travel(fabric, flows, f"s{a}", f"10.0.0.{b + 1}")
        if way is not None:
            total = sum(delay[hop] for hop in itertools.pairwise(way))
            assert total == pytest.approx(nx.dijkstra_path_length(weighted, f"s{a}", f"s{b}"))


@given(fabrics(), st.integers())
def test_ties_fall_the_same_way_each_time(case, seed):
    """In whatever order switches and ports are listed."""
    fabric, _, down = case
    shuffled = [Switch(s.name, s.dpid, tuple(reversed(s.ports)), s.hosts) for s in fabric.switches]
    random.Random(seed).shuffle(shuffled)

    assert forwarding(Fabric(tuple(shuffled)), down) == forwarding(fabric, down)


@given(fabrics())
def test_changes_lead_from_the_old_flows_to_the_new_ones(case):
    """What is not written or removed was right already."""
    fabric, _, down = case
    before, after = forwarding(fabric, set()), forwarding(fabric, down)

    for name in before:
        write, remove = changes(before[name], after[name])
        assert {ip: p for ip, p in before[name].items() if ip not in remove} | write == after[name]
        assert all(before[name].get(ip) != port for ip, port in write.items())


def test_cut_link_of_a_ring_sends_traffic_the_other_way_round():
    """Neighbours reach each other over all other switches."""
    fabric = fabric_of(nx.cycle_graph(5))

    assert travel(fabric, forwarding(fabric, set()), "s0", "10.0.0.2") == ["s0", "s1"]
    around = travel(fabric, forwarding(fabric, {("s0", "s0-to1")}), "s0", "10.0.0.2")
    assert around == ["s0", "s4", "s3", "s2", "s1"]


PORT = {"interface": "a", "peer_switch": "s2", "peer_interface": "b", "delay_ms": 1}
SWITCH = {"name": "s1", "dpid": 1, "ports": [], "hosts": []}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "fabric"),
        ({"switches": [SWITCH | {"dpid": 0}]}, r"switches\[0\].dpid"),
        ({"switches": [SWITCH, SWITCH]}, "distinct"),
        ({"switches": [SWITCH | {"ports": [PORT]}]}, "known at s2 b"),
        ({"switches": [SWITCH | {"hosts": [{"interface": "a"}]}]}, "hosts.ip"),
    ],
)  # fmt: skip
def test_malformed_fabric_is_refused_by_name(document, said):
    """Before any switch is told anything."""
    with pytest.raises(ValueError, match=said):
        parse_fabric(document, "fabric")
