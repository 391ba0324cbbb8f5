"""How long silence may last: of an implicit key session's client, and of a QC."""

from __future__ import annotations

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.rhythm import Rhythm, generates

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


@given(
    every=st.integers(1, 300), jitter=st.integers(0, 100),
    gaps=st.lists(st.floats(0, 1), max_size=4), share=st.floats(0, 1),
)  # fmt: skip
def test_qc_that_keeps_its_rhythm_generates_under_the_ttl_that_suits_it(every, jitter, gaps, share):
    """That TTL is twice as long as it may bring nothing; and a slot is missing in none of the gaps."""
    longest = every + jitter
    seen = [every + round(gap * jitter) for gap in gaps]
    silent = math.floor(share * (min(seen, default=longest) - 1))

    assert generates(silent, seen, 2 * longest)


@pytest.mark.parametrize("ttl_slots", [1, 15, 60, 3600])
def test_qc_that_brought_something_each_slot_is_passive_at_the_first_slot_without(ttl_slots):
    """However long key material lives."""
    assert generates(0, [1, 1, 1, 1], ttl_slots)
    assert not generates(1, [1, 1, 1, 1], ttl_slots)


@pytest.mark.parametrize(("silent", "found"), [(44, True), (45, False)])
def test_qc_may_be_late_by_half_of_its_longest_gap(silent, found):
    """No device is punctual to the slot."""
    assert generates(silent, [30, 28], 600) is found


@given(st.integers(0, 4000), st.lists(st.integers(1, 4000), max_size=4), st.integers(1, 3600))
def test_no_qc_generates_that_has_nothing_younger_than_half_of_the_ttl(silent, gaps, ttl_slots):
    """So whoever opens a key session over it finds stock that lives for a while."""
    if generates(silent, gaps, ttl_slots):
        assert silent <= ttl_slots / 2
