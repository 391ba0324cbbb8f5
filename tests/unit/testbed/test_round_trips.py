"""The longest round trip of a network, and which TTL it allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenario.shape import Shape
from testbed.fibres.fibres import Fibre
from testbed.planning.round_trips import longest_s, too_long


def fibre(a: str, b: str, there_ms: float, back_ms: float | None = None) -> Fibre:
    """Between two datacenters."""
    return Fibre(f"{a}-{b}", a, b, Shape(there_ms), Shape(there_ms if back_ms is None else back_ms))


RING = [fibre("a", "b", 10), fibre("b", "c", 10, 30), fibre("c", "a", 100)]


def test_round_trip_goes_over_the_shortest_paths_of_both_directions():
    """a - b - c there, and c - b - a back, although a fibre joins them."""
    assert longest_s(RING) == pytest.approx((10 + 10 + 30 + 10) / 1000)
    assert longest_s([]) == 0


def test_fibre_that_has_become_slow_is_not_avoided():
    """The controller goes by the delays of the beginning."""
    slow = replace(RING[0], a_to_b=Shape(1000.0))

    assert longest_s(RING, [*RING, slow]) == pytest.approx((1000 + 10 + 30 + 10) / 1000)


@pytest.mark.parametrize(("round_trip_s", "ttl_slots"), [(0.125, 1), (1.875, 15), (2.5, 20), (2.5, 1000)])
def test_keys_live_long_enough_where_a_ttl_has_eight_round_trips(round_trip_s, ttl_slots):
    """And a little more is too much, as is what no handshake survives."""
    assert too_long(round_trip_s, ttl_slots) is None
    assert f"{round_trip_s + 0.01:g} s" in too_long(round_trip_s + 0.01, ttl_slots)
