"""QCs on demand at the real controller: it lights them by GS QKD 015 for key sessions; nodes are played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etsi import gs015
from ietf.restconf import parse_target
from node.tree.model import MODEL, link_id, links, node_id
from tests.support.followed import World
from tests.support.waiting import until

AC, AD = "a~c/1", "a~d/1"  # past b, and past b and c
# A line a-b-c-d.
QCS = {"a": {"ab": "b", AC: "c", AD: "d"}, "b": {"ab": "a", "bc": "c"}, "c": {"bc": "b", "cd": "d", AC: "a"},
       "d": {"cd": "c", AD: "a"}}  # fmt: skip
READY_S = 0.5


def switched(qc: str) -> dict[str, Any]:
    """A QC on demand as the controller's configuration has it."""
    a, b = qc[0], qc[2]
    return {
        "qc": qc, "a": a, "b": b, "past": ["b"], "takes": [f"module of {a}", f"module of {b}"],
        "link_id": link_id(qc), "interfaces": [list(QCS[end]).index(qc) + 1 for end in (a, b)],
        "bytes_per_slot": 100.0, "ready_s": READY_S,
    }  # fmt: skip


OPTIONS: dict[str, Any] = {
    "switched": [switched(AC), switched(AD)], "spare": {"module of a": 1, "module of c": 1, "module of d": 1},
    "parameters": {"mechanism": "bypass"}, "grace_s": 0.3, "steady_s": 0.5,
}  # fmt: skip


