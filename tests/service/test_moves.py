"""Key sessions whose path dies: the real controller moves them, or says that they wait; nodes are played."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import request

from etsi import gs015
from ietf.restconf import parse_target
from node.tree.model import MODEL, apps, link_id, links
from tests.support.followed import World
from tests.support.ring import RING, SOON, Ring
from tests.support.waiting import until

PATIENCE_S = 15


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    """The ring, up."""
    made = Ring(tmp_path)
    try:
        made.start_all()
        yield made
    finally:
        made.stop()


def test_session_goes_around_a_dead_qc_and_comes_back(ring):
    """The KSID stays, the old link is gone from everywhere, and it moves no more often than it must."""
    ksid = ring.open("a", "b")["ksid"]
    assert ring.goes(ksid, "a", "b")

    ring.nodes["b"].fail("ab")
    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))
    ring.nodes["b"].heal("ab")
    assert until(lambda: ring.goes(ksid, "a", "b"))

    moved = ring.events("session_moved")
    assert [(e["ksid"], e["path"], e["down"]) for e in moved] == [
        (ksid, ["a", "d", "c", "b"], ["QC ab"]), (ksid, ["a", "b"], []),
    ]  # fmt: skip


def test_keys_that_are_under_way_when_a_session_moves_come_to_their_end(ring):
    """The slave's end takes keys over both ways, until the master's end has made them over the new one for a while."""
    ksid = ring.open("a", "b")["ksid"]
    (old,) = ring.nodes["a"].app(ksid)["backing_qkdl_id"]
    fed: list[tuple[str, list[str]]] = []
    for name in "ab":
        ring.nodes[name].datastore.on_change(
            lambda change, name=name: fed.extend((name, now["backing_qkdl_id"]) for _, now in change.apps.values()
                                                 if now and now["app_id"] == ksid)
        )  # fmt: skip

    ring.nodes["b"].fail("ab")

    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))
    (new,) = ring.nodes["a"].app(ksid)["backing_qkdl_id"]
    assert fed == [("b", [new, old]), ("a", [new]), ("b", [new])]


@pytest.fixture
def fibre(tmp_path: Path) -> Iterator[World]:
    """Two nodes on one fibre with two QCs, the second of which makes a little more."""
    made = World(tmp_path)
    try:
        for name, peer in (("a", "b"), ("b", "a")):
            made.play(name, {"ab-1": peer, "ab-2": peer})
        made.start(**SOON).wait_ready(20)
        made.wait_for_nodes()
        for name, node in made.nodes.items():
            node.report(1, **{"ab-1": (40, 0, 40), "ab-2": (42, 0, 42)})
            made.catch_up(name)
        yield made
    finally:
        made.stop()


def test_sessions_share_the_qcs_of_a_fibre_and_move_to_another_when_theirs_dies(fibre):
    """The QC that has most left is taken; the KSID stays, and both ends are fed by the other QC."""
    sessions = [fibre.open("a", "b") for _ in range(3)]
    assert [s["qcs"] for s in sessions] == [["ab-2"], ["ab-1"], ["ab-2"]]

    fibre.nodes["b"].fail("ab-2")

    ksid, feeds = sessions[0]["ksid"], [link_id("ab-1")]
    assert until(lambda: {tuple(s["qcs"]) for s in fibre.open_sessions().values()} == {("ab-1",)})
    assert until(lambda: all(n.app(ksid)["backing_qkdl_id"] == feeds for n in fibre.nodes.values()))


def test_what_others_have_set_of_an_application_outlasts_a_move(ring):
    """An end of it, a limit, a priority: a move does not take them away."""
    ksid = ring.open("a", "b")["ksid"]
    foreign = {"expiration_time": "2999-01-01T00:00:00Z", "app_priority": 3}
    place = parse_target(MODEL, f"{gs015.NODE}/qkd_applications/qkd_app={ksid}")
    entry = {"app_id": ksid, "app_qos": {"max_bandwidth": 1000}, **foreign}
    ring.nodes["a"].datastore.edit("PATCH", place, {"etsi-qkd-sdn-node:qkd_app": [entry]})

    ring.nodes["b"].fail("ab")

    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))
    app = ring.nodes["a"].app(ksid)
    assert app["app_qos"] == {"min_bandwidth": 26, "max_bandwidth": 1000}
    assert {member: app.get(member) for member in foreign} == foreign


def test_session_goes_around_a_dead_node_which_forgets_it_when_it_comes_back(ring):
    """Its link leads nowhere any more; the other way is as short, so the session stays there."""
    ksid = ring.open("a", "c")["ksid"]
    assert ring.goes(ksid, "a", "b", "c")
    old = ring.nodes.pop("b")
    port = old.server.port
    old.stop()

    assert until(lambda: ring.goes(ksid, "a", "d", "c"))
    ring.play("b", RING["b"], port=port)

    assert until(lambda: ring.goes(ksid, "a", "d", "c"))
    assert ring.nodes["b"].sessions.all() == []


def test_session_without_another_way_waits_and_its_master_is_told_why(ring):
    """The word names what is down; when it is back, the session goes on as before."""
    ksid = ring.open("a", "c")["ksid"]
    pair = ring.nodes["a"].sessions.get(ksid).pair
    ring.nodes["d"].fail("ad")
    ring.catch_up("d")
    ring.nodes["a"].fail("ab")

    def said() -> str:
        problem = ring.nodes["a"].registrations.interruption(*pair)
        return "" if problem is None else problem.message

    assert until(said)
    assert said() == "the path of the key session is down at QC ab; there is no other way"
    assert until(lambda: ring.open_sessions()[ksid]["interruption"] == said())
    _, refused = ring.request("a", "c")
    assert (refused.status, refused.detail("cause")) == (503, "no_path")
    assert refused.message == "there is no path of QCs between a and c; down: QC ab, QC ad"
    ring.nodes["a"].heal("ab")

    assert until(lambda: not said())
    assert ring.goes(ksid, "a", "b", "c")
    assert until(lambda: ring.open_sessions()[ksid]["interruption"] is None)


def test_word_that_a_node_obeyed_without_an_answer_is_taken_back(ring):
    """The controller does not know whether the node knows; when there is a path again it says so until that is sure."""
    ksid = ring.open("a", "c")["ksid"]
    pair, node = ring.nodes["a"].sessions.get(ksid).pair, ring.nodes["a"]
    node.mute = True
    ring.nodes["d"].fail("ad")
    ring.catch_up("d")
    node.fail("ab")
    assert until(lambda: node.registrations.interruption(*pair))

    node.heal("ab")
    assert until(lambda: not node.registrations.interruption(*pair))

    node.mute = False
    ring.nodes["d"].fail("ad")
    ring.catch_up("d")
    node.fail("ab")
    assert until(lambda: node.registrations.interruption(*pair))


def test_controller_that_has_forgotten_how_far_its_words_went_goes_on_above_them(ring):
    """Its store was restored from an older copy: nodes would take its words for old ones."""
    ksid = ring.open("a", "c")["ksid"]
    pair, node = ring.nodes["a"].sessions.get(ksid).pair, ring.nodes["a"]
    node.registrations.on_answer({"app_id": ksid, "state": "resumed", "version": str(1 << 50)}, "ctl")

    ring.nodes["d"].fail("ad")
    ring.catch_up("d")
    node.fail("ab")

    assert until(lambda: node.registrations.interruption(*pair))


def test_session_whose_slave_is_down_waits_for_it(ring):
    """There is no way to a node that is not there; a new controller says so anew, and a healed one takes it back."""
    ksid = ring.open("a", "b")["ksid"]
    pair = ring.nodes["a"].sessions.get(ksid).pair
    port = ring.nodes["b"].server.port
    ring.nodes["b"].stop()

    def waits() -> bool:
        problem = ring.nodes["a"].registrations.interruption(*pair)
        return problem is not None and "node b" in problem.message

    assert until(waits)
    ring.restart()
    assert not waits(), "a word holds as long as its controller listens"
    assert until(waits)
    ring.play("b", RING["b"], port=port)

    assert until(lambda: not waits())
    assert ring.goes(ksid, "a", "b")


def test_move_respects_admission(ring):
    """The other way cannot carry the session: it waits, and the word says so. When it can, the session moves."""
    for slot in range(1, 6):
        for name, node in ring.nodes.items():
            node.report(slot, **{qc: (4 if qc == "cd" else 40, 0, 0) for qc in RING[name]})
    ring.set(admission="reserve")
    pair, answer = ring.request("a", "b", size=128, interval_s=2.0)  # 8 bytes a slot; BASIC takes twice that of ad
    assert answer.status == 200, answer

    ring.nodes["a"].fail("ab")

    def said() -> str:
        problem = ring.nodes["a"].registrations.interruption(*pair)
        return "" if problem is None else problem.message

    assert until(said)
    assert "QC ab; the other way is refused: QC cd cannot carry the session" in said()
    ring.set(admission="none")
    assert until(lambda: ring.goes(answer.ksid, "a", "d", "c", "b"))
    assert until(lambda: not said())


def test_node_that_stumbles_in_a_move_delays_it(ring):
    """What was configured for nothing is removed; the next try gets through."""
    ksid = ring.open("a", "b")["ksid"]
    ring.nodes["d"].broken = True
    ring.nodes["a"].fail("ab")
    assert until(lambda: ("-", "link") in [t[:2] for t in ring.nodes["c"].told])
    assert ring.open_sessions()[ksid]["path"] == ["a", "b"]
    ring.nodes["d"].broken = False

    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))


@pytest.mark.parametrize("slow", ["d", "b"])
def test_controller_killed_in_the_middle_of_a_move_leaves_no_half_of_it(ring, slow):
    """While a node between takes the link over, or an end the application: the new controller brings it to an end."""
    ksid = ring.open("a", "b")["ksid"]
    told = {name: len(node.told) for name, node in ring.nodes.items()}
    killed = threading.Event()
    # The end b gets the link, too: it is the application that it is slow with.
    ring.nodes[slow].before_edit = lambda: (slow == "d" or request.method == "PUT") and killed.wait(PATIENCE_S)
    ring.nodes["a"].fail("ab")
    assert until(lambda: len(ring.nodes["c"].told) > told["c"])
    if slow == "b":
        assert until(lambda: stored(ring, ksid)["path"] != ["a", "b"])
    ring.process.kill()
    killed.set()
    # What the dead controller has sent may still be on its way: it arrives.
    assert until(lambda: len(ring.nodes[slow].told) > told[slow])
    ring.start(**SOON).wait_ready(20)

    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))
    ring.nodes["a"].heal("ab")
    assert until(lambda: ring.goes(ksid, "a", "b"))


def test_what_a_dead_controller_has_sent_is_removed_even_if_it_arrives_late(ring):
    """A node between is told of a link after the new controller has led the session over another one."""
    ksid = ring.open("a", "b")["ksid"]
    first, there, go = threading.Semaphore(1), threading.Event(), threading.Event()

    def hold_up_one() -> None:
        if first.acquire(blocking=False):
            there.set()
            go.wait(2 * PATIENCE_S)

    ring.nodes["d"].before_edit = hold_up_one
    ring.nodes["a"].fail("ab")
    assert there.wait(PATIENCE_S)
    ring.restart()
    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))
    told = len(ring.nodes["d"].told)

    go.set()

    assert until(lambda: len(ring.nodes["d"].told) > told)
    assert until(lambda: ring.goes(ksid, "a", "d", "c", "b"))


def stored(ring: Ring, ksid: str) -> dict[str, Any]:
    """The session as the controller has written it down."""
    with sqlite3.connect(ring.directory / "ctl" / "controller.db") as database:
        ((text,),) = database.execute("SELECT document FROM session WHERE name = ?", (ksid,))
    return json.loads(text)


def test_session_that_is_closed_while_it_moves_is_gone_from_everywhere(ring):
    """Of both ways."""
    ksid = ring.open("a", "b")["ksid"]
    closed = threading.Event()
    ring.nodes["d"].before_edit = lambda: closed.wait(PATIENCE_S)
    told = len(ring.nodes["c"].told)
    ring.nodes["a"].fail("ab")
    assert until(lambda: len(ring.nodes["c"].told) > told)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(ring.call, "DELETE", f"key_sessions/{ksid}")
        assert until(lambda: not ring.open_sessions())
        closed.set()
        assert closing.result().status == 204

    assert ring.open_sessions() == {}
    for node in ring.nodes.values():
        assert [e for e in links(node.datastore.tree) if e["qkdl_type"] == gs015.VIRT] == []
        assert apps(node.datastore.tree) == []
