"""When a network counts as up."""

from __future__ import annotations

import pytest

from testbed.network.readiness import first_slots


@pytest.mark.parametrize(
    ("bytes_per_slot", "ttl_slots", "first_bytes", "slots"),
    [
        (33, 15, None, 3), (33, 15, 0, 1), (33, 15, 32, 1), (33, 15, 34, 2), (33, 15, 10_000, 3), (33, 2, None, 1),
        (33, 1, 10_000, 1), (0, 15, 100, 3), (1000, 15, None, 3),
    ],
)  # fmt: skip
def test_qc_begins_with_what_is_asked_for_first_or_with_three_slots(bytes_per_slot, ttl_slots, first_bytes, slots):
    """Never with more than lives at that TTL, nor with less than a slot."""
    assert first_slots(bytes_per_slot, ttl_slots, first_bytes) == slots
