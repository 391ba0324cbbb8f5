"""The real controller over real mutual TLS, nodes played by the test: key sessions begin, wait, and end."""

from __future__ import annotations

import threading

import pytest

from etsi import gs015
from node.tree.model import Change, apps, links, node_id
from tests.support.waiting import until


def ids(*names: str) -> list[str]:
    """The qkdn_id of each node."""
    return [node_id(name) for name in names]


@pytest.mark.parametrize("sides", [("slave", "master"), ("master", "slave")])
def test_second_side_opens_the_session_and_both_ends_get_the_application(world, sides):
    """In either order: the first is acknowledged without an ID, then both have a qkd_app of the same one (5.2)."""
    at = {"master": "a", "slave": "d"}
    pair = world.pair("a", "d")
    assert world.nodes[at[sides[0]]].ask(pair, sides[0]).status == 202

    answer = world.nodes[at[sides[1]]].ask(pair, sides[1])

    assert answer.status == 200
    session = world.session(answer.ksid)
    assert (session["path"], session["qcs"]) == (["a", "c", "d"], ["ac", "cd"])
    apps = [world.nodes[n].app(answer.ksid) for n in "ad"]
    for app, (local, remote) in zip(apps, (ids("a", "d"), ids("d", "a")), strict=True):
        assert (app["server_app_id"], app["client_app_id"]) == (pair[0], [pair[1]])
        assert (app["local_qkdn_id"], app["remote_qkdn_id"]) == (local, remote)
        assert app["app_qos"] == {"min_bandwidth": 26}
    assert apps[0]["backing_qkdl_id"] == apps[1]["backing_qkdl_id"]


def test_session_over_several_hops_is_a_virtual_link_on_every_node_of_its_path(world):
    """With previous and next hop; its bandwidth is an INTERNAL application of the links below."""
    session = world.open("a", "d")
    (virtual,) = world.nodes["a"].app(session["ksid"])["backing_qkdl_id"]
    physical = {e["qkdl_local"]["qkdi_id"]: e["qkdl_id"] for e in links(world.nodes["c"].datastore.tree)
                if e["qkdl_type"] == gs015.PHYS}  # fmt: skip

    hops = [(link.get("virt_prev_hop"), link.get("virt_next_hop"))
            for link in (world.nodes[n].link(virtual) for n in "acd")]  # fmt: skip
    internal = world.nodes["c"].app(virtual)

    a, c, d = ids("a", "c", "d")
    assert hops == [(None, [c]), (a, [d]), (c, None)]
    assert internal["app_type"] == gs015.INTERNAL
    assert internal["backing_qkdl_id"] == [physical[2], physical[3]]
    # 128 bits every 5 s, twice that on the first link of BASIC.
    assert internal["app_qos"]["max_bandwidth"] == world.nodes["c"].link(virtual)["virt_bandwidth"] == 52
    assert internal["app_id"] in world.nodes["c"].link(physical[2])["qkdl_applications"]


def test_session_over_one_hop_is_fed_by_the_physical_link(world):
    """No virtual link, and nobody else is told."""
    told = len(world.nodes["c"].told)
    session = world.open("a", "b")

    (backing,) = world.nodes["a"].app(session["ksid"])["backing_qkdl_id"]
    assert world.nodes["a"].link(backing)["qkdl_type"] == gs015.PHYS
    assert world.nodes["b"].app(session["ksid"])["backing_qkdl_id"] == [backing]
    assert len(world.nodes["c"].told) == told


def test_nodes_are_told_in_parallel(world):
    """Each is configured when all are about to be; the master's hears of the KSID when the slave's has it."""
    passed = threading.Event()
    together = threading.Barrier(3, passed.set)
    told_before: list[list[tuple[str, str, str]]] = []

    def meet() -> None:
        if not passed.is_set():
            together.wait(10)

    def meet_and_look() -> None:
        meet()
        told_before.append(list(world.nodes["d"].told))

    for name, step in (("a", meet_and_look), ("c", meet), ("d", meet)):
        world.nodes[name].before_edit = step
    try:
        ksid = world.open("a", "d")["ksid"]
    finally:
        for node in world.nodes.values():
            node.before_edit = lambda: None

    assert ("+", "app", ksid) in told_before[-1]
    assert ("+", "app", ksid) in world.nodes["a"].told


def test_repeated_first_side_still_waits(world):
    """An answer that was lost does no harm."""
    pair = world.pair("a", "b")

    assert [world.nodes["b"].ask(pair, "slave").status for _ in range(2)] == [202, 202]
    assert world.nodes["a"].ask(pair, "master").status == 200


def test_open_session_of_a_pair_is_not_opened_again(world):
    """409 with the KSID that there is; the other direction is another session."""
    pair, answer = world.request("a", "b")

    again = world.nodes["a"].ask(pair, "master")
    assert (again.status, again.detail("cause"), again.detail("ksid")) == (409, "exists", answer.ksid)
    assert world.nodes["a"].ask(pair[::-1], "slave").status == 202


