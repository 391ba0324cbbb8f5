"""What the page says and draws of a network, in each state of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.failures import KeyFailure
from scenario.topology import load
from testbed.dashboard.collected.snapshot import FibreNow, Heard, Sample, Snapshot, Tally
from testbed.dashboard.collected.timeline import FAULT, HEALED, MOVED, REFUSED, SET, Happening
from testbed.dashboard.panels import charts
from testbed.dashboard.views import layout, view_map, view_tables, view_timeline
from testbed.dashboard.views.selection import LINK, NODE, SESSION, WHOLE, Selection, choices, selected
from testbed.dashboard.views.view_details import details
from testbed.dashboard.views.view_tables import why_failed, why_refused
from testbed.planning.fault import Fault
from testbed.planning.make import make_plan

PLAN = make_plan(load("poliqi", Path("topologies")))
NAME = "government-military"
FIBRES = {p.link.name: FibreNow(True, (p.link.a_to_b, p.link.b_to_a)) for p in PLAN.links}
QCS = [
    {"qc": qc.name, "status": "ACTIVE", "enabled": True, "qber_percent": 1.9}
    for link in PLAN.topology.links
    for qc in link.qcs
]


def session(**changes: Any) -> dict[str, Any]:
    master, slave = PLAN.sae("tax-office"), PLAN.sae("billing")
    assert master is not None
    assert slave is not None
    return {
        "ksid": "00000000-0000-4000-8000-000000000001", "master_sae": master.id, "slave_sae": slave.id, "state": "open",
        "master": master.name, "slave": slave.name, "mode": "basic", "path": ["government", "military", "telecom"],
        "qcs": ["government-military/1", "military-telecom/1"], "qos": {"key_size_bits": 128, "interval_s": 5.0},
        "opened_at": 0.0, "implicit": False, "interruption": None, **changes,
    }  # fmt: skip


def snapshot(**changes: Any) -> Snapshot:
    told = {"status": {"parameters": {"ttl_slots": 15}}, "qcs": QCS, "sessions": [session()], "refusals": []}
    nodes = {n: Heard({"qcs": []}) for n in PLAN.nodes}
    well = Snapshot(
        number=1, time=1000.0, controller=Heard(told), nodes=nodes, fibres=FIBRES,
        curves={q["qc"]: (Sample(1, 40, 0, 0, 600),) for q in QCS},
    )  # fmt: skip
    return replace(well, **changes)


def link(shot: Snapshot, selection: Selection = WHOLE) -> view_map.LinkMark:
    return view_map.draw(PLAN, shot, selection).links[0]


def test_healthy_network_is_up_and_operating():
    """Nothing but figures stands at its links."""
    view = view_map.draw(PLAN, snapshot(), WHOLE)

    assert {m.state for m in view.links} == {view_map.UP}
    assert {m.state for m in view.nodes} == {view_map.OPERATING}
    assert {m.label for m in view.links} == {"40 B/s · 600 B"}
    assert {m.makes for m in view.links} == {True}


def test_each_state_of_a_link_has_a_form_and_a_word_of_its_own():
    """Cut, without new key, shaped otherwise than planned: none is told by colour."""
    dark = replace(FIBRES[NAME], lit=False)
    slow = replace(FIBRES[NAME], shapes=(replace(FIBRES[NAME].shapes[0], delay_ms=20.0), FIBRES[NAME].shapes[1]))
    failed = [Fault("qc", ("government", "military"), 0.0)]
    marks = [
        link(snapshot(fibres=FIBRES | {NAME: dark})),
        link(snapshot(fibres=FIBRES | {NAME: slow})),
        link(snapshot(faults=failed)),
    ]

    assert [m.state for m in marks] == [view_map.DOWN, view_map.CHANGED, view_map.NO_KEY]
    assert [m.label for m in marks] == ["✕ CUT", "◷ 20 / 0.042 ms", "○ no new key"]
    assert all(m.label in m.words for m in marks)
    assert [m.makes for m in marks] == [False, True, False]


def test_label_of_a_fibre_that_is_shaped_otherwise_each_way_can_be_read():
    """It is not squeezed to less than two thirds: how much is lost is among the facts."""
    there, back = FIBRES[NAME].shapes
    shapes = replace(there, delay_ms=20.25, loss_percent=1.5), replace(back, delay_ms=0.0426)
    mark = link(snapshot(fibres=FIBRES | {NAME: FibreNow(True, shapes)}))

    assert mark.label == "◷ 20.2 / 0.0426 ms, lossy"
    width = 0.55 * 16 * len(mark.label)  # of usual letters in the size of labels
    assert (view_map.layout_of(PLAN).label[0] - 18) / width > 2 / 3


def test_errors_on_a_fibre_are_seen_before_the_key_stops_and_are_said_when_it_has():
    """By a word and a form; a healthy device has about two percent."""
    def told(percent: float, status: str = "ACTIVE") -> Snapshot:
        qcs = [q | {"qber_percent": percent, "status": status} if q["qc"] == f"{NAME}/1" else q for q in QCS]
        shot = snapshot()
        return replace(shot, controller=Heard((shot.controller.answer or {}) | {"qcs": qcs}))

    marks = [link(told(2.2)), link(told(9.5)), link(told(26.0, "OFF"))]

    assert [m.state for m in marks] == [view_map.UP, view_map.NOISY, view_map.NO_KEY]
    assert [m.label for m in marks[1:]] == ["≈ 9.5 % errors", "○ no new key, 26 % errors"]


def test_node_that_does_not_answer_is_drawn_so():
    """After some seconds: one late answer is no alarm."""
    late = snapshot(nodes={n: Heard({}, silent_s=1.0) for n in PLAN.nodes})
    silent = snapshot(nodes={n: Heard({}, silent_s=10.0) for n in PLAN.nodes})

    assert {n.state for n in view_map.draw(PLAN, late, WHOLE).nodes} == {view_map.OPERATING}
    assert {n.line for n in view_map.draw(PLAN, silent, WHOLE).nodes} == {"✕ no answer"}


def test_path_of_the_selected_session_is_marked():
    """All links that it goes over, and no other."""
    view = view_map.draw(PLAN, snapshot(), Selection(SESSION, session()["ksid"]))

    assert [m.on_path for m in view.links] == [True, True, False, False, False]


def test_headline_counts_one_as_one():
    """And none as many."""
    shot = snapshot(figures=replace(Tally().figures(), failed=1, single_hop=2))

    assert view_tables.headline(shot) == (
        "1 key session open · 2 keys delivered · 1 request failed · 0 sessions refused"
    )


def test_labels_lie_beside_lines_and_outside_the_ring():
    """So that the form of a line is to be seen, and labels do not meet in the middle."""
    for mark in view_map.draw(PLAN, snapshot(), WHOLE).links:
        x1, y1, x2, y2 = mark.ends
        x, y = mark.label_at
        off = abs((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / math.hypot(x2 - x1, y2 - y1)
        assert off > 15
        middle = layout.WIDTH / 2, layout.HEIGHT / 2
        assert math.dist((x, y), middle) > math.dist(((x1 + x2) / 2, (y1 + y2) / 2), middle)


def test_everything_on_the_map_can_be_chosen_from_the_list_and_has_an_address():
    """Whoever does not use the map misses nothing."""
    view, listed = view_map.draw(PLAN, snapshot(), WHOLE), choices(PLAN, snapshot())

    assert {m.selection for m in itertools.chain(view.nodes, view.links)} < set(listed)
    assert [selected(PLAN, s.key) for s in listed] == list(listed)


@pytest.mark.parametrize("key", ["", "node:", "node:nowhere", "link:<b>", "nonsense", "network:"])
def test_address_of_nothing_is_the_whole_network(key):
    """An old link, or somebody's idea of one."""
    assert selected(PLAN, key) == WHOLE