class Line(World):
    """The line, with a controller that can light two QCs past others, but has one module of a for both."""

    def lit(self, qc: str) -> set[str]:
        """The nodes that have the physical link of that QC."""
        shown = {
            name: {link["qkdl_id"] for link in links(node.datastore.tree) if link["qkdl_type"] == gs015.PHYS}
            for name, node in self.nodes.items()
        }
        return {name for name, found in shown.items() if link_id(qc) in found}

    def makes_key(self, qc: str, slot: int) -> None:
        """Both ends say that there is some."""
        for name in (qc[0], qc[2]):
            self.nodes[name].heal(qc)
            self.nodes[name].report(slot, **{qc: (100, 0, 100, 0)})

    def open_over(self, qc: str) -> dict[str, Any]:
        """A session over that QC, which is lit for it at the first try."""
        pair, answer = self.request(qc[0], qc[2])
        assert answer.detail("cause") == "being_lit", answer
        self.makes_key(qc, 1)
        assert until(lambda: self.link(qc)["status"] == "ACTIVE")
        assert self.nodes[qc[2]].ask(pair, "slave").status == 202
        return self.session(self.nodes[qc[0]].ask(pair, "master").ksid)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Up."""
    made = Line(tmp_path)
    try:
        for name, qcs in QCS.items():
            made.play(name, qcs)
        made.start(**OPTIONS).wait_ready(20)
        made.wait_for_nodes()
        yield made
    finally:
        made.stop()


def test_qc_is_lit_for_a_session_by_a_physical_link_at_both_ends(line):
    """The one who asked is told when to try again; the session then goes over that link, and no node between heard."""
    pair, answer = line.request("a", "c")

    assert (answer.status, answer.detail("cause"), answer.detail("qc")) == (503, "being_lit", AC)
    assert answer.detail("retry_s") >= READY_S
    assert line.lit(AC) == {"a", "c"}
    link = line.nodes["a"].link(link_id(AC))
    assert (link["qkdl_local"], link["qkdl_remote"]) == (
        {"qkdn_id": node_id("a"), "qkdi_id": 2}, {"qkdn_id": node_id("c"), "qkdi_id": 3}
    )  # fmt: skip
    line.makes_key(AC, 1)
    assert until(lambda: line.link(AC)["status"] == "ACTIVE")
    assert line.nodes["c"].ask(pair, "slave").status == 202
    found = line.session(line.nodes["a"].ask(pair, "master").ksid)
    assert (found["path"], found["qcs"]) == (["a", "c"], [AC])
    assert line.nodes["b"].told == []


def test_qc_for_which_there_is_no_module_is_not_lit(line):
    """The refusal says what there is none of."""
    line.open_over(AC)

    _, answer = line.request("a", "d")

    assert (answer.status, answer.detail("cause")) == (503, "no_path")
    assert "no module of a is to spare" in answer.message
    assert line.lit(AD) == set()


def test_qc_whose_key_others_use_up_serves_further_sessions(line):
    """It makes key: that little of it is left at a moment does not mean that it is not lit yet."""
    line.open_over(AC)
    for name in "ac":
        line.nodes[name].report(2, **{AC: (100, 100, 0, 100)})
        line.catch_up(name)

    pair, answer = line.request("a", "c")
    while answer.detail("cause") == "being_lit":  # until its time is over
        assert line.nodes["c"].ask(pair, "slave").status == 202
        answer = line.nodes["a"].ask(pair, "master")

    assert line.session(answer.ksid)["qcs"] == [AC]


def test_qc_goes_dark_when_its_session_has_ended_and_its_module_serves_another_one(line):
    """At both ends."""
    ksid = line.open_over(AC)["ksid"]

    assert line.call("DELETE", f"key_sessions/{ksid}").ok
    assert until(lambda: line.lit(AC) == set())

    assert line.open_over(AD)["path"] == ["a", "d"]


def test_controller_that_was_killed_knows_what_is_lit_by_the_nodes(line):
    """What a session goes over stays lit, and takes its module."""
    ksid = line.open_over(AC)["ksid"]

    line.restart(**OPTIONS)
    line.wait_for_nodes()

    assert until(lambda: ksid in line.open_sessions())
    _, answer = line.request("a", "d")
    assert answer.detail("cause") == "no_path"
    assert line.lit(AC) == {"a", "c"}


def test_controller_that_was_killed_has_go_dark_what_nobody_uses(line):
    """The session that it was lit for has not come to be."""
    line.request("a", "c")
    assert line.lit(AC) == {"a", "c"}

    line.restart(**OPTIONS)
    line.wait_for_nodes()

    assert until(lambda: line.lit(AC) == set())


def test_qc_that_a_node_has_lost_is_lit_again_for_the_session_over_it(line):
    """As after a node that began anew."""
    line.open_over(AC)
    node = line.nodes["c"]

    node.datastore.edit("DELETE", parse_target(MODEL, f"{gs015.NODE}/qkd_links/qkd_link={link_id(AC)}"), None)
    node.fail("bc")  # so that it is read again

    assert until(lambda: line.lit(AC) == {"a", "c"})


def test_qc_that_makes_no_key_in_its_time_is_given_up_and_left_alone(line):
    """Its session is refused; relays may serve it, if they are allowed."""
    pair, answer = line.request("a", "c")
    while answer.detail("cause") == "being_lit":
        assert line.nodes["c"].ask(pair, "slave").status == 202
        answer = line.nodes["a"].ask(pair, "master")

    assert (answer.status, answer.detail("cause"), answer.detail("qc")) == (503, "not_lit", AC)
    _, again = line.request("a", "c")
    assert again.detail("cause") == "no_path"
    assert line.set(mechanism="relay").ok
    assert line.open("a", "c")["path"] == ["a", "b", "c"]


def test_mechanism_relay_lights_nothing_past_others(line):
    """Whatever is to spare."""
    assert line.set(mechanism="relay").ok

    assert line.open("a", "d")["path"] == ["a", "b", "c", "d"]
    assert line.lit(AC) | line.lit(AD) == set()


@pytest.mark.parametrize("makes_key", [True, False])
def test_qc_is_lit_for_a_session_that_has_no_other_way_and_it_moves_once_there_is_key(line, makes_key):
    """Until then its application is told what it waits for, and stays where it was."""
    assert line.set(mechanism="both").ok
    found = line.open("a", "d")
    assert found["path"] == ["a", "b", "c", "d"]

    for name in "cd":
        line.nodes[name].fail("cd")

    assert until(lambda: line.lit(AD) == {"a", "d"})
    assert until(lambda: f"QC {AD} is being lit for it" in str(line.open_sessions()[found["ksid"]]["interruption"]))
    assert line.open_sessions()[found["ksid"]]["path"] == found["path"]
    if makes_key:
        line.makes_key(AD, 1)
        assert until(lambda: line.open_sessions()[found["ksid"]]["path"] == ["a", "d"])
        assert until(lambda: line.open_sessions()[found["ksid"]]["interruption"] is None)
    else:
        assert until(lambda: "makes no key" in str(line.open_sessions()[found["ksid"]]["interruption"]))
        assert line.open_sessions()[found["ksid"]]["path"] == found["path"]


def test_session_for_whose_move_there_is_no_module_is_told_so_and_moves_when_there_is_one(line):
    """There is one module of a, and another session uses it."""
    other = line.open_over(AC)["ksid"]
    assert line.set(mechanism="both").ok
    ksid = line.open("a", "d")["ksid"]

    for name in "cd":
        line.nodes[name].fail("cd")

    assert until(lambda: "no module of a is to spare" in str(line.open_sessions()[ksid]["interruption"]))
    assert (line.lit(AD), line.lit(AC)) == (set(), {"a", "c"})
    assert line.call("DELETE", f"key_sessions/{other}").ok
    assert until(lambda: line.lit(AD) == {"a", "d"})
    assert line.lit(AC) == set()
    line.makes_key(AD, 1)
    assert until(lambda: line.open_sessions()[ksid]["path"] == ["a", "d"])


def test_qc_that_was_lit_for_a_move_goes_dark_when_its_session_has_ended_before(line):
    """Its modules are to spare again."""
    assert line.set(mechanism="both").ok
    ksid = line.open("a", "d")["ksid"]
    for name in "cd":
        line.nodes[name].fail("cd")
    assert until(lambda: line.lit(AD) == {"a", "d"})

    assert line.call("DELETE", f"key_sessions/{ksid}").ok

    assert until(lambda: line.lit(AD) == set())


def test_mechanism_relay_lights_nothing_past_others_for_a_move_either(line):
    """The session waits."""
    assert line.set(mechanism="relay").ok
    ksid = line.open("a", "d")["ksid"]
    for name in "cd":
        line.nodes[name].fail("cd")

    assert until(lambda: "there is no path of QCs" in str(line.open_sessions()[ksid]["interruption"]))
    assert line.lit(AD) == set()
