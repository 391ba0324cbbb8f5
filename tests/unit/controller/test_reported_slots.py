"""What is kept of slot reports: the last ones as they came, earlier ones several together; nothing is lost by it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from controller import limits
from controller.network.reported_slots import Entry, Window, together
from decisions.parameters import TTL

MOST = 100  # bytes a slot


def report(slot: int, n_bytes: int, since: int | None = None) -> Entry:
    """Of one slot, unless it says since when."""
    return Entry(slot - 1 if since is None else since, slot, n_bytes, n_bytes, n_bytes, n_bytes, 16)


def window(*generated: int) -> Window:
    """Reports of slot 1 and so on, each of a slot."""
    found = Window()
    for slot, n_bytes in enumerate(generated, start=1):
        found.take(report(slot, n_bytes), now=float(slot))
    return found


@given(
    st.lists(st.integers(0, MOST), min_size=1, max_size=40), st.integers(1, 120), st.integers(1, 5000)
)
def test_sums_over_the_last_slots_are_exact_for_some_hundreds_and_near_for_more(pattern, times, slots):
    """Off by no more than the slots at the far edge can hold, of which k / FINE_SLOTS are kept as one."""
    generated = pattern * times
    recent = window(*generated).recent(slots, float(len(generated)))
    exact, found = sum(generated[-slots:]), recent.total(lambda e: e.generated)

    edge = 0 if slots <= 2 * limits.FINE_SLOTS else MOST * slots // limits.FINE_SLOTS
    assert abs(found - exact) <= edge
    assert recent.reported == min(slots, len(generated))
    assert abs(sum(recent.by_slot()) - exact) <= edge + 1
    assert len(recent.by_slot()) == recent.reported


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 10**6)), min_size=1, max_size=200))
def test_nothing_is_lost_where_reports_are_put_together(steps):
    """Whatever their lengths; and what was put together is not put together any further."""
    slot, entries = 0, []
    for length, n_bytes in steps:
        slot += length
        entries.append(report(slot, n_bytes, slot - length))
    found = together(entries)

    assert sum(e.requested for e in found) == sum(e.requested for e in entries)
    assert (found[0].since, found[-1].slot) == (entries[0].since, entries[-1].slot)
    assert all(before.slot == after.since for before, after in itertools.pairwise(found))
    assert together(found) == found


def test_reports_of_a_day_are_kept_as_some_thousands():
    """As far back as the longest TTL asks for; of two days as many."""
    kept = []
    for days in (1, 2):
        found = window(*[40] * (days * TTL.high))
        recent = found.recent(TTL.high + 1, float(days * TTL.high))
        kept.append(len(recent.entries))
        assert recent.reported == min(days * TTL.high, TTL.high + 1)
        assert recent.total(lambda e: e.generated) == 40 * recent.reported

    assert max(kept) < 3000


@given(st.integers(0, 10**4), st.integers(1, 50))
def test_report_of_several_slots_has_an_equal_part_in_each(n_bytes, length):
    """And no byte is lost in parts that are no whole bytes."""
    found = Window()
    found.take(report(length, n_bytes, 0), now=0.0)
    by_slot = found.recent(length, 0.0).by_slot()

    assert sum(by_slot) == n_bytes
    assert max(by_slot) - min(by_slot) <= 1


def test_reporter_that_counts_from_the_beginning_again_is_believed_from_there():
    """What it said before was of other slots."""
    found = window(*[40] * 1000)
    found.take(report(1, 7), now=0.0)

    recent = found.recent(15, 0.0)
    assert (recent.reported, recent.total(lambda e: e.generated)) == (1, 7)