def test_details_tell_names_and_no_ids_of_applications():
    """A session's parties are called as people call them; an interruption says why."""
    title, facts = details(PLAN, snapshot(), Selection(SESSION, session()["ksid"]))
    told = snapshot(controller=Heard({"sessions": [session(interruption="no path is left")]}))

    assert title == "Session tax-office → billing"
    assert ("path", "government – military – telecom") in facts
    assert ("master", "tax-office at government") in facts
    assert ("state", "✕ interrupted: no path is left") in details(PLAN, told, Selection(SESSION, session()["ksid"]))[1]


@pytest.mark.parametrize(
    "selection", [WHOLE, Selection(NODE, "telecom"), Selection(LINK, NAME), Selection(SESSION, "gone")]
)
def test_page_can_be_drawn_before_anything_is_known(selection):
    """The first viewer may come before the first answer."""
    view_map.draw(PLAN, Snapshot(), selection)
    view_tables.qcs(PLAN, Snapshot())

    assert details(PLAN, Snapshot(), selection)[1]
    assert view_tables.headline(Snapshot()).startswith("0 key sessions open")


def test_curves_of_a_column_share_one_scale():
    """Else a QC that makes little would look like one that makes much."""
    curves = {q["qc"]: tuple(Sample(i, 10.0 * (n + 1), 0, 0, 100) for i in range(3)) for n, q in enumerate(QCS)}
    rows = view_tables.qcs(PLAN, snapshot(curves=curves))
    heights = [float(row.sparks[0].points.split()[-1].partition(",")[2]) for row in rows]

    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == 1.0
    assert rows[0].sparks[0].now == "10 B/s"


