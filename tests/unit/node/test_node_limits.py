"""The numbers that keep a node alive fit one another: whoever waits leaves threads to those who do not."""

from __future__ import annotations

from controller import limits as controller_limits
from mtls.liveness import LONGEST_ROUND_TRIP_S
from node import limits
from node.material import connections
from node.tree import performance
from sae import client, master, sae_http
from testbed.audit import devices


def test_relays_and_claims_leave_threads_of_the_agents_port():
    """What ends here, and what the controller wants, finds a thread however many wait for other nodes."""
    assert limits.RELAYS + limits.CLAIMS < limits.AGENT_THREADS


def test_relays_and_claims_of_one_node_leave_requests_of_that_node():
    """Or a node whose relays wait here could not bring what ends here, for which another node waits."""
    assert limits.RELAYS_PER_NODE + limits.CLAIMS < limits.REQUESTS_PER_NODE


def test_one_node_holds_up_no_other_node():
    """With all that one node may have under way, others find threads and places."""
    assert 2 * limits.REQUESTS_PER_NODE < limits.AGENT_THREADS
    assert 2 * limits.RELAYS_PER_NODE + limits.CLAIMS <= limits.RELAYS


def test_openings_leave_threads_of_the_kmes_port():
    """Sessions that are open get keys while the controller sleeps."""
    assert limits.OPENINGS + limits.REQUESTS_PER_SAE < limits.KME_THREADS
    assert limits.OPENINGS_PER_SAE < limits.REQUESTS_PER_SAE
    assert limits.STANDARD_OPENING_S < limits.ANSWER_S


def test_who_waits_for_more_paths_has_time_to_make_keys_over_them():
    """And waits for longer than a controller takes to look at all sessions, and to tell nodes that are not slow."""
    assert limits.LEAST_S < (1 - limits.LED_PART) * limits.ANSWER_S
    assert controller_limits.LOOK_S + controller_limits.SLOW_S < limits.LED_PART * limits.ANSWER_S


def test_one_sae_holds_up_no_other_sae():
    """With all that one SAE may have under way, others find threads and places."""
    assert 2 * limits.REQUESTS_PER_SAE < limits.KME_THREADS
    assert 2 * limits.OPENINGS_PER_SAE <= limits.OPENINGS


def test_one_sae_holds_up_no_other_sae_at_its_streams():
    """With all the chunks that one SAE may wait for, others find threads and connections."""
    assert 2 * limits.STREAM_REQUESTS_PER_SAE < limits.STREAM_THREADS
    assert 2 * limits.STREAM_CONNECTIONS_PER_SAE < limits.STREAM_CONNECTIONS


def test_one_party_holds_up_no_other_at_an_application():
    """An operator opens as many sessions as can be opened, though a master asks for as much as it may."""
    assert 2 * sae_http.REQUESTS_OF_ONE < sae_http.THREADS
    assert master.MAX_OPENING < sae_http.REQUESTS_OF_ONE


def test_one_party_leaves_sessions_of_a_node_to_others():
    """With all that the controller lets a node have; a thousand, which are an honest load, may be of one party."""
    assert 2 * limits.SESSIONS_PER_PARTY <= controller_limits.SESSIONS_OF_ONE
    assert 2 * limits.HALF_OPEN_PER_PARTY < controller_limits.HALF_OPEN_OF_ONE
    assert limits.SESSIONS_PER_PARTY > 1000
    assert limits.HALF_OPEN_PER_PARTY > limits.OPENINGS


def test_as_many_connections_are_kept_as_a_node_serves_requests_of_one():
    """Or busy nodes would shake hands for each call."""
    assert limits.CONNECTIONS_PER_NODE >= limits.REQUESTS_PER_NODE


def test_device_that_takes_its_time_does_not_make_its_qc_count_as_down():
    """Nor does an end stop wanting keys between two of its questions."""
    assert limits.DEVICE_ANSWER_S < performance.SILENCE_S
    assert limits.DEVICE_POLL_S + 1.0 < limits.WANTED_S  # which come once a slot


def test_audit_excuses_no_more_blocks_of_a_device_than_may_be_unheard_of():
    """Those that are offered, and those that were, where the answer that says so was lost."""
    assert devices.MOST_UNHEARD == 2 * limits.MOST_OFFERS


