"""What sessions have declared to take of a QC, slot by slot, and whether there will be enough."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.admission import Demand, QcView, Refused, calendar, selective
from decisions.calendar import (
    EXPECTED,
    WANTED_SLOTS,
    Agenda,
    Draw,
    Wanted,
    first_shortage,
    most_of_one,
    supply,
)

periods = st.sampled_from([1.0, 2.0, 5.0, 15.0, 0.75, 2.5, 3.25])
starts = st.integers(0, 400).map(lambda n: n / 8)
draws = st.builds(
    lambda n_bytes, period_s, first_s, lasts_s: Draw(n_bytes, period_s, first_s, first_s + lasts_s),
    st.integers(1, 64), periods, starts, st.one_of(st.just(math.inf), st.integers(1, 300).map(lambda n: n / 4)),
)  # fmt: skip


def taken(draw: Draw, first: int, slots: int) -> list[int]:
    """What it takes in each slot, one key after the other."""
    found, number = [0] * slots, 0
    while (at_s := draw.first_s + number * draw.period_s) < min(draw.end_s, first + slots):
        if at_s >= first:
            found[math.floor(at_s) - first] += draw.n_bytes
        number += 1
    return found


@given(draws, st.integers(1, 60))
def test_draw_is_one_share_each_period_until_its_end(draw, slots):
    """In the slots in which the keys are asked for."""
    assert draw.by_slot(slots) == taken(draw, 0, slots)


@given(st.lists(draws, max_size=6), st.integers(0, 100), st.integers(1, 60), st.data())
def test_agenda_is_the_sum_of_what_is_declared_and_not_withdrawn(declared, first, slots, data):
    """From any slot on that has not come when the last session ended."""
    agenda, gone = Agenda(), data.draw(st.lists(st.sampled_from(range(max(1, len(declared)))), unique=True))
    for draw in declared:
        agenda.add(draw, draw.first_s)
    for number in gone:
        if number < len(declared):
            agenda.remove(declared[number], 0.0)
    left = [draw for number, draw in enumerate(declared) if number not in gone]

    expected = [sum(column) for column in zip([0] * slots, *(taken(d, first, slots) for d in left), strict=True)]
    # Endless sessions whose period is in whole slots are known by their slot; they are played as if begun before.
    if all(d.end_s < math.inf or d.first_s < first for d in left):
        assert agenda.planned(first, slots) == expected


def test_bytes_serve_the_slot_in_which_they_are_made_and_some_after_it():
    """The oldest go first; what is missing in the first slot that is short is said."""
    assert first_shortage([0, 0, 40, 40, 40], [40, 40, 40], 3) is None
    assert first_shortage([0, 0, 40, 0, 0], [0, 0, 40], 3) is None
    assert first_shortage([0, 0, 40, 0, 0, 0], [0, 0, 0, 40], 3) == (3, 40)
    assert first_shortage([30, 0, 40, 0], [0, 50], 3) == (1, 10)
    assert first_shortage([30, 0, 40, 0], [20, 50], 3) == (1, 10)


@given(st.lists(st.integers(0, 50), min_size=4, max_size=20), st.lists(st.integers(0, 60), max_size=17))
def test_somebody_goes_short_exactly_if_some_slots_together_want_more_than_can_serve_them(made, wanted):
    """Hall's condition: for all slots from one to another, what is wanted in them against what was made for them."""
    waits = 4
    wanted = wanted[: len(made) - waits + 1]

    short = first_shortage(made, wanted, waits)

    enough = all(
        sum(wanted[i : j + 1]) <= sum(made[i : j + waits]) for i in range(len(wanted)) for j in range(i, len(wanted))
    )
    assert (short is None) is enough


def test_what_is_stored_are_the_youngest_bytes():
    """Then comes a little less than what was made lately."""
    assert supply([40, 40, 40], 100, waits_slots=3, slots=3) == [20, 40, 40, 37, 37]
    assert supply([40], 40, waits_slots=3, slots=2) == [0, 0, 40, 37]
    assert supply([10, 40, 40, 40], 500, waits_slots=2, slots=1) == [40, 40]
    assert supply([], 0, waits_slots=2, slots=2) == [0, 0, 0]


def view(agenda: Agenda, now: int, made: int, stored: int) -> QcView:
    """A QC that makes `made` bytes a slot."""
    return QcView(
        "q", 15 * made, 0, stored, 15, endless_per_slot=agenda.endless_per_slot, by_slot=[made] * 15,
        planned=lambda slots: agenda.planned(now, slots),
    )  # fmt: skip


def demand(draw: Draw, waits: int = 12) -> Demand:
    """Of one QC."""
    return Demand(draw.n_bytes, draw.period_s, [draw.n_bytes], [draw], waits)


