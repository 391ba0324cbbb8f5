"""Medians and their intervals."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.experiments.evaluation.results import CONFIDENCE, ENOUGH, coverage, estimate

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60)


@given(values)
def test_interval_holds_the_median_and_lies_within_what_was_measured(given_values):
    found = estimate(given_values)

    assert min(given_values) <= found.low <= found.median <= found.high <= max(given_values)
    assert found.median == statistics.median(given_values)
    assert found.n == len(given_values)


@given(values)
def test_enough_repeats_give_95_percent_and_fewer_say_what_they_give(given_values):
    found = estimate(given_values)

    assert found.is_confident == (len(given_values) >= ENOUGH)
    if not found.is_confident:
        assert found.coverage == pytest.approx(1 - 2 ** (1 - len(given_values)))
        assert (found.low, found.high) == (min(given_values), max(given_values))


def test_no_narrower_interval_of_95_percent_is_left_out():
    """With 30 values from the 10th lowest to the 10th highest, as the tables of the sign test have it."""
    found = estimate(range(1, 31))

    assert (found.low, found.high) == (10, 21)
    assert coverage(30, 10) >= CONFIDENCE > coverage(30, 11)


def test_intervals_hold_the_true_median_as_often_as_they_say():
    """Of a skewed law, where an interval of the mean would not."""
    generator = random.Random(1)
    true = statistics.NormalDist().inv_cdf(0.5)
    hits = 0
    for _ in range(2000):
        found = estimate([generator.gauss() ** 3 for _ in range(8)])
        hits += found.low <= true <= found.high

    assert hits / 2000 == pytest.approx(coverage(8, 1), abs=0.02)


@pytest.mark.parametrize("few", [[], [1.0]])
def test_a_single_repeat_has_no_interval(few):
    with pytest.raises(ValueError, match="at least two repeats"):
        estimate(few)