def test_refusal_comes_before_the_caller_gives_up():
    """What a request waits for on its way leaves time to say so."""
    assert 2 * limits.CLAIM_S < limits.ANSWER_S * 0.75
    assert limits.LEAST_S < limits.ANSWER_S / 10


def test_request_that_comes_in_time_is_relayed_over_the_longest_path():
    """However long its round trips are; and who has begun in time is not stopped further on."""
    for round_trip_s in (0.0, 0.04, LONGEST_ROUND_TRIP_S):
        whole_s = limits.LEAST_S + limits.relay_s(limits.MAX_HOPS, round_trip_s)
        assert whole_s < limits.answer_s(round_trip_s) / 2
        assert limits.relay_s(1, round_trip_s) < limits.relay_s(limits.MAX_HOPS - 1, round_trip_s) < whole_s


def test_no_check_of_a_key_waits_for_that_of_another():
    """A last node that does not answer delays only the keys for it, and keeps no thread from those for others."""
    assert limits.CHECKS >= limits.KME_THREADS
    assert 2 * limits.CHECKS_PER_NODE < limits.CHECKS


def test_checks_leave_requests_of_a_node_to_its_relays():
    """The node that relays a key may be the one that the first node has checks at."""
    assert limits.CHECKS_PER_NODE + limits.RELAYS_PER_NODE <= limits.REQUESTS_PER_NODE


def test_database_gives_up_before_the_node_and_the_node_before_its_client():
    """Or the server were still at work on what is asked again, and the client heard of nothing."""
    assert limits.DATABASE_LOCK_S < limits.DATABASE_STATEMENT_S < limits.DATABASE_TRY_S < limits.DATABASE_CALL_S
    assert limits.DATABASE_CALL_S < limits.ANSWER_S


def test_whoever_finds_no_connection_to_the_database_is_told_in_time():
    """There are fewer than callers, as a call takes a moment: who waits is answered before its client gives up."""
    assert limits.DATABASE_CONNECTIONS < limits.KME_THREADS + limits.UPKEEP_THREADS
    assert limits.DATABASE_WAIT_S < limits.DATABASE_CALL_S < limits.ANSWER_S


def test_requests_hold_up_neither_the_nodes_own_calls_to_the_database_nor_those_for_other_qcs():
    """Were no connection left to its reports, nobody would be given what the node holds."""
    assert limits.DATABASE_UPKEEP >= limits.UPKEEP_THREADS
    assert limits.DATABASE_CONNECTIONS_PER_QC < limits.DATABASE_CONNECTIONS - limits.DATABASE_UPKEEP


def test_longest_round_trips_leave_time_to_connect_to_the_database():
    """Of those that a network may have, to a node that was told of none."""
    needed_s = limits.DATABASE_CONNECT_S + connections.ROUND_TRIPS_TO_CONNECT * LONGEST_ROUND_TRIP_S
    assert needed_s <= limits.DATABASE_PATIENCE_S


def test_second_try_has_time_after_the_first_one_got_no_answer():
    """Rows that another session held are free by then."""
    assert limits.DATABASE_CALL_S - max(limits.DATABASE_TRY_S, limits.DATABASE_LOCK_S) > 1


def test_nodes_keep_their_connections_to_the_database():
    """Longer than any run; and while they have none, they knock many times before they give up for a moment."""
    assert limits.DATABASE_KEPT_S > 7 * 24 * 3600
    assert 10 * limits.DATABASE_KNOCK_S < limits.DATABASE_CONNECT_S


def test_application_waits_longer_than_its_kme_takes():
    """However long the network's round trips are: the KME says what is wrong."""
    for round_trip_s in (0.0, 0.04, 2.5):
        assert limits.answer_s(round_trip_s) < client.timeout_s(round_trip_s)


def test_servers_of_which_one_takes_writes_are_all_asked_while_a_connection_is_wanted():
    """One that is silent does not use up the time in which the others are asked, and is left out the next time."""
    assert limits.DATABASE_ONE_OF_SEVERAL_S + limits.DATABASE_SEEK_S < limits.DATABASE_CONNECT_S
    assert limits.DATABASE_SILENT_S >= limits.DATABASE_CONNECT_S
    assert limits.DATABASE_TAP_S < limits.DATABASE_SEEK_S
