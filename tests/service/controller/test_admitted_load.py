"""Admission by the policies: what links carry, by what was measured and by what was declared."""

from __future__ import annotations

from etsi import gs015
from ietf.restconf import parse_target
from node.tree.model import MODEL, links, node_id
from telemetry import journal
from tests.support.followed import LINKS, declare
from tests.support.waiting import until


def test_equation_1_refuses_what_measured_rates_do_not_cover(admitting):
    """20 generated minus 5 requested on cd is less than a key of 128 bits; other paths and smaller keys are fine."""
    admitting.set(admission="eq1")

    _, refused = admitting.request("a", "d")

    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "cd")
    assert (refused.detail("needed_bytes"), refused.detail("available_bytes")) == (16, 15)
    assert "cd" in refused.message
    assert admitting.operator("refusals")["refusals"][-1]["qc"] == "cd"
    assert admitting.request("a", "d", size=120)[1].status == 200
    assert admitting.request("a", "c")[1].status == 200


def test_equation_1_sums_over_one_slot_more_than_a_ttl(admitting):
    """From n0 - TTL to n0, both included: at TTL 2, three slots. In each, cd made 4 bytes and 1 was asked for."""
    admitting.set(admission="eq1", ttl_slots=2)

    _, refused = admitting.request("a", "d")

    assert refused.detail("available_bytes") == 9


def test_reserve_refuses_what_declared_rates_exceed_and_ends_give_back(admitting):
    """128 bits every 0.5 s are 32 bytes a slot of 40 on a link: one such session fits, two do not."""
    admitting.set(admission="reserve")

    _, first = admitting.request("a", "c", size=128, interval_s=0.5)
    _, second = admitting.request("c", "a", size=128, interval_s=0.5)

    assert first.status == 200
    assert (second.status, second.detail("qc")) == (503, "ac")
    assert (second.detail("needed_bytes"), second.detail("available_bytes")) == (160, 40)
    link = next(q for q in admitting.operator("qcs")["qcs"] if q["qc"] == "ac")
    assert link["reserved_per_slot"] == 32.0
    admitting.session(first.ksid)
    assert admitting.call("DELETE", f"key_sessions/{first.ksid}").status == 204
    assert admitting.request("c", "a", size=128, interval_s=0.5)[1].status == 200


def test_calendar_takes_the_way_on_which_nobody_goes_short_and_else_names_all_that_it_tried(admitting):
    """37 of 40 bytes a slot are expected: 32 and 16 are too much for ac, 32 on one QC and 16 on the next are not."""
    admitting.set(admission="calendar")
    for name, node in admitting.nodes.items():
        node.report(6, **dict.fromkeys(LINKS[name], (40, 0, 200)))
    assert until(lambda: {q["stored_bytes"] for q in admitting.operator("qcs")["qcs"]} == {200})

    _, direct = admitting.request("a", "c", interval_s=0.5, duration_s=60.0)
    _, round_about = admitting.request("c", "a", interval_s=1.0, duration_s=60.0)
    _, refused = admitting.request("a", "c", interval_s=0.5, duration_s=60.0)

    assert admitting.session(direct.ksid)["path"] == ["a", "c"]
    assert admitting.session(round_about.ksid)["path"] == ["c", "b", "a"]
    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "ac")
    assert "nor can another way: a - b - c" in refused.message


def test_calendar_lets_a_session_that_ends_make_room_for_one_that_comes_later(admitting):
    """What it declared to take after its end counts for nobody."""
    admitting.set(admission="calendar")
    for name, node in admitting.nodes.items():
        node.report(6, **dict.fromkeys(LINKS[name], (40, 0, 200)))
    assert until(lambda: {q["stored_bytes"] for q in admitting.operator("qcs")["qcs"]} == {200})
    _, first = admitting.request("a", "b", interval_s=0.5)  # for ever, as far as anybody knows
    _, second = admitting.request("b", "a", interval_s=0.5, duration_s=30.0)
    assert (first.status, second.status) == (200, 503)

    admitting.session(first.ksid)
    assert admitting.call("DELETE", f"key_sessions/{first.ksid}").status == 204

    assert admitting.request("b", "a", interval_s=0.5, duration_s=30.0)[1].status == 200


