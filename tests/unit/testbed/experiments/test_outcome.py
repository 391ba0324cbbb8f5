"""Figures out of the events of a phase."""

from __future__ import annotations

from testbed.bench import round_trip_floor
from testbed.experiments.evaluation import outcome

PAIR = {"master_sae": "m", "slave_sae": "s"}
SESSION = [
    {"event": "session_requested", "mono": 1.0, **PAIR},
    {"event": "new_app_answered", "side": "slave", "duration_ms": 30.0, "mono": 1.1, **PAIR},
    {"event": "open_key_session", "duration_ms": 60.0, "mono": 1.12, **PAIR},
    {"event": "new_app_answered", "side": "master", "duration_ms": 140.0, "mono": 1.28, **PAIR},
    {"event": "session_open", "ksid": "k", "path": ["a", "b"], "hops": 1, "ask_connection_ms": 150.0,
     "open_key_session_ms": 170.0,
     "total_ms": 300.0, "mono": 1.3, **PAIR},
]  # fmt: skip
REFUSED = [
    {"event": "session_requested", "mono": 2.0, **PAIR},
    {"event": "session_refused", "cause": "refused", "mono": 2.1, **PAIR},
]


def test_initialisation_has_the_papers_four_times():
    (found,) = outcome.initialisations(SESSION)

    assert (found.t1, found.t2, found.t3, found.t4) == (60, 30, 170, 140)
    assert (found.ask_connection, found.whole) == (150, 300)


def test_order_of_the_journals_does_not_matter():
    """A node may write down that it was answered after its application has the answer."""
    assert outcome.initialisations(SESSION[::-1]) == outcome.initialisations(SESSION)


def test_refused_session_is_no_initialisation():
    assert outcome.initialisations(REFUSED) == []


def test_load_counts_sessions_and_requests_of_masters():
    keys = [
        {"event": "key", "ksid": "k", "side": "master"},
        {"event": "key", "ksid": "k", "side": "slave"},
        {"event": "key_error", "ksid": "k", "side": "master", "cause": "insufficient"},
        {"event": "key_error", "ksid": "k", "side": "master", "cause": "insufficient"},
        {"event": "key_error", "ksid": "k", "side": "slave", "cause": "insufficient"},
    ]
    found = outcome.load([*SESSION, *REFUSED, *keys])

    assert (found.offered, found.refused, found.failed) == (2, 1, 0)
    assert (found.with_errors, found.requests, found.failed_requests) == (1, 3, 2)
    assert sorted(found.refusals) == sorted(found.connections_with_errors) == [0, 100]
    assert sorted(found.requests_without_key) == [0, 100, 100]


def test_nothing_offered_has_no_shares():
    assert outcome.load([]).refusals == outcome.load([]).requests_without_key == []


def test_only_events_of_the_phase_are_kept_and_only_what_figures_need():
    events = [{"time": t, "event": "key", "ksid": "k", "side": "master", "fingerprint": "f"} for t in (1.0, 2.0, 3.0)]
    events.append({"time": 2.0, "event": "message", "ksid": "k"})

    assert outcome.kept(events, 1.5, 2.5) == [{"time": 2.0, "event": "key", "ksid": "k", "side": "master"}]


def rtt(a, b):
    return 0.0 if a == b else 10.0


def test_floor_of_a_key_is_what_the_mode_cannot_avoid():
    path = ["a", "b", "c"]

    assert round_trip_floor.delivery_ms(rtt, "basic", "direct", ["a", "b"]) == 10
    assert round_trip_floor.delivery_ms(rtt, "otp", "direct", path) == 30
    assert round_trip_floor.delivery_ms(rtt, "parallel", "direct", path) == 25
    assert round_trip_floor.delivery_ms(rtt, "basic", "direct", path) == 40
    assert round_trip_floor.delivery_ms(rtt, "qkp", "refill", path) == 40
    assert round_trip_floor.delivery_ms(rtt, "qkp", "pool", path) == 0


def test_floor_of_an_initialisation_is_four_round_trips_and_the_way():
    """Over several hops the first node asks every other one on the path."""
    assert round_trip_floor.initialisation_ms(rtt, ["a", "b"]) == 40
    assert round_trip_floor.initialisation_ms(rtt, ["a", "b", "c"]) == 60


def test_over_one_hop_only_the_slaves_node_is_waited_for():
    far = {("a", "ctl"): 100.0, ("ctl", "a"): 100.0}

    assert round_trip_floor.initialisation_ms(lambda a, b: far.get((a, b), 1.0), ["a", "b"]) == 1 + 1 + 100 + 1
