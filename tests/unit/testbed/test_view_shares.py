"""What the benchmark of the live view says of shares of a core."""

from __future__ import annotations

from testbed.bench.bench_view import shares


def test_share_of_a_core_is_what_a_page_takes_beyond_the_mean_of_before_and_after():
    said = shares([60.0, 77.0, 97.0, 74.0], 5)

    assert said == "the view takes 1.0 % of a core while its page is served, 3.0 % while it is open (at most 5 %)"


def test_share_beyond_the_bound_is_called_too_much():
    said = shares([500.0, 600.0, 700.0, 500.0], 15)

    assert said.endswith("20.0 % while it is open (at most 15 %, WHICH IS TOO MUCH)")