def test_selective_sends_a_long_session_another_way_where_many_want_little(admitting):
    """Of ab's 37 bytes a slot most go to one session; those that ask for a key have the rest."""
    admitting.set(admission="selective")
    for name, node in admitting.nodes.items():
        node.report(6, **dict.fromkeys(LINKS[name], (40, 0, 200)))
    assert until(lambda: {q["stored_bytes"] for q in admitting.operator("qcs")["qcs"]} == {200})
    _, first = admitting.request("a", "b", interval_s=0.5, duration_s=600.0)  # 32 bytes a slot
    assert first.status == 200
    for _ in range(8):
        admitting.request("b", "a", interval_s=5.0, duration_s=3.0)

    _, short = admitting.request("a", "b", interval_s=5.0, duration_s=3.0)
    _, long = admitting.request("a", "b", interval_s=5.0, duration_s=600.0)

    assert admitting.session(short.ksid)["path"] == ["a", "b"]
    assert admitting.session(long.ksid)["path"] == ["a", "c", "b"]


def test_qos_that_the_path_does_not_carry_is_not_admitted(admitting):
    """The session goes on as it was, and its nodes are told so; less than that is taken over."""
    admitting.set(admission="reserve")
    _, answer = admitting.request("a", "c", size=128, interval_s=0.5)  # 32 bytes a slot of 40
    target = parse_target(MODEL, f"{gs015.NODE}/qkd_applications/qkd_app={answer.ksid}/app_qos/min_bandwidth")
    admitting.session(answer.ksid)
    admitting.nodes["a"].datastore.edit("PUT", target, {"etsi-qkd-sdn-node:min_bandwidth": 328})

    declare(admitting, "a", answer.ksid, app_qos={"min_bandwidth": 328})

    def asked() -> list[int]:
        return [admitting.nodes[n].app(answer.ksid)["app_qos"]["min_bandwidth"] for n in "ac"]

    assert until(lambda: asked() == [256] * 2)
    events = journal.read(admitting.directory / "ctl" / "journal.jsonl")
    (refused,) = [e for e in events if e["event"] == "change_refused"]
    assert refused["ksid"] == answer.ksid
    assert "QC ac cannot carry" in refused["message"]
    declare(admitting, "a", answer.ksid, app_qos={"min_bandwidth": 320})
    assert until(lambda: asked() == [320] * 2)


def test_end_that_has_more_left_pays_double_if_the_path_policy_says_so(admitting):
    """32 bytes in 5 s are too much for cd, which makes 4 a second; 16 are not, and ac makes 40."""
    admitting.set(admission="reserve")
    assert admitting.request("d", "a", size=128, interval_s=5)[1].status == 503
    admitting.set(path_policy="widest-shortest")

    _, answer = admitting.request("d", "a", size=128, interval_s=5)

    session = admitting.session(answer.ksid)
    assert (session["path"], session["double_at_last"]) == (["d", "c", "a"], True)
    reserved = {q["qc"]: q["reserved_per_slot"] for q in admitting.operator("qcs")["qcs"]}
    assert (reserved["ac"], reserved["cd"]) == (6.4, 3.2)
    (link,) = [e for e in links(admitting.nodes["d"].datastore.tree) if e["qkdl_type"] == gs015.VIRT]
    assert (link["virt_prev_hop"], "virt_next_hop" in link) == (node_id("c"), False)


def test_reserve_counts_the_cost_of_the_mode(admitting):
    """Over two links QKP takes a quarter of an AES key of the second one, however short the keys are."""
    admitting.set(admission="reserve")

    assert admitting.request("a", "d", size=128, interval_s=16 / 3)[1].status == 200
    admitting.set(mode="qkp")
    assert admitting.request("a", "d", size=128, interval_s=5)[1].status == 200
    _, answer = admitting.request("a", "d", size=8, interval_s=1)
    assert (answer.status, answer.facts["qc"], answer.facts["needed_bytes"]) == (503, "cd", 5 * 4)
