"""The benchmark of virtual time measures what it says, on networks that take no time."""

from __future__ import annotations

from tests.benchmarks.simulation import decisions_ms, request_us, run_one


def test_row_has_a_hundred_requests_a_session():
    """All of them are counted, whatever the mode."""
    for mode, admission in (("basic", "none"), ("qkp", "none"), ("basic", "calendar")):
        *asked, requests, took_s, each_us, peak_mb = run_one(10, 15, 10, mode, admission)

        assert asked == [10, 15, 10, mode, admission]
        assert requests <= 10 * 100
        assert min(took_s, each_us, peak_mb) > 0


def test_request_and_decision_take_their_time():
    """Each of the last hundred decisions."""
    assert request_us(10) > 0
    assert len(decisions_ms(beside=20)) == 100
