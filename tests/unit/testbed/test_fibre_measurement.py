"""From frames that crossed a fibre to figures: delay, jitter, loss and bandwidth."""

from __future__ import annotations

import random

import pytest

from scenario.shape import Shape
from testbed.fibres.measurement import Figure, delay_and_jitter, interval, loss
from testbed.fibres.probe import Train, without_carrier

MS = 1_000_000


def train(delays_ms, frame_bytes=64, gap_ms=10.0):
    """Frames that took so long; None for one that is lost."""
    sent = [round(i * gap_ms * MS) for i in range(len(delays_ms))]
    arrived = [None if d is None else at + round(d * MS) for at, d in zip(sent, delays_ms, strict=True)]
    return Train(frame_bytes, sent, arrived, frame_bytes * (len([a for a in arrived if a is not None]) - 1))


def test_delay_is_the_median_and_jitter_half_the_width():
    """Of a uniform distribution, as both shapers draw from it."""
    chance = random.Random(1)
    delay, jitter = delay_and_jitter(Shape(5, 2), train([chance.uniform(3, 7) for _ in range(4000)]))

    assert delay.measured == pytest.approx(5, abs=0.15)
    assert delay.low < delay.measured < delay.high
    assert jitter.measured == pytest.approx(2, abs=0.15)


def test_a_busy_machines_late_frames_move_neither():
    """Every tenth comes 50 ms late."""
    delay, jitter = delay_and_jitter(Shape(5), train([55.0 if i % 10 == 0 else 5.0 for i in range(200)]))

    assert (delay.measured, jitter.measured) == (5.0, 0.0)


def test_the_time_of_a_frames_own_bytes_is_no_delay():
    """64 bytes at 1 Mbit/s take 0.512 ms."""
    delay, _ = delay_and_jitter(Shape(5, bandwidth_mbit=1), train([5.512] * 10))

    assert delay.measured == pytest.approx(5)


def test_nothing_arrived_is_no_figure():
    """Neither delay nor jitter, and 100 % lost."""
    gone = train([None] * 50)

    assert [f.measured for f in delay_and_jitter(Shape(5), gone)] == [None, None]
    assert [f.error for f in delay_and_jitter(Shape(5), gone)] == [None, None]
    assert loss(Shape(5, loss_percent=100), gone).measured == 100
    assert gone.mbit_per_s is None


def test_bandwidth_is_bytes_over_time_from_the_first_arrival_on():
    """1250 bytes every millisecond are 10 Mbit/s, however late the first one is."""
    assert train([7.0] * 100, frame_bytes=1250, gap_ms=1).mbit_per_s == pytest.approx(10)


@pytest.mark.parametrize(
    ("found", "tried", "low", "high"),
    [(0, 9999, 0.0, 0.000384), (9999, 9999, 0.999616, 1.0), (100, 10_000, 0.00823, 0.01215), (1, 2, 0.0945, 0.9055)],
)
def test_interval_of_a_share(found, tried, low, high):
    """Wilson's, against values worked out apart; never beyond 0 and 1."""
    assert interval(found, tried) == pytest.approx((low, high), abs=1e-4)


def test_interval_holds_the_truth_as_often_as_it_says():
    """95 of 100 times, within what 2000 trials can tell (probability of a false alarm below 1e-6)."""
    chance = random.Random(3)
    held = 0
    for _ in range(2000):
        low, high = interval(sum(chance.random() < 0.05 for _ in range(300)), 300)
        held += low <= 0.05 <= high

    assert 0.92 < held / 2000 < 0.98


def test_errors_are_absolute_and_relative():
    """The second only of what is configured at all."""
    assert Figure("delay", "ms", 5, 5.5).error == pytest.approx(0.5)
    assert Figure("delay", "ms", 5, 5.5).error_percent == pytest.approx(10)
    assert Figure("jitter", "ms", 0, 0.1).error_percent is None


def test_port_that_is_not_there_sees_no_light():
    """And the machine's loopback, which is up, does."""
    assert without_carrier(["nowhere", "lo"]) == ["nowhere"]
