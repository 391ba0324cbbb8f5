"""A key session as configuration of its nodes, and the network as nodes show it to the controller."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.agents import configuration
from controller.agents.configuration import Route
from controller.network.graph import Graph
from controller.network.nodes import Agent, Report
from etsi import gs015
from tests.support.validation import validate

KSID = str(uuid.UUID(int=99))
PAIR = "urn:uuid:a", "urn:uuid:b"


def ids(number: int, first: int) -> list[str]:
    """So many UUIDs."""
    return [str(uuid.UUID(int=first + i)) for i in range(number)]


@given(st.integers(1, 8), st.booleans())
def test_every_node_of_a_path_of_any_length_gets_valid_configuration(hops, from_last):
    """Both ends have the application; only several hops need a virtual link, and each node between joins two links."""
    route = Route(ids(hops + 1, 1), ids(hops, 50), from_last=from_last)
    parts = configuration.links(KSID, route, 100)
    for at_master, at in ((True, 0), (False, hops)):
        app = configuration.application(KSID, PAIR, route, at_master=at_master, declares={})
        parts[at] = configuration.merged(parts[at], app)

    for node, part in zip(route.nodes, parts, strict=True):
        validate({gs015.NODE: {"qkdn_id": node, **part}})
        assert configuration.is_complete(part, part)
        assert bool(part) <= configuration.is_complete(part, {})
    virtual = [part.get("qkd_links", {}).get("qkd_link", []) for part in parts]
    assert [len(found) for found in virtual] == [int(hops > 1)] * (hops + 1)
    for at in range(1, hops):
        internal = parts[at]["qkd_applications"]["qkd_app"][0]
        assert internal["backing_qkdl_id"] == list(route.links[at - 1 : at + 1])


def test_virtual_link_leads_from_the_end_that_pays_double():
    """Which is how nodes hear of it, in the standard's words; the ends of the session stay what they are."""
    route = Route(ids(3, 1), ids(2, 50))
    one, other = (
        configuration.links(KSID, replace(route, from_last=from_last), 100)[0]["qkd_links"]["qkd_link"][0]
        for from_last in (False, True)
    )

    assert (one.get("virt_prev_hop"), one.get("virt_next_hop")) == (None, [ids(3, 1)[1]])
    assert (other.get("virt_prev_hop"), other.get("virt_next_hop")) == (ids(3, 1)[1], None)
    assert one["qkdl_remote"] == other["qkdl_remote"]


def test_session_that_moves_gets_another_link_and_keeps_its_id():
    """So that it is not complete where the old link still feeds it; and each link is removed by its own name."""
    there = Route(ids(3, 1), ids(2, 50))
    moved = Route(ids(3, 1), ids(2, 60), 1)
    old, new = (
        configuration.merged(
            configuration.links(KSID, route, 100)[0],
            configuration.application(KSID, PAIR, route, at_master=True, declares={}),
        )
        for route in (there, moved)
    )

    assert configuration.application_of(old, KSID)["app_id"] == configuration.application_of(new, KSID)["app_id"]
    assert configuration.virtual_link(KSID) != configuration.virtual_link(KSID, 1)
    both = configuration.merged(configuration.links(KSID, moved, 100)[0], old)
    assert not configuration.is_complete(both, new)
    assert configuration.is_complete(new, new)
    assert set(configuration.link_resources(KSID, 1)) < set(configuration.resources(KSID, moved, moved.nodes[0]))
    assert not set(configuration.link_resources(KSID, 0)) & set(configuration.resources(KSID, moved, moved.nodes[0]))


def test_master_can_have_the_link_before_the_application():
    """What it is told in the first step."""
    route = Route(ids(3, 1), ids(2, 50))
    app = configuration.application(KSID, PAIR, route, at_master=True, declares={})
    whole = configuration.merged(configuration.links(KSID, route, 100)[0], app)

    before = configuration.without_application(whole, KSID)

    assert [a["app_id"] for a in before["qkd_applications"]["qkd_app"]] == [configuration.virtual_link(KSID)]
    assert before["qkd_links"] == whole["qkd_links"]
    assert configuration.is_complete(whole, before)
    assert not configuration.is_complete(before, whole)


def node(own: str, far: str, **members: Any) -> dict[str, Any]:
    """A node with a physical link to another one."""
    link = {"qkdl_id": ids(1, 50)[0], "qkdl_type": gs015.PHYS, "qkdl_remote": {"qkdn_id": far},
            "qkdl_local": {"qkdi_id": 1}, **members}  # fmt: skip
    return {"qkdn_id": own, "qkd_links": {"qkd_link": [link]}}


@pytest.fixture
def graph() -> Graph:
    """Two nodes that show the same link; only one knows its QC's name."""
    made = Graph()
    a, b = ids(2, 1)
    made.put(Agent("a", "https://a"), node(a, b), {1: "qc"}, extended=True)
    made.put(Agent("b", "https://b"), node(b, a), {}, extended=False)
    return made


def test_link_is_there_when_both_ends_show_it(graph):
    """With the name that one of them has for it; one end alone makes none."""
    assert [(link.qc, link.ends, link.enabled, link.status) for link in graph.links().values()] == [
        ("qc", ("a", "b"), True, "PENDING")
    ]
    graph.put(Agent("b", "https://b"), node(ids(2, 1)[1], ids(1, 7)[0]), {}, extended=False)
    assert graph.links() == {}


@pytest.mark.parametrize("end", ["a", "b"])
def test_link_that_one_end_has_switched_off_is_not_used(graph, end):
    """It is still shown."""
    a, b = ids(2, 1)
    own, far = (a, b) if end == "a" else (b, a)
    graph.put(Agent(end, "https://x"), node(own, far, qkdl_enable=False), {1: "qc"}, extended=True)

    assert not graph.topology().has_edge("a", "b")
    assert [link.enabled for link in graph.links().values()] == [False]


def test_report_of_many_slots_counts_as_far_as_they_are_in_the_window(graph):
    """A node that was not heard for 30 slots made 1200 bytes meanwhile: 400 of them in the last 10."""
    graph.report("a", 40, [Report("qc", 1200, 300, 0)], since=10)

    (view,) = graph.views(["qc"], 10)

    assert (view.generated_bytes, view.requested_bytes, view.slots) == (400, 100, 10)


def test_window_that_is_not_full_yet_says_how_many_slots_it_has(graph):
    """Two slots of 40 bytes, the second in two reports, the later of which is of all of it."""
    for slot, n_bytes in ((1, 40), (2, 30), (2, 40)):
        graph.report("a", slot, [Report("qc", n_bytes, 0, 5)], since=slot - 1)

    (view,) = graph.views(["qc"], 15)

    assert (view.generated_bytes, view.slots) == (80, 2)