def test_load_is_the_share_that_was_used_over_the_last_slots():
    """Keys are asked for in bursts: a slot alone says little."""
    samples = [Sample(i, 40, 80 if i % 5 == 0 else 0, 0, 500) for i in range(30)]

    assert view_tables.series(samples)[3][-1] == pytest.approx(40)


def test_distribution_counts_every_value_once():
    """Class limits belong to the class below them; beyond the last one there is one more."""
    assert charts.counts([0.5, 1.0, 1.1, 1000.0, 5000.0]) == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"cause": "refused", "qc": "a/1", "needed_bytes": 32, "available_bytes": 7}, "needs 32 bytes, 7 are to spare"),
        (
            {"cause": "refused", "qc": "a/1", "message": "QC a/1: 25 bytes were generated and 144 requested"},
            "QC a/1: 25 bytes were generated and 144 requested.",
        ),
        ({"cause": "no_path"}, "No chain of QCs"),
        ({"cause": "new one", "message": "the moon is full"}, "the moon is full."),
        ({}, "unknown."),
    ],
)
def test_refusals_are_told_in_plain_words(facts, words):
    """One that has no words of its own is told in the controller's."""
    assert words in why_refused(facts)[0]


def test_every_cause_that_a_node_names_has_words_of_its_own():
    """One that is new to the nodes shows up here, before a viewer has to guess."""
    named = {failure.cause for failure in KeyFailure.__subclasses__()} - {KeyFailure.cause}

    assert {cause for cause in named if why_failed({"cause": cause})[0] == f"{cause}."} == set()


def test_failures_name_the_short_resource():
    """Which QC, how many bytes, and what one can do."""
    why, helps = why_failed({"cause": "short_of_material", "qc": "a-b/1", "short_bytes": 12})

    assert why == "a-b/1 has too little key material that is young enough: 12 bytes short. Nothing was used up."
    assert helps


def refused(at_s: float, **facts: Any) -> Happening:
    return Happening(at_s, REFUSED, "tax-office → billing refused: QC full", ("government",), **facts)


def test_refusal_stands_at_its_node_and_its_qc_for_a_while():
    """In words and in form; then the node tells again what it counts."""
    lately = snapshot(happenings=(refused(995.0, qc=f"{NAME}/1"),))
    long_ago = snapshot(happenings=(refused(990.0, qc=f"{NAME}/1"),))

    node = {m.selection.name: m for m in view_map.draw(PLAN, lately, WHOLE).nodes}["government"]
    assert (node.state, node.line) == (view_map.ALERT, "✕ session refused")
    assert (link(lately).state, link(lately).label) == (view_map.SHORT, "✕ too little key")
    assert {m.state for m in view_map.draw(PLAN, long_ago, WHOLE).nodes} == {view_map.OPERATING}
    assert link(long_ago).state == view_map.UP


def test_node_counts_sessions_and_keys_that_end_there_and_else_those_that_it_relays():
    """A session over three nodes: two ends and a relay."""
    figures = replace(Tally().figures(), by_node={"government": 1234, "telecom": 1})
    lines = {m.selection.name: m.line for m in view_map.draw(PLAN, snapshot(figures=figures), WHOLE).nodes}

    assert lines["government"] == "1 session · 1.2k keys"
    assert lines["telecom"] == "1 session · 1 key"
    assert lines["military"] == "relays 1 session"
    assert lines["finance"] == "0 sessions · 0 keys"


def test_key_travels_its_path_once():
    """Whatever was delivered before stays where it is; a key from the pool does not move."""
    at = view_map.layout_of(PLAN).nodes
    keys = tuple(
        {"time": time, "ksid": session()["ksid"], "source": source}
        for time, source in ((900.0, "direct"), (999.5, "direct"), (999.6, "pool"))
    )
    shot = snapshot(figures=replace(Tally().figures(), keys=keys))

    assert view_map.travels(PLAN, shot, 999.0) == [
        [at[n] for n in ("government", "military", "telecom")], [at["government"]],
    ]  # fmt: skip
    assert view_map.travels(PLAN, shot, 1000.0) == []


