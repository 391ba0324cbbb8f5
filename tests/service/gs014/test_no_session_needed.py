"""GS QKD 014 has no sessions: the first request of a pair opens one without a word, and idleness ends it."""

from __future__ import annotations

import itertools
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.waiting import until


def sessions(kmes, master, slave):
    """The sessions of that pair at the master's node."""
    return [s for s in kmes.node("a")["sessions"] if (s["master_sae"], s["slave_sae"]) == (master.id, slave.id)]


def test_first_status_of_a_pair_opens_a_session_and_has_all_members_true(kmes, adam, bob):
    """Nobody announced this pair; what the status counts can be had."""
    status = adam.status(bob.id)

    assert status["stored_key_count"] > 0
    assert [s["implicit"] for s in sessions(kmes, adam, bob)] == [True]
    assert adam.get(bob.id).status == 200


def test_first_enc_keys_of_a_pair_gives_keys(kmes, adam, slave):
    """It waits for its session."""
    given = adam.get(slave.id, number=2)

    assert slave.fetch(adam.id, *given.ids).keys == given.keys


def test_idle_session_ends_and_the_next_request_opens_another(kmes, adam, carol):
    """After implicit_idle_s without a request; keys that were made still can be fetched."""
    given = adam.get(carol.id)
    (first,) = sessions(kmes, adam, carol)
    kmes.set(implicit_idle_s=1)
    try:
        until(lambda: sessions(kmes, adam, carol) == [])
    finally:
        kmes.set(implicit_idle_s=60)

    assert carol.fetch(adam.id, *given.ids).keys == given.keys
    assert adam.get(carol.id).status == 200
    (second,) = sessions(kmes, adam, carol)
    assert second["ksid"] != first["ksid"]


@pytest.mark.parametrize("restarted", [False, True], ids=["node runs on", "node restarted"])
def test_session_that_ended_while_the_controller_was_away_stays_ended(kmes, adam, carol, restarted):
    """Its node tells of that before the controller configures the session again, even if it was started anew since."""
    until(lambda: adam.get(carol.id).status == 200)
    kmes.set(implicit_idle_s=2)
    assert adam.get(carol.id).status == 200
    (ended,) = sessions(kmes, adam, carol)
    kmes.kill_controller()
    try:
        until(lambda: ended["ksid"] not in {s["ksid"] for s in kmes.node("a")["sessions"]})
        if restarted:
            kmes.stack.nodes["a"].kill()
            kmes.stack.start_node("a").wait_ready()
    finally:
        kmes.start_controller()
        kmes.set(implicit_idle_s=60)

    until(lambda: ended["ksid"] not in {s["ksid"] for s in kmes.controller("GET", "key_sessions")["key_sessions"]})
    until(lambda: ended["ksid"] not in {s["ksid"] for n in "ac" for s in kmes.node(n)["sessions"]})


def test_while_the_controller_is_away_running_pairs_get_keys_and_new_ones_a_clear_503(kmes, alice, adam, bob, carol):
    """kill -9, and a restart: the sessions are the same, and new ones open again without help."""
    assert alice.get(carol.id).status == 200
    (before,) = sessions(kmes, alice, carol)
    kmes.kill_controller()
    try:
        assert alice.get(carol.id).status == 200
        refused = bob.get(adam.id)
        assert refused.status == 503
        assert {"cause": "controller_unreachable"} in refused.body["details"]
    finally:
        kmes.start_controller()

    until(lambda: bob.get(adam.id).status == 200)
    assert alice.get(carol.id).status == 200
    assert before["ksid"] in {s["ksid"] for s in kmes.controller("GET", "key_sessions")["key_sessions"]}
    assert sessions(kmes, alice, carol) == [before]


def test_pair_that_is_not_admitted_gets_503_with_the_reason_and_others_go_on(kmes, bob, mallory, carol):
    """Equation 1 decides on these sessions, too: what was asked of a QC lately leaves nothing for another one."""
    sizes = itertools.cycle(range(8192, 64, -8))  # of the same request, tried again, nothing more would count

    def too_much_is_asked_for() -> bool:
        bob.post(carol.id, {"number": 64, "size": next(sizes)})
        link = kmes.link("b-c/1")
        return link["requested_per_slot"] > 2 * link["generated_per_slot"]

    until(too_much_is_asked_for)
    kmes.set_policy(admission="eq1")
    try:
        refused = [mallory.get(carol.id), mallory.call("GET", f"/api/v1/keys/{carol.id}/status")]
    finally:
        kmes.set_policy(admission="none")

    assert [answer.status for answer in refused] == [503, 503]
    assert all("QC b-c/1 cannot carry the session" in answer.message for answer in refused)
    assert all({"cause": "refused"} in answer.body["details"] for answer in refused)
    until(lambda: bob.get(carol.id).status == 200)
    assert mallory.get(carol.id).status == 200


def test_what_an_application_takes_beyond_what_was_declared_counts_on_qcs_between_others(kmes, alice, carol):
    """It knows of no sessions, so nobody has declared much for it; the ends of the QC saw the bytes go."""

    def more_than_declared_is_counted() -> bool:
        alice.post(carol.id, {"number": 64})
        link = kmes.link("b-c/1")
        return link["requested_per_slot"] > 20 * link["reserved_per_slot"] > 0

    until(more_than_declared_is_counted)


def test_requests_that_wait_for_a_session_hold_up_no_pair_that_has_one(kmes, bob, carol, adam):
    """The controller stands still: as many as may wait for it do, and who needs nothing of it gets keys meanwhile."""
    carl = kmes.saes["carl"]
    assert carol.get(bob.id).status == 200
    with ThreadPoolExecutor(16) as pool:
        kmes.ctl.signal(signal.SIGSTOP)
        try:
            waiting = [pool.submit(carl.get, adam.id) for _ in range(16)]
            for _ in range(20):
                assert carol.get(bob.id).status == 200
                assert not any(request.done() for request in waiting)
        finally:
            kmes.ctl.signal(signal.SIGCONT)
        assert [request.result().status for request in waiting] == [200] * 16
