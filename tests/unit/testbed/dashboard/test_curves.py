"""Totals that nodes tell become curves of slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.dashboard.collected.snapshot import KEPT_SLOTS, Curves, Sample, Totals, total

QC = "a-b/1"


def at(slot: int, made: int, used: int = 0, expired: int = 0) -> Totals:
    return Totals(slot, stored=made - used - expired, generated=made, used=used, expired=expired)


def test_sample_is_what_came_about_since_the_slot_before():
    """Differences of totals, and the stock as it is."""
    curves = Curves()
    curves.take("a", QC, at(7, 100))
    curves.take("a", QC, at(8, 140, used=32, expired=10))

    assert curves.of(QC) == (Sample(8, made=40, used=32, expired=10, stored=98),)


def test_slots_that_were_missed_share_what_came_about_in_them():
    """A rate is bytes a slot, however long nobody looked."""
    curves = Curves()
    curves.take("a", QC, at(1, 0))
    curves.take("a", QC, at(5, 160))

    assert [s.made for s in curves.of(QC)] == [40]


def test_other_end_is_listened_to_when_the_first_falls_silent():
    """Bytes are counted at one end at a time, so none is counted twice."""
    curves = Curves()
    for slot in range(1, 4):
        curves.take("a", QC, at(slot, 40 * slot))
        curves.take("b", QC, at(slot, 40 * slot))
    for slot in range(4, 12):
        curves.take("b", QC, at(slot, 40 * slot))

    assert [s.slot for s in curves.of(QC)] == [2, 3, 8, 9, 10, 11]
    assert {s.made for s in curves.of(QC)} == {40}


def test_slot_that_was_heard_of_adds_nothing():
    """A node is asked more often than its slots end."""
    curves = Curves()
    for totals in (at(1, 40), at(2, 80), at(2, 80), at(1, 40)):
        curves.take("a", QC, totals)

    assert len(curves.of(QC)) == 1


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=400))
def test_nothing_is_lost_and_memory_is_bounded(made):
    """What the curve shows of the last slots is what was made in them."""
    curves, generated = Curves(), 0
    curves.take("a", QC, at(0, 0))
    for slot, n_bytes in enumerate(made, start=1):
        generated += n_bytes
        curves.take("a", QC, at(slot, generated))

    assert [s.made for s in curves.of(QC)] == made[-KEPT_SLOTS:]


def test_sum_is_over_slots_that_all_have():
    """A QC that was not heard of for a slot does not look like one that made nothing."""
    one = (Sample(1, 10, 1, 2, 100), Sample(2, 20, 1, 2, 100))
    other = (Sample(2, 5, 3, 0, 50),)

    assert total([one, other]) == (Sample(2, 25, 4, 2, 150),)