@given(st.lists(st.tuples(st.integers(1, 64), st.sampled_from([1.0, 2.0, 5.0]), st.integers(1, 60)), max_size=30))
def test_nobody_whom_the_calendar_admits_goes_short_if_as_much_comes_as_it_expects(sessions):
    """One session a slot, on a QC without a store; each until its declared end."""
    agenda, admitted = Agenda(), []
    for now, (n_bytes, period_s, lasts) in enumerate(sessions):
        new = Draw(n_bytes, period_s, 0.0, float(lasts))
        if calendar([view(agenda, now, 40, 0)], demand(new)) is None:
            held = Draw(n_bytes, period_s, float(now), float(now + lasts))
            agenda.add(held, float(now))
            admitted.append(held)

    slots = 120
    wanted = [sum(column) for column in zip([0] * slots, *(taken(d, 0, slots) for d in admitted), strict=True)]
    assert first_shortage([0] * 12 + [math.floor(EXPECTED * 40)] * slots, wanted, 12) is None


def test_calendar_admits_for_ever_what_a_qc_makes_on_average_and_no_more_however_much_is_stored():
    """A key each five slots: five slots' worth, and a byte more."""
    assert calendar([view(Agenda(), 0, 40, 15 * 40)], demand(Draw(37 * 5, 5.0))) is None
    assert calendar([view(Agenda(), 0, 40, 15 * 40)], demand(Draw(37 * 5 + 1, 5.0))) == Refused("q", 38, 37)


def test_calendar_admits_for_a_while_what_is_stored_and_names_the_slot_that_would_be_short():
    """480 bytes serve now; 37 come each slot: keys of 200 bytes each five slots lack 15 bytes each time."""
    def refused(lasts_s: float) -> Refused | None:
        return calendar([view(Agenda(), 0, 40, 15 * 40)], demand(Draw(200, 5.0, 0.0, lasts_s)))

    assert refused(60.0) is None
    assert refused(300.0).needed_bytes == 200
    assert refused(300.0).available_bytes < 200


@given(st.lists(st.integers(0, 500), max_size=20), st.integers(0, 3000))
def test_there_is_room_for_all_that_want_less_than_the_most_of_one(wanted, room):
    """And not for those that want as much, too."""
    most = most_of_one(wanted, room)

    if most is None:
        assert sum(wanted) <= room
    else:
        assert sum(n for n in wanted if n < most) <= room < sum(n for n in wanted if n <= most)


def test_what_was_wanted_is_forgotten_after_some_slots_and_counts_for_as_many():
    """A session that lasts longer takes no more of them than one that lasts for just so long."""
    wanted = Wanted()
    assert wanted.of("q", 100.0) == ([], 1.0)
    wanted.add(["q", "r"], [Draw(16, 5.0), Draw(16, 5.0, 0.0, 11.0)], 100.0)
    wanted.add(["q"], [Draw(8, 1.0, 0.5, 2.0)], 130.0)

    assert wanted.of("q", 130.0) == ([16 * WANTED_SLOTS // 5, 16], 30.0)
    assert wanted.of("r", 130.0) == ([48], 30.0)
    assert wanted.of("q", 100.0 + WANTED_SLOTS + 1) == ([16], WANTED_SLOTS)


@pytest.mark.parametrize(("lasts_s", "admitted"), [(10.0, True), (50.0, False), (math.inf, False)])
def test_selective_lets_short_sessions_in_where_long_ones_would_take_their_place(lasts_s, admitted):
    """Of a QC with 2,260 bytes in the time that is looked at, and sessions that want three times that."""
    wanted = [16 * n for n in (1, 2, 4, 8, 16, 32, 64, 128)] + [160] * 16
    one = replace(view(Agenda(), 0, 40, 40), wanted=lambda: (wanted, float(WANTED_SLOTS)))
    asking = demand(Draw(16, 1.0, 0.0, lasts_s))

    short = selective([one], asking)
    assert (short is None) is admitted
    assert short is None or "others want to take less in the next 60 slots" in short.seen
    assert calendar([one], asking) is None


def test_selective_is_the_calendar_where_there_is_room_for_all_and_for_who_is_open_already():
    """A refusal of the calendar stands."""
    empty, asking = view(Agenda(), 0, 40, 40), demand(Draw(16, 1.0, 0.0, 1000.0))
    few = replace(empty, wanted=lambda: ([16, 32], float(WANTED_SLOTS)))

    assert selective([empty], asking) is selective([few], asking) is None
    assert selective([few], demand(Draw(100, 1.0, 0.0, 1000.0))) == calendar([few], demand(Draw(100, 1.0, 0.0, 1000.0)))
