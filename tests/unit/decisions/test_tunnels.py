"""When a tunnel's next key is due, and when the one in use has lapsed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from decisions.tunnels import LEAST_EVERY_S, MOST_EVERY_S, lapse_s, next_try_s

intervals = st.floats(LEAST_EVERY_S, MOST_EVERY_S)


@given(intervals)
def test_after_a_failure_there_is_time_for_another_try_before_the_key_lapses(every_s):
    assert next_try_s(every_s, failed=False) == every_s
    assert every_s + 2 * next_try_s(every_s, failed=True) < lapse_s(every_s)
