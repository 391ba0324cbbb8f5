"""How long an implicit key session may be idle, by the rhythm of its client."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.rhythm import Rhythm

IDLE_S = 60.0


def after(*times_s: float) -> Rhythm:
    """The rhythm of a pair that asked at these times."""
    return functools.reduce(Rhythm.asked, times_s[1:], Rhythm(times_s[0]))


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=30).map(sorted), st.floats(1, 86_400))
def test_session_waits_at_least_as_long_as_is_set_and_at_most_twenty_times_that(times_s, idle_s):
    """Whatever its client does."""
    assert idle_s <= after(*times_s).patience_s(idle_s) <= 20 * idle_s


@given(
    interval_s=st.floats(1, 8 * IDLE_S), rounds=st.integers(3, 10), burst=st.integers(1, 6),
    late=st.lists(st.floats(0, 0.2), min_size=10, max_size=10), start_s=st.floats(0, 1e6),
)  # fmt: skip
def test_rhythm_that_came_twice_is_waited_for(interval_s, rounds, burst, late, start_s):
    """From the third round on, each of several requests that are close together, and each a little late."""
    times_s = [
        start_s + interval_s * (i + late[i]) + 0.001 * interval_s * j for i in range(rounds) for j in range(burst)
    ]

    assert after(*times_s).patience_s(IDLE_S) > 1.9 * interval_s


def test_clients_that_take_turns_every_two_minutes_keep_their_session():
    """Each asks every 240 s; the session goes on for 600 s without a request."""
    assert after(0, 240, 480).patience_s(IDLE_S) == 600


@pytest.mark.parametrize("times_s", [(0,), (0, 240), (0, 1, 240), (0, 240, 241), (0, 30, 400)], ids=str)
def test_one_pause_is_no_rhythm(times_s):
    """Only an interval that comes again is."""
    assert after(*times_s).patience_s(IDLE_S) == IDLE_S


def test_rhythm_that_is_not_kept_up_is_forgotten():
    """A client that turns from one key in four minutes to one a second needs no long wait when it stops."""
    busy = after(0, 240, 480, *range(481, 481 + 4 * 240 + 2))

    assert busy.patience_s(IDLE_S) == IDLE_S


def test_no_rhythm_keeps_a_session_for_long():
    """Whoever asks once an hour opens a session each time."""
    assert after(0, 3600, 7200).patience_s(IDLE_S) == 20 * IDLE_S < 3600
