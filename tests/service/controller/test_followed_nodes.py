"""What is out of order, comes again or is restarted: which sessions there can be, and which go on."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etsi import gs015
from ietf.restconf import parse_target
from node.tree.model import MODEL, apps, link_id, links
from node.tree.operational_state import QcState
from telemetry import journal
from tests.support.followed import LINKS
from tests.support.waiting import until


def test_no_path_is_refused_with_its_cause(world):
    """A node whose QCs nobody confirms is an island."""
    island = world.play("island", {"x": "nowhere"})
    assert world.call("PUT", "agents/island", {"url": island.url}).status == 204
    world.wait_for_nodes()

    _, refused = world.request("a", "island")

    assert (refused.status, refused.detail("cause")) == (503, "no_path")
    assert world.call("DELETE", "agents/island").status == 204
    world.nodes.pop("island").stop()
    assert "island" not in world.operator("status")["nodes"]
    assert world.call("DELETE", "agents/island").status == 404


def test_no_new_session_takes_a_link_that_is_switched_off(world):
    """qkdl_enable=false at one end is enough; the sessions that are open stay, and the link is found again."""
    running = world.open("a", "c")
    assert running["path"] == ["a", "c"]
    assert world.call("PUT", "qcs/ac/generation", {"enabled": False}).status == 204
    try:
        link = world.link("ac")
        assert link["enabled"] is False
        assert all(world.nodes[n].link(link["qkdl_id"])["qkdl_enable"] is False for n in "ac")
        assert world.open("a", "c")["path"] == ["a", "b", "c"]
        assert running["ksid"] in world.open_sessions()
    finally:
        assert world.call("PUT", "qcs/ac/generation", {"enabled": True}).status == 204
    assert world.open("a", "c")["path"] == ["a", "c"]
    assert world.call("PUT", "qcs/zz/generation", {"enabled": True}).status == 404
    assert world.call("PUT", "qcs/ac/generation", {"enabled": 1}).detail("field") == "enabled"


def test_change_that_a_node_tells_of_is_read(world):
    """Another controller, or the device itself, changed a link there: the notification has no more than the status."""
    key = link_id("ac")
    target = parse_target(MODEL, f"{gs015.NODE}/qkd_links/qkd_link={key}/qkdl_enable")
    for enabled, name in ((False, "alarm"), (True, "event")):
        world.nodes["a"].datastore.edit("PUT", target, {"etsi-qkd-sdn-node:qkdl_enable": enabled})

        world.nodes["a"].streams.notify(name, {"link": {"qkdl_id": key, "qkdl_status": gs015.PASSIVE}})

        assert until(lambda wanted=enabled: world.link("ac")["enabled"] is wanted)


def test_full_disk_of_a_node_is_a_refusal_in_its_words_and_no_bug(world):
    """503, and the master reads what is full where."""
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.nodes["c"].before_edit = full
    try:
        _, refused = world.request("a", "c")
    finally:
        world.nodes["c"].before_edit = lambda: None

    assert refused.status == 503
    assert "the machine of this node refuses: No space left on device" in refused.message


def test_status_read_in_a_bad_moment_is_read_again_once_keys_are_made(world):
    """A node that was read between two looks of its own sees no change, and tells of none."""
    node = world.nodes["a"]
    node.fail("ac")
    try:
        assert until(lambda: world.link("ac")["status"] == "OFF")
        node.qcs["ac"] = QcState(generated=2, rate_bps=320.0, alive=True, generates=True)

        node.report(world.operator("status")["nodes"]["a"]["slot"] + 1, ac=(40, 0, 40))

        assert until(lambda: world.link("ac")["status"] == "PENDING")  # as the other end has it
    finally:
        node.qcs.pop("ac")
        node.streams.notify("event", {})
        world.catch_up("a")


def test_no_new_session_passes_a_node_that_relays_nothing(world):
    """key_relay_mode_enable=false, as the node shows it; sessions that end there are none of its relays."""
    target = parse_target(MODEL, f"{gs015.NODE}/qkdn_capabilities/key_relay_mode_enable")
    node, leaf = world.nodes["c"], "etsi-qkd-sdn-node:key_relay_mode_enable"
    node.datastore.edit("PUT", target, {leaf: False})
    try:
        node.streams.notify("event", {})
        world.catch_up("c")
        _, refused = world.request("a", "d")
        assert (refused.status, refused.detail("cause")) == (503, "no_path")
        assert world.open("a", "c")["path"] == ["a", "c"]
    finally:
        node.datastore.edit("PUT", target, {leaf: True})
        node.streams.notify("event", {})
        world.catch_up("c")
    assert world.open("a", "d")["path"] == ["a", "c", "d"]


def test_restarted_node_is_told_of_its_sessions_again(alone):
    """As far as it has lost them; and of those that ended meanwhile it is told that they are over."""
    alone.start_with_nodes()
    kept, ended = alone.open("a", "d")["ksid"], alone.open("a", "d")["ksid"]
    old = alone.nodes["c"]
    port = old.server.port
    old.server.stop()
    assert until(lambda: "c" not in alone.operator("status")["nodes"])
    assert alone.call("DELETE", f"key_sessions/{ended}").status == 204
    (virtual,) = alone.nodes["a"].app(kept)["backing_qkdl_id"]
    old.datastore.end_app(virtual)
    before = {e["qkdl_id"] for e in links(old.datastore.tree)}
    old.store.close()

    new = alone.play("c", LINKS["c"], port=port)

    def there() -> set[str]:
        return {e["qkdl_id"] for e in links(new.datastore.tree)}

    assert until(lambda: virtual in there() and len(before - there()) == 1)


def test_unreachable_node_is_avoided_and_named(alone):
    """Paths lead around it; sessions that end there are refused with its name."""
    alone.start_with_nodes()
    alone.nodes.pop("c").stop()
    assert until(lambda: "c" not in alone.operator("status")["nodes"])
    assert alone.open("a", "b")["path"] == ["a", "b"]

    _, refused = alone.request("a", "d")

    assert (refused.status, refused.detail("cause")) == (503, "no_path")
    found = {n["name"]: n["status"] for n in alone.operator("topology")["nodes"]}
    assert found == {"a": "OPERATING", "b": "OPERATING", "c": "FAILURE", "d": "OPERATING"}


def test_killed_controller_goes_on_with_what_was_open_and_set(alone):
    """Sessions with path and mode, parameters, rates; an end is as final as before."""
    alone.start_with_nodes()
    closed, kept = alone.open("a", "c")["ksid"], alone.open("a", "d")
    alone.call("DELETE", f"key_sessions/{closed}")
    alone.set(ttl_slots=20)
    alone.call("PUT", "qcs/ab/rate", {"low": 7, "high": 8})
    before = alone.open_sessions()

    alone.restart()

    assert alone.open_sessions() == before
    assert before[kept["ksid"]]["path"] == kept["path"]
    assert closed not in before
    assert alone.operator("parameters")["ttl_slots"] == 20
    alone.wait_for_nodes()
    assert alone.open("a", "d")["path"] == ["a", "c", "d"]


def test_without_a_controller_new_sessions_get_a_clear_error(alone):
    """At once; and when it is back, its nodes are known and sessions open."""
    alone.start_with_nodes()
    assert alone.process is not None
    alone.process.kill()
    assert until(lambda: not any(node.followed for node in alone.nodes.values()))

    refused = alone.nodes["a"].ask(alone.pair("a", "d"), "master")

    assert (refused.status, refused.detail("cause")) == (503, "controller_unreachable")
    alone.start().wait_ready(20)
    alone.wait_for_nodes()
    assert alone.implicit("a", "d").status == 200


def test_session_that_was_being_opened_when_the_controller_was_killed_is_forgotten_by_all(alone):
    """Nobody was given its KSID: nodes that heard of it are told that it is over."""
    alone.start_with_nodes()
    killed = threading.Event()
    alone.nodes["c"].before_edit = lambda: killed.wait(20)
    told = len(alone.nodes["d"].told)
    pair = alone.pair("a", "d")
    alone.nodes["d"].ask(pair, "slave")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(alone.nodes["a"].ask, pair, "master")
        assert until(lambda: len(alone.nodes["d"].told) > told)
        alone.process.kill()
        killed.set()
        alone.start().wait_ready(20)

        def kept() -> list[Any]:
            tree = alone.nodes["d"].datastore.tree
            return [*apps(tree), *(e for e in links(tree) if e["qkdl_type"] != gs015.PHYS)]

        assert until(lambda: kept() == [])
        assert alone.open_sessions() == {}


def test_operator_sees_links_with_rates_and_stock(alone):
    """Generated is what either end saw, not the sum; requests add up, those of the masters of sessions over it too."""
    alone.start_with_nodes()
    assert alone.open("d", "b")["qcs"] == ["cd", "bc"]
    for slot in (1, 2):
        alone.nodes["b"].report(slot, bc=(40, 16, 40 * slot, 48))
        alone.nodes["c"].report(slot, bc=(40, 0, 40 * slot))
        alone.nodes["d"].report(slot, bc=(None, 32, None))

    def link() -> Any:
        return next(q for q in alone.operator("qcs")["qcs"] if q["qc"] == "bc")

    assert until(lambda: link()["requested_per_slot"] == 48.0)
    assert link() == {
        "qc": "bc", "qkdl_id": link()["qkdl_id"], "ends": ["b", "c"], "status": "PENDING", "enabled": True,
        "rate": None, "qber_percent": None, "generated_per_slot": 40.0, "requested_per_slot": 48.0,
        "reserved_per_slot": 3.2, "stored_bytes": 80,
    }  # fmt: skip


def test_what_sessions_asked_that_are_over_by_their_nodes_report_counts(alone):
    """In an overload many end at once, with a request that was not met: one of each counts on QCs of others."""
    alone.start_with_nodes()
    for _ in range(3):
        ksid = alone.open("d", "b")["ksid"]  # over cd, bc
        assert alone.call("DELETE", f"key_sessions/{ksid}").status == 204
    for name in "bc":
        alone.nodes[name].report(1, bc=(40, 0, 40))
    alone.nodes["d"].report(1, bc=(None, 1000, None))

    def asked() -> float:
        return next(q for q in alone.operator("qcs")["qcs"] if q["qc"] == "bc")["requested_per_slot"]

    assert until(lambda: asked() == 3 * 16)


def test_operator_sees_nodes_and_parameters(world):
    """And the sessions with their states."""
    session = world.open("b", "c")
    status = world.operator("status")

    assert set("abcd") <= set(status["nodes"])
    assert status["parameters"] == {
        "mode": "basic", "ttl_slots": 15, "keys_ahead": 4, "implicit_idle_s": 60, "admission": "none",
        "path_policy": "shortest", "mechanism": "both",
    }  # fmt: skip
    assert (session["state"], session["path"], session["mode"]) == ("open", ["b", "c"], "basic")


def test_journal_has_the_times_of_an_initialisation(world):
    """Each side's registration; then, since the second one: path chosen, agents informed, KSID assigned."""
    session = world.open("a", "d")

    events = journal.read(world.directory / "ctl" / "journal.jsonl")
    mine = [e for e in events if e.get("master_sae") == session["master_sae"]]
    assert [e["event"] for e in mine] == ["application_registered"] * 2 + ["ksid_assigned"]
    assert 0 < mine[2]["path_chosen"] <= mine[2]["agents_informed"] <= mine[2]["ksid_assigned"]