def test_node_cannot_take_over_an_sae_that_another_has_registered(world):
    """409; the session still leads to the node that was first."""
    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")

    assert world.nodes["b"].ask(pair, "slave").status == 409
    answer = world.nodes["a"].ask(pair, "master")
    assert world.session(answer.ksid)["path"][-1] == "d"


def test_node_refuses_an_application_that_is_not_its_own(world):
    """A hostile node claims an SAE of d's: a, where the master is, does not take the session over."""
    pair = world.pair("a", "d")
    world.nodes["b"].ask(pair, "slave")

    refused = world.nodes["a"].ask(pair, "master")

    assert (refused.status, refused.detail("cause")) == (503, "agent_unreachable")
    assert "SAE" in refused.message


def test_saes_at_one_node_need_no_session(world):
    """400."""
    pair = world.pair("a", "a")
    world.nodes["a"].ask(pair, "slave")

    assert world.nodes["a"].ask(pair, "master").status == 400


def test_node_that_fails_refuses_the_session_everywhere(world):
    """503 names the node; who took the session over is told to drop it, and the pair may try again."""
    world.nodes["c"].broken = True
    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")
    try:
        refused = world.nodes["a"].ask(pair, "master")
    finally:
        world.nodes["c"].broken = False

    assert (refused.status, refused.detail("cause"), refused.detail("node")) == (503, "agent_unreachable", "c")
    assert until(lambda: [world.nodes[n].told[-1][:2] for n in "ad"] == [("-", "link")] * 2)
    assert world.operator("refusals")["refusals"][-1]["cause"] == "agent_unreachable"
    # The refusal may reach d only now, and then it is the answer to this.
    assert until(lambda: world.nodes["d"].ask(pair, "slave").status == 202)


def test_half_open_session_is_dropped_after_its_time(alone):
    """The second side then is a first one, which waits."""
    alone.start_with_nodes(half_open_timeout_s=0.5)
    pair = alone.pair("a", "d")
    alone.nodes["d"].ask(pair, "slave")

    def dropped() -> bool:
        alone.catch_up("b")  # each report is an occasion to look
        return pair not in alone.waiting()

    assert until(dropped)
    assert alone.nodes["a"].ask(pair, "master").status == 202


def test_withdrawn_registration_is_forgotten(world):
    """By the node that made it; another one cannot."""
    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")
    world.nodes["b"].registrations.withdraw(*pair)
    world.catch_up("b")
    assert world.nodes["a"].ask(pair, "master").status == 200

    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")
    world.nodes["d"].registrations.withdraw(*pair)
    world.catch_up("d")
    assert world.nodes["a"].ask(pair, "master").status == 202


@pytest.mark.parametrize("end", ["a", "d"])
def test_session_ends_by_the_notification_of_one_of_its_ends(world, end):
    """Not by a node between; all nodes of the path are told."""
    session = world.open("a", "d")
    ksid = session["ksid"]
    world.nodes["c"].registrations.ended(ksid)
    world.catch_up("c")
    assert ksid in world.open_sessions()

    world.nodes[end].registrations.ended(ksid)

    assert until(lambda: ksid not in world.open_sessions())
    assert until(lambda: all(world.nodes[n].told[-1][:2] == ("-", "link") for n in "acd"))
    assert all(world.nodes[n].sessions.get(ksid) is None for n in "ad")


def test_session_that_one_end_is_done_with_at_once_ends_everywhere(world):
    """Its node tells of the end before the controller has the node's answer that the session is configured."""
    node, over = world.nodes["a"], threading.Event()

    def done(change: Change) -> None:
        clients = (a for a in apps(change.new) if a["app_type"] == gs015.CLIENT)
        ksids = [a["app_id"] for a in clients if a["server_app_id"] == pair[0]]
        if ksids and not over.is_set():
            over.set()
            node.registrations.ended(ksids[0])
            world.catch_up("a")

    pair = world.pair("a", "b")
    world.nodes["b"].ask(pair, "slave")
    node.datastore.on_change(done)

    ksid = node.ask(pair, "master").ksid

    assert over.is_set()
    assert until(lambda: all(world.nodes[n].sessions.get(ksid) is None for n in "ab"))
    assert ksid not in {s["ksid"] for s in world.operator("key_sessions")["key_sessions"]}


def test_operator_ends_a_session(world):
    """The nodes know when the answer comes; the second time there is none."""
    ksid = world.open("a", "d")["ksid"]

    assert world.call("DELETE", f"key_sessions/{ksid}").status == 204
    assert all(world.nodes[n].sessions.get(ksid) is None for n in "ad")
    assert world.call("DELETE", f"key_sessions/{ksid}").status == 404