def test_strip_moves_with_time_and_bears_one_sign_where_many_would_lie_upon_one_another():
    """Now is at its right end."""
    shot = snapshot(happenings=(*(refused(400.0 + i / 10) for i in range(5)), refused(700.0)))

    found = view_timeline.marks(shot, 400.0)

    assert view_timeline.shift(1000.0, 400.0) == 0
    assert [(m.x, m.sign) for m in found] == [(0, "●"), (592, "●")]


def test_signs_of_one_row_stand_apart_whatever_they_tell_of():
    """As far as one is broad; in another row there is room for another one."""
    kinds = (HEALED, SET, MOVED, FAULT)
    shot = snapshot(happenings=tuple(Happening(400.0 + i, kinds[i % 4], "…") for i in range(60)))

    found = view_timeline.marks(shot, 400.0)

    assert {m.kind for m in found} >= {HEALED, FAULT}
    for y in {m.y for m in found}:
        places = [m.x for m in found if m.y == y]
        assert all(after - before >= 16 for before, after in itertools.pairwise(places))


def test_rows_tell_what_happened_until_the_moment_that_the_map_shows():
    """The newest first, with a story where there is one."""
    shot = snapshot(happenings=(refused(400.0, story="t1"), Happening(500.0, FAULT, "broken: cut a b", ("a", "b"))))

    assert [row.cells[1:] for row in view_timeline.rows(shot, None)] == [
        ("✕ broken: cut a b", ""), ("● tax-office → billing refused: QC full", "story"),
    ]  # fmt: skip
    (row,) = view_timeline.rows(shot, 450.0)
    happening = view_timeline.happening_of(shot, row.key)
    assert happening is not None
    assert happening.story == "t1"


def test_used_and_expired_are_means_over_some_slots():
    """Of a burst each fifteenth slot a level line, once it was seen for so long."""
    assert view_tables.smoothed([30.0, *[0.0] * 14] * 3)[14:] == [2.0] * 31
    assert view_tables.smoothed([30.0, 0.0]) == [30.0, 15.0]
    samples = [Sample(i, 40, 0, 30 if i % 15 == 0 else 0, 500) for i in range(45)]
    assert view_tables.series(samples)[2][14:] == [2.0] * 31


def tunnelled(*events: tuple[str, str, str]) -> Snapshot:
    """After events of tunnels: what happened, at which end, to which other one; a second apart from 990 on."""
    tally = Tally()
    for i, (what, node, peer) in enumerate(events):
        facts = {"node": node, "peer": peer, "kind": "ipsec", "key_id": f"{i:08}-0000"}
        tally.take({"event": f"tunnel_{what}", "time": 990.0 + i, **facts})
    return snapshot(figures=tally.figures())


A, B = "government", "telecom"


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([("keyed", A, B), ("keyed", B, A)], "up"),
        ([("keyed", A, B), ("keyed", B, A), ("held", B, A)], "held"),
        ([("keyed", A, B), ("keyed", B, A), ("held", A, B), ("closed", B, A)], "closed"),
        ([("keyed", A, B), ("closed", A, B), ("keyed", A, B)], "up"),
    ],
)
def test_tunnel_is_drawn_once_as_its_worse_end_is(events, state):
    """Whichever of them tells first."""
    (mark,) = view_map.draw(PLAN, tunnelled(*events), WHOLE).tunnels

    assert (mark.key, mark.state) == ((A, B), state)
    assert mark.words == f"ipsec tunnel between {A} and {B}: {state}"


def test_tunnel_that_has_ended_is_drawn_no_more():
    """Also where one end tells of it late."""
    shot = tunnelled(("keyed", A, B), ("keyed", B, A), ("ended", A, B), ("ended", B, A), ("closed", B, A))

    assert view_map.draw(PLAN, shot, WHOLE).tunnels == ()
    assert view_tables.tunnels(PLAN, shot) == []


def test_ends_of_tunnels_are_listed_with_their_keys_and_ages():
    """By where they are."""
    rows = view_tables.tunnels(PLAN, tunnelled(("keyed", A, B), ("keyed", A, B), ("keyed", B, A), ("held", B, A)))

    assert [row.cells for row in rows] == [
        ("Government → Telecom", "ipsec", "● up", "00000001", "9 s", "2"),
        ("Telecom → Government", "ipsec", "◐ under an old key", "00000002", "8 s", "1"),
    ]
    assert rows[0].key.endswith(" 00000001-0000")
