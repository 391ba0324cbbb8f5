"""What an operator sets while the network runs: all nodes follow it, whenever they come."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import request

from controller.limits import REWEIGHED_AT_ONCE
from etsi import gs015
from telemetry import journal
from tests.support.followed import LINKS, World, figures, stumble
from tests.support.waiting import until


def parameters_at(world: World, name: str) -> dict[str, Any]:
    """Those that a node follows."""
    return world.nodes[name].datastore.tree["qkd-testbed:node"]["parameters"]


def test_parameters_change_at_run_time_and_reach_the_nodes(world):
    """They follow when the answer comes; sessions go on, and the journal has the change."""
    session = world.open("b", "c")
    wanted = {"mode": "otp", "ttl_slots": 20, "keys_ahead": 4, "implicit_idle_s": 60}
    try:
        assert world.set(mode="otp", ttl_slots=20).body["mode"] == "otp"
        assert [parameters_at(world, n) for n in "abcd"] == [wanted] * 4
    finally:
        world.set(mode="basic", ttl_slots=15)

    assert session["ksid"] in world.open_sessions()
    events = journal.read(world.directory / "ctl" / "journal.jsonl")
    assert [e["mode"] for e in events if e["event"] == "parameters"][-2:] == ["otp", "basic"]


def test_open_sessions_need_what_the_new_mode_takes(world):
    """128 bits every 5 s: BASIC takes two units of a link, OTP one. Nothing else is told to the nodes."""
    ksid = world.open("a", "d")["ksid"]
    (virtual,) = world.nodes["a"].app(ksid)["backing_qkdl_id"]
    assert figures(world, ksid) == [52] * 6
    told = len(world.nodes["a"].told)
    try:
        world.set(mode="otp")
        assert until(lambda: figures(world, ksid) == [26] * 6)
        mine = [e for e in world.nodes["a"].told[told:] if e[2] in (virtual, ksid)]
        assert mine == [("+", "app", virtual), ("+", "link", virtual)]
    finally:
        world.set(mode="basic")
    assert until(lambda: figures(world, ksid) == [52] * 6)


def test_change_of_mode_is_no_storm(world):
    """However many sessions there are, a node is asked for few changes at a time, and in the end has all."""
    ksids = [world.open("a", "d")["ksid"] for _ in range(REWEIGHED_AT_ONCE + 4)]
    there, go = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        found = (request.json or {}).get(gs015.NODE, {}).get("qkd_links", {}).get("qkd_link", [])
        if any(e.get("qkdl_type") == gs015.VIRT for e in found):
            there.release()
            go.wait(10)

    world.nodes["c"].before_edit = wait
    try:
        world.set(mode="otp")
        assert all(there.acquire(timeout=10) for _ in range(REWEIGHED_AT_ONCE))
        assert world.open("a", "b")["state"] == "open", "others are served meanwhile"
        assert not there.acquire(blocking=False)
        go.set()
        assert until(lambda: all(figures(world, ksid) == [26] * 6 for ksid in ksids))
    finally:
        go.set()
        world.nodes["c"].before_edit = lambda: None
        world.set(mode="basic")


def test_node_that_stumbles_over_a_change_of_mode_takes_it_over_later(world):
    """It is asked again."""
    ksid = world.open("a", "d")["ksid"]
    node, stumbled = world.nodes["c"], threading.Event()
    try:
        world.set(mode="otp", keys_ahead=4)
        assert until(lambda: figures(world, ksid) == [26] * 6)
        node.before_edit = lambda: request.path.endswith("qkd_node") and stumble(node, stumbled)
        world.set(mode="basic")
        assert until(stumbled.is_set)
    finally:
        node.before_edit = lambda: None
        node.broken = False
        world.set(mode="basic")
    assert until(lambda: figures(world, ksid) == [52] * 6)


def test_node_that_was_away_when_the_mode_changed_follows_it(alone):
    """When it is found again."""
    alone.start_with_nodes()
    ksid = alone.open("a", "d")["ksid"]
    old = alone.nodes["c"]
    old.stop()
    assert until(lambda: "c" not in alone.operator("status")["nodes"])
    alone.set(mode="otp")
    (virtual,) = alone.nodes["a"].app(ksid)["backing_qkdl_id"]
    assert until(lambda: alone.nodes["a"].link(virtual)["virt_bandwidth"] == 26)

    alone.play("c", LINKS["c"], port=old.server.port)

    assert until(lambda: figures(alone, ksid) == [26] * 6)


def test_node_that_comes_later_follows_the_parameters_of_now(alone):
    """It is told when it is found."""
    alone.start_with_nodes()
    alone.set(ttl_slots=33)
    late = alone.play("late", {"y": "a"})
    assert alone.call("PUT", "agents/late", {"url": late.url}).status == 204

    alone.wait_for_nodes()

    assert until(lambda: parameters_at(alone, "late")["ttl_slots"] == 33)


def test_node_that_is_being_told_parameters_when_they_change_is_told_the_new_ones(alone):
    """What changes between the first telling and the end of finding a node is not lost, nor overtaken by the old."""
    alone.start_with_nodes()
    telling, changed = threading.Event(), threading.Event()
    late = alone.play("late", {"y": "a"})
    late.before_edit = lambda: (telling.set(), changed.wait(10))
    assert alone.call("PUT", "agents/late", {"url": late.url}).status == 204
    assert telling.wait(10)

    with ThreadPoolExecutor(1) as operator:
        answer = operator.submit(alone.set, ttl_slots=34)
        assert until(lambda: alone.operator("parameters")["ttl_slots"] == 34)
        changed.set()
        assert answer.result().status == 200

    assert until(lambda: parameters_at(alone, "late")["ttl_slots"] == 34)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"mode": "magic"}, "mode"), ({"ttl_slots": 0}, "ttl_slots"), ({"keys_ahead": "4"}, "keys_ahead"),
     ({"implicit_idle_s": 0}, "implicit_idle_s"), ({"admission": "maybe"}, "admission"),
     ({"path_policy": "longest"}, "path_policy"), ({"colour": 1}, "colour")],
)  # fmt: skip
def test_wrong_parameter_is_refused_by_name_and_changes_nothing(world, change, field):
    """Not even the right ones beside it."""
    before = world.operator("parameters")

    reply = world.set(**({"keys_ahead": 7} | change))

    assert (reply.status, reply.detail("field")) == (400, field)
    assert world.operator("parameters") == before


def test_rate_of_a_qc_reaches_the_nodes_at_its_ends(world):
    """And no other; an unknown QC is 404."""
    assert world.call("PUT", "qcs/ab/rate", {"low": 1, "high": 2}).status == 204
    rates = {
        n: {q["name"]: q["rate"] for q in world.nodes[n].datastore.tree["qkd-testbed:node"]["qcs"]["qc"] if "rate" in q}
        for n in "abcd"
    }

    assert rates == {"a": {"ab": {"low": 1, "high": 2}}, "b": {"ab": {"low": 1, "high": 2}}, "c": {}, "d": {}}
    assert world.call("PUT", "qcs/xy/rate", {"low": 1, "high": 2}).status == 404
    assert world.call("PUT", "qcs/ab/rate", {"low": 2, "high": 1}).status == 400
