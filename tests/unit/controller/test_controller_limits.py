"""What keeps the controller alive: whoever waits has fewer places than there are, and gives up before its asker."""

from __future__ import annotations

import pytest

from controller import limits
from mtls.liveness import BEAT_S, DEAD_S, SILENCE_S
from node import limits as node_limits


def test_one_agent_cannot_hold_all_that_calls_agents():
    """Nor can several; what it keeps waiting are fewer than the steps of a node, so that these do not all wait."""
    assert limits.CALLS_TO_ONE * 8 <= limits.CALLS
    assert limits.CALLS_TO_ONE < limits.STEPS_FOR_ONE


def test_one_node_cannot_hold_all_steps():
    """However much it announces."""
    assert limits.STEPS_FOR_ONE * 4 <= limits.STEPS


def test_one_party_holds_up_no_other_operator():
    """With all that one may have under way, others find threads."""
    assert 2 * limits.OPERATORS_FOR_ONE < limits.OPERATORS


def test_one_agent_cannot_hold_all_words():
    """Nor take all calls to itself that way: it is still configured."""
    assert limits.WORDS_TO_ONE * 4 <= limits.WORDS
    assert limits.WORDS_TO_ONE < limits.CALLS_TO_ONE


def test_thousand_sessions_of_a_node_find_room_whatever_else_waits_there():
    """So many are an honest load; as many registrations may wait for their other side meanwhile."""
    assert limits.SESSIONS_OF_ONE >= 1000 + limits.HALF_OPEN_OF_ONE
    assert limits.OVER_AT_ONE > limits.SESSIONS_OF_ONE


def test_no_word_on_how_a_session_fares_is_given_up_for_others():
    """There is one for each at most, beside those for who waits and for ends that are to be confirmed."""
    assert limits.SESSIONS_OF_ONE + limits.ENDS_OF_ONE <= limits.KEPT_FOR_ONE


def test_refusal_is_said_before_its_application_gives_up():
    """The nodes of a path have had their time by then."""
    assert limits.SLOW_S < limits.OPENING_S < node_limits.ANSWER_S
    assert node_limits.OPENING_S <= limits.ASKED_S


def test_session_is_let_go_before_it_counts_as_never_let_go():
    """Though some wait for it whose turn comes first."""
    assert limits.HELD_S >= 4 * (limits.HOLD_S + limits.CALL_S)


def test_what_a_dead_controller_sent_has_arrived_when_it_is_cleaned_up():
    """A call takes no longer."""
    assert limits.ARRIVED_S > limits.CALL_S + limits.AGAIN_S


def test_silent_stream_has_missed_some_comments():
    """One that is late is no silence."""
    assert SILENCE_S >= 3 * BEAT_S


def test_slots_that_a_dead_connection_may_have_swallowed_are_told_again():
    """Of a second each, until it was noticed."""
    assert node_limits.RETOLD_SLOTS > DEAD_S + SILENCE_S


def test_operator_is_answered_before_tools_give_up():
    """A setting that not all nodes have taken over by then is said to be so."""
    assert limits.SETTING_S < limits.CALL_S


@pytest.mark.parametrize("nodes", [1, 5, 25, 40, 200])
def test_nodes_of_a_small_network_are_found_at_once_and_those_of_a_large_one_are_no_burden(nodes):
    """So many tries a second in all at those that are not up yet; none waits longer than one that was lost."""
    tries = nodes / limits.first_retry_s(nodes)

    assert tries == pytest.approx(limits.TRIES) or limits.first_retry_s(nodes) == limits.RETRY_S
    assert limits.first_retry_s(5) <= limits.RETRY_S / 5
