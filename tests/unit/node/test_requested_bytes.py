"""What admission control counts of the requests for keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.serving.requested_bytes import Requested

KSID, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


class Clock:
    """A clock of the test's, in seconds."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        """The time now."""
        return self.time


def count(requests: list[tuple[float, int, bool]], *, ksid: str = KSID) -> int:
    """What is counted of requests of a session that wants keys every five seconds: (seconds later, bytes, met)."""
    clock = Clock()
    requested = Requested(clock)
    for later_s, n_bytes, met in requests:
        clock.time += later_s
        requested.add(ksid, 16, [("qc", n_bytes)], met=met, interval_s=5.0)
    return requested.totals().get("qc", 0)


def test_request_counts_once_however_often_it_is_tried():
    """Five tries from 0.1 s on, as some clients do, and the last one is met."""
    assert count([(0.0, 16, False), *[(0.1, 16, False)] * 3, (0.1, 16, True)]) == 16


def test_request_at_its_time_counts_whatever_became_of_the_one_before():
    """A session that goes on after an error needs its next key, too."""
    assert count([(0.0, 16, False), (5.0, 16, False), (5.0, 16, True), (5.0, 16, True)]) == 64


def test_nothing_stays_of_a_request_that_fails_when_its_session_is_over():
    """It had been under way."""
    clock = Clock()
    requested = Requested(clock)
    requested.forget(KSID)
    requested.add(KSID, 16, [("qc", 16)], met=False, interval_s=5.0)
    clock.time += 5.0

    assert requested.totals() == {"qc": 16}
    assert not requested._unmet


def test_requests_that_are_met_count_each():
    """However fast they follow one another."""
    assert count([(0.0, 16, True), (0.1, 16, True), (0.1, 16, True)]) == 48


def test_smaller_try_after_a_larger_one_counts_no_more_and_a_larger_one_only_the_rest():
    """The same request in another size."""
    assert count([(0.0, 80, False), (0.1, 32, True)]) == 80
    assert count([(0.0, 32, False), (0.1, 80, True)]) == 80


@given(st.lists(st.tuples(st.floats(0, 4), st.integers(1, 100), st.booleans()), max_size=8))
def test_what_is_counted_is_at_least_what_was_given_and_at_most_what_was_asked(requests):
    """Whatever comes after what."""
    assert sum(n for _, n, met in requests if met) <= count(requests) <= sum(n for _, n, _ in requests)


def test_sessions_and_sizes_are_counted_apart_and_forgotten():
    """One session's failure hides no request of another one; a session that is over leaves nothing behind."""
    clock = Clock()
    requested = Requested(clock)

    def add(ksid: str, key_bytes: int, *, met: bool) -> None:
        requested.add(ksid, key_bytes, [("qc", key_bytes)], met=met, interval_s=5.0)

    add(KSID, 16, met=False)
    add(OTHER, 16, met=False)
    add(KSID, 32, met=False)
    requested.forget(KSID)
    add(KSID, 16, met=True)

    assert requested.totals() == {"qc": 16 + 16 + 32 + 16}
