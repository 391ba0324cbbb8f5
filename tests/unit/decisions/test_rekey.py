"""When the next key is due, and whether a session goes on without one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.rekey import POLICIES, Pace, goes_on, next_due

starts = st.floats(0, 1e6)
intervals = st.floats(0.001, 86_400)


@given(start=starts, interval_s=intervals, passed=st.floats(0, 1e7))
def test_next_key_is_due_within_one_interval_from_now(start, interval_s, passed):
    """However late a key came, the next one is ahead, so no burst makes up for it, and at most one interval away."""
    now = start + passed

    due = next_due(start, interval_s, now)

    assert now < due <= now + interval_s * (1 + 1e-6) + 1e-6


@given(start=starts, interval_s=intervals, delays=st.lists(st.floats(0, 0.99), min_size=1, max_size=50))
def test_delays_do_not_add_up(start, interval_s, delays):
    """Key number i is due no later than i intervals after the start, whatever part of one each key before it took."""
    due = start
    for delay in delays:
        due = next_due(start, interval_s, due + delay * interval_s)

    assert due <= start + len(delays) * interval_s * (1 + 1e-6) + 1e-6


def test_keys_are_due_on_the_grid():
    """A table of a session that started at 100 s with a key every 5 s."""
    table = [(99, 100), (100, 105), (100.2, 105), (104.9, 105), (105, 110), (117, 120), (120, 125)]

    assert [next_due(100, 5, now) for now, _ in table] == [due for _, due in table]


@pytest.mark.parametrize("policy", POLICIES)
def test_session_goes_on_after_a_key(policy):
    """Nothing failed: there is a next key."""
    assert goes_on(policy, failed=False)


def test_policy_decides_after_a_failure():
    """A session without a new key ends, unless its policy says to go on."""
    assert not goes_on("end", failed=True)
    assert goes_on("go_on", failed=True)


@given(asked=st.lists(st.floats(0, 100), min_size=1, max_size=50), interval_s=st.floats(0.001, 10))
def test_sessions_that_share_a_pace_ask_at_most_once_an_interval(asked, interval_s):
    """However many they are; nobody waits while nobody else had a turn in the last interval."""
    pace, taken = Pace(), []
    for now in sorted(asked):
        turn = pace.take(now, interval_s)
        assert turn >= now
        assert turn == now or turn == pytest.approx(taken[-1] + interval_s)
        taken.append(turn)

    assert all(b - a >= interval_s * (1 - 1e-6) for a, b in itertools.pairwise(taken))
