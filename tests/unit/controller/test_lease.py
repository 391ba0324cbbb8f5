"""Who leads, as one controller knows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import limits
from controller.leading.lease import Leader, Lease, Standing

LEASE_S = 3.0
STANDS_BY = Lease("ctl", LEASE_S, 100.0)
LEADS = STANDS_BY.answered(Leader("ctl", 4), 100.0)


def test_controller_stands_by_until_the_database_lets_it_lead():
    """Whoever leads meanwhile."""
    told = STANDS_BY.answered(Leader("ctl2", 3), 101.0)

    assert (STANDS_BY.standing(100.0), told.standing(101.0)) == (Standing.STANDS_BY, Standing.STANDS_BY)
    assert (LEADS.standing(101.0), LEADS.term) == (Standing.LEADS, 4)


def test_lease_counts_from_before_the_question_was_sent():
    """For as long as it lasts; then another one may lead."""
    asked = LEADS.answered(Leader("ctl", 4), 105.0)

    assert [asked.standing(at) for at in (107.9, 108.0)] == [Standing.LEADS, Standing.UNSURE]


def test_unsure_controller_leads_on_when_the_database_says_that_nobody_else_does():
    """As after an outage of the database."""
    assert LEADS.standing(500.0) == Standing.UNSURE
    assert LEADS.answered(Leader("ctl", 4), 500.0).standing(500.5) == Standing.LEADS


@pytest.mark.parametrize("leader", [Leader("ctl2", 5), Leader("ctl2", 4), Leader("ctl", 3)])
def test_term_is_over_when_another_one_leads_or_the_database_knows_an_earlier_term(leader):
    """An earlier one is that of a database that has lost commits."""
    assert LEADS.answered(leader, 101.0).standing(101.0) == Standing.OVER


def test_leader_whose_term_a_node_does_not_heed_has_a_later_one_when_the_database_says_so():
    """It still leads, in a term above what the node has heard of."""
    spoken = LEADS.spoken_of(7)

    assert (spoken.spoken, spoken.latest, spoken.term) == (7, 7, 4)
    raised = spoken.answered(Leader("ctl", 8), 101.0)
    assert (raised.standing(101.0), raised.term) == (Standing.LEADS, 8)


def test_stand_by_has_switches_forward_when_the_database_is_silent_for_long():
    """The way there may be what is missing. A leader always does."""
    assert [STANDS_BY.routes(at, 2.0) for at in (101.9, 102.0)] == [False, True]
    assert LEADS.routes(100.0, 2.0)


def test_stand_by_leaves_a_leader_time_when_the_database_was_away():
    """Its lease may be over because it could not say that it is there. When nobody ever led, there is none to wait for.
    """
    led = STANDS_BY.answered(Leader("ctl2", 3), 100.0)
    back = led.unanswered().answered(Leader("ctl2", 3), 110.0)

    assert STANDS_BY.unanswered().may_take_over(100.0, 3.0)
    assert led.may_take_over(100.5, 3.0)
    assert not led.unanswered().may_take_over(500.0, 3.0)
    assert [back.may_take_over(at, 3.0) for at in (112.9, 113.0)] == [False, True]


def test_nobody_leads_before_the_first_term_nor_where_the_last_word_is_old():
    """Whoever asks is told so, and not sent to one that may be gone."""
    first, led = STANDS_BY.answered(Leader("ctl", 0), 100.0), STANDS_BY.answered(Leader("ctl2", 2), 100.0)

    assert not STANDS_BY.has_leader(100.0)
    assert not first.has_leader(100.0)
    assert [led.has_leader(at) for at in (102.9, 103.0)] == [True, False]


@given(st.lists(st.tuples(st.sampled_from(["ctl", "ctl2"]), st.integers(1, 9), st.floats(0.0, 5.0)), max_size=12))
def test_term_only_grows_and_a_controller_leads_in_its_own_alone(answers):
    """Whatever a database says in whatever order."""
    lease, now = STANDS_BY, 100.0
    for name, term, later_s in answers:
        now += later_s
        before = lease.term or 0
        lease = lease.answered(Leader(name, term), now)
        assert (lease.term or 0) >= before
        assert lease.latest >= term
        if lease.standing(now) == Standing.LEADS:
            assert lease.leader == Leader("ctl", lease.term)


def test_one_lost_answer_of_the_database_makes_no_leader_unsure():
    """It is asked again in time."""
    assert 2 * limits.RENEW_S + limits.STORE_CALL_S < limits.LEASE_S


def test_stand_by_takes_over_within_five_seconds():
    """With the looks that it takes, and a second to read what there is and to find the nodes."""
    assert limits.lease_s(0.0) + limits.STANDBY_LOOK_S + 1.0 < 5.0


def test_leader_says_that_it_is_there_before_a_stand_by_takes_over_from_it_for_want_of_a_database():
    """It may wait for a connection in vain when the database is back."""
    assert limits.DEFER_S >= limits.RENEW_S + limits.STORE_CALL_S + 1.0


def test_way_to_the_database_is_looked_for_before_a_lease_is_over():
    """So that it is there when the stand-by may lead."""
    assert limits.ROUTE_S < limits.LEASE_S
