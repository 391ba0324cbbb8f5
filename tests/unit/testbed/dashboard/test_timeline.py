"""What the page knows of the last minutes: what happened, and how the map looked."""

from __future__ import annotations

from pathlib import Path

from scenario.topology import load
from testbed.dashboard.collected.history import History
from testbed.dashboard.collected.snapshot import FibreNow, Snapshot
from testbed.dashboard.collected.timeline import FAILED, FAULT, HEALED, KEPT_S, MOVED, REFUSED, SET, Timeline
from testbed.dashboard.views.selection import NODE, WHOLE, Selection
from testbed.dashboard.views.view_map import draw, selected_in
from testbed.planning.make import make_plan

PLAN = make_plan(load("poliqi", Path("topologies")))
MASTER, SLAVE = PLAN.sae("tax-office"), PLAN.sae("billing")
PAIR = {"master": MASTER.name, "slave": SLAVE.name}
EVENTS = [
    {"event": "fault", "kind": "cut", "where": ["government", "military"]},
    {"event": "session_refused", "cause": "refused", "message": "QC full.", "qc": "a/1", "trace": "t1", **PAIR},
    {"event": "key_failed", "cause": "expired", "message": "too old", "trace": "t2", **PAIR},
    {"event": "key_not_fetched", "cause": "expired", "message": "too old", **PAIR},
    {"event": "session_moved", "ksid": "k", "path": ["government", "university"], **PAIR},
    {"event": "parameters", "mode": "basic", "ttl_slots": 15},
    {"event": "parameters", "mode": "qkp", "ttl_slots": 15},
    {"event": "healed", "kind": "cut", "where": ["government", "military"]},
    {"event": "qc_lit", "qc": "government~telecom/1", "past": ["military"]},
    {"event": "qc_dark", "qc": "government~telecom/1"},
    {"event": "fault", "kind": "database", "where": ["db"]},
    {"event": "database_switch", "host": "db2", "before": "db"},
    {"event": "relays_learned", "mode": "otp", "number": 1, "path": ["a", "b", "c"], "learned": {"b": "the key"}},
    {"event": "leads", "controller": "ctl", "term": 1},
    {"event": "fault", "kind": "controller", "where": ["ctl"]},
    {"event": "leads", "controller": "ctl2", "term": 2, "silent_s": 3.06},
]


def test_what_happened_is_told_in_words_with_its_place_and_its_story():
    """Each thing once: not what a slave's request adds to it."""
    timeline = Timeline(PLAN)
    for at_s, event in enumerate(EVENTS):
        timeline.take({"time": float(at_s), **event})

    assert [(h.kind, h.words, h.story) for h in timeline.latest(20.0)] == [
        (FAULT, "broken: cut government military", ""), (REFUSED, "tax-office → billing refused: QC full", "t1"),
        (FAILED, "tax-office → billing, no key: too old", "t2"),
        (MOVED, "tax-office → billing goes over government – university now", "k"), (SET, "mode is qkp now", ""),
        (HEALED, "healed: cut government military", ""),
        (SET, "government~telecom/1 is lit past military", ""), (SET, "government~telecom/1 is dark", ""),
        (FAULT, "broken: database db", ""), (MOVED, "shared database: db2 takes writes now, not db", ""),
        (SET, "controller ctl leads in term 1", ""), (FAULT, "broken: controller ctl", ""),
        (SET, "controller ctl2 leads in term 2, 3.1 s after the last word of a leader", ""),
    ]  # fmt: skip
    assert [h.nodes for h in timeline.latest(20.0)][1] == (MASTER.node,)
    assert [h.nodes for h in timeline.latest(20.0)][-5:-3] == [(), ()], "hosts of the database are on no map"
    assert timeline.latest(20.0)[1].qc == "a/1"


def test_failure_without_a_message_is_told_in_plain_words():
    """And not by the word that programs know its cause by."""
    timeline = Timeline(PLAN)
    failed = {"time": 1.0, "event": "key_failed", **PAIR}
    timeline.take({**failed, "cause": "short_of_material", "qc": "a/1", "short_bytes": 15})
    timeline.take({**failed, "cause": "database_unreachable"})

    assert [h.words.partition(": ")[2] for h in timeline.latest(20.0)] == [
        "a/1 lacks 15 bytes of key material that is young enough", "database unreachable",
    ]  # fmt: skip


def test_what_is_older_than_ten_minutes_is_forgotten_and_the_rest_is_in_order():
    """Journals are read one after another."""
    timeline = Timeline(PLAN)
    for at_s in (30.0, 10.0, 20.0):
        timeline.take({"time": at_s, **EVENTS[0]})

    assert [h.time for h in timeline.latest(40.0)] == [10.0, 20.0, 30.0]
    assert [h.time for h in timeline.latest(KEPT_S + 20.0)] == [30.0]


def test_map_of_a_moment_is_the_last_one_that_was_drawn_by_then():
    """One a second; before the first one it is the first."""
    history = History()
    assert history.at(5.0) is None
    for i in range(20):
        history.add(i / 2, draw(PLAN, Snapshot(number=i), WHOLE))

    assert [history.at(t)[0] for t in (-1.0, 0.7, 3.0, 3.9, 99.0)] == [0.0, 0.0, 3.0, 3.0, 9.0]
    assert len({id(mark) for t in range(10) for mark in history.at(float(t))[1].nodes}) == len(PLAN.nodes)


def test_each_change_of_state_has_a_picture_however_short_it_was():
    """So that one can go back to what came of something."""
    history = History()
    for at_s, lit in ((0.0, True), (0.3, False), (0.6, True), (0.9, True)):
        fibres = {p.link.name: FibreNow(lit, (p.link.a_to_b, p.link.b_to_a)) for p in PLAN.links}
        history.add(at_s, draw(PLAN, Snapshot(fibres=fibres), WHOLE))

    assert [history.at(t)[0] for t in (0.2, 0.5, 5.0)] == [0.0, 0.3, 0.6]
    assert (history.after(0.1), history.after(0.3), history.after(7.0)) == (0.3, 0.3, 7.0)


def test_what_happened_has_a_picture_that_is_not_older_though_its_state_was_seen_before():
    """A fibre is dark a moment before it is told that it was cut; soon after it may be lit again."""
    history = History()
    for at_s, lit, happened in ((0.0, True, False), (0.3, False, False), (0.6, False, True), (0.9, True, False)):
        fibres = {p.link.name: FibreNow(lit, (p.link.a_to_b, p.link.b_to_a)) for p in PLAN.links}
        history.add(at_s, draw(PLAN, Snapshot(fibres=fibres), WHOLE), happened=happened)

    assert history.after(0.4) == 0.6


def test_picture_of_the_past_shows_what_is_selected_now():
    """Another thing may be selected since."""
    mine = Selection(NODE, "telecom")
    drawn = selected_in(draw(PLAN, Snapshot(), WHOLE), mine)

    assert [m.selection for m in drawn.nodes if m.selected] == [mine]
