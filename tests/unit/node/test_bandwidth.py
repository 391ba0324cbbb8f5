"""The maximum bandwidth of an application."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.serving.delivery import Bandwidths


def test_key_of_any_size_can_be_had_once_and_then_its_time_must_pass():
    """256 bits at 128 bit/s: two seconds; other applications do not wait."""
    bandwidths = Bandwidths()

    assert bandwidths.take("x", 256, 128, 10.0)
    assert not bandwidths.take("x", 1, 128, 11.9)
    assert bandwidths.take("y", 256, 128, 11.9)
    assert bandwidths.take("x", 1, 128, 12.0)


def test_what_was_not_handed_out_is_given_back():
    """A failed request consumes nothing."""
    bandwidths = Bandwidths()
    bandwidths.take("x", 256, 128, 10.0)

    bandwidths.give_back("x", 256, 128)

    assert bandwidths.take("x", 256, 128, 10.0)


def test_maximum_of_nothing_allows_nothing():
    """0 bit/s."""
    assert not Bandwidths().take("x", 1, 0, 10.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 1000)), min_size=1), st.integers(1, 1000))
def test_mean_never_exceeds_the_maximum_by_more_than_one_request(requests, max_bps):
    """Whenever requests come."""
    bandwidths, now, given_bits, last = Bandwidths(), 0.0, 0, 0
    for pause_s, bits in requests:
        now += pause_s
        if bandwidths.take("x", bits, max_bps, now):
            given_bits, last = given_bits + bits, bits
        assert given_bits - last <= max_bps * now + 1e-6
