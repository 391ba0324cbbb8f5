"""What QCs make by their models: means, steadiness, the whole of a trace, and what an eavesdropper does to it."""

from __future__ import annotations

import itertools
import json
import random
import statistics

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scenario.quantum import decoy_bb84
from scenario.quantum.decoy_bb84 import MOST_QBER, Device
from scenario.quantum.qc_models import (
    Blocks,
    DecoyBb84,
    Drift,
    Made,
    Trace,
    Uniform,
    from_json,
    in_a_row,
    intercepted,
    left_under_eve,
    source,
    to_json,
    under_eve,
)

GYS = Device(
    pulses_per_s=2e6, signal=0.48, decoy=0.05, signal_share=0.8, sifted=0.5, efficiency=0.045, dark=1.7e-6,
    misalignment=0.033, correction=1.22, db_per_km=0.21,
)  # fmt: skip
TRACE = Trace((2.0, 10.0, 20.0), (800.0, 0.0, 4000.0), (0.01, 0.02, 0.03))
MODELS = [
    Uniform(33, 47), DecoyBb84(GYS, 2.0), DecoyBb84(GYS, 2.0, Drift(spread=0.1, memory_s=20.0, daily=0.2)),
    Blocks(204_800, 133.0, 10.0), TRACE,
]  # fmt: skip


def made(model, slots: int, seed: str = "1", eve: float = 0.0) -> list[Made]:
    """What comes in so many slots."""
    found = source(model, random.Random(seed))
    return [found.make(slot, eve) for slot in range(1, slots + 1)]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_a_day_brings_the_mean_rate(model):
    """Within three percent."""
    total = sum(m.n_bytes for m in made(model, 86_400))

    assert total / 86_400 == pytest.approx(model.mean_bytes_per_s, rel=0.03)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_seed_says_it_all(model):
    """Where chance has a part, another seed says something else."""
    assert made(model, 300) == made(model, 300)
    if model in (MODELS[0], MODELS[2], MODELS[3]):
        assert made(model, 300) != made(model, 300, "2")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_model_is_read_as_it_was_written(model):
    """As JSON."""
    again = from_json(json.loads(json.dumps(to_json(model))))

    assert made(again, 100) == made(model, 100)


def test_blocks_come_whole_and_about_when_they_are_due():
    """204,800 bytes about every 133 s."""
    found = made(Blocks(204_800, 133.0, 10.0), 20_000)
    at = [slot for slot, m in enumerate(found, 1) if m.n_bytes]
    gaps = [b - a for a, b in itertools.pairwise(at)]

    assert {m.n_bytes for m in found} == {0, 204_800}
    assert statistics.mean(gaps) == pytest.approx(133, abs=3)
    assert statistics.stdev(gaps) == pytest.approx(10, rel=0.3)


def test_trace_is_spread_over_its_slots_and_begins_anew():
    """100 bytes in the first two seconds, none until the tenth, 500 until the twentieth; and again."""
    found = [m.n_bytes for m in made(TRACE, 40)]

    assert found[:20] == [50, 50, *[0] * 8, *[50] * 10]
    assert found[20:] == found[:20]
    assert [m.n_bytes for m in made(Trace(TRACE.times_s, TRACE.bits, TRACE.qber, once=True), 40)][20:] == [0] * 20


def test_trace_has_the_error_rate_of_its_rows():
    """None where nothing came."""
    found = [m.qber for m in made(TRACE, 20)]

    assert found == [0.01] * 2 + [None] * 8 + [0.03] * 10


rows = st.lists(st.tuples(st.floats(0.3, 50), st.floats(0, 1e5)), min_size=1, max_size=20)


@given(rows, st.integers(1, 3))
@example([(1 / 3, 80_000.0)], 1)  # which goes into a slot three times, and leaves a rest
def test_trace_loses_no_bit(steps, rounds):
    """However its moments lie between slots: a whole number of rounds brings all of it, but for a part of a byte."""
    times = list(itertools.accumulate(step for step, _ in steps))
    trace = Trace(times, [bits for _, bits in steps], [0.02] * len(steps))
    slots = int(times[-1]) * rounds + 1
    whole_rounds, rest = divmod(slots, times[-1])
    so_far = sum(bits * min(1.0, max(0.0, (rest - begin) / (end - begin)))
                 for begin, end, (_, bits) in zip([0.0, *times], times, steps, strict=False))  # fmt: skip
    expected = (whole_rounds * sum(bits for _, bits in steps) + so_far) / 8

    assert sum(m.n_bytes for m in made(trace, slots)) == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_no_wait_is_longer_than_the_longest(model):
    """In a day; by which the usual TTL goes."""
    slots = itertools.groupby(made(model, 86_400), lambda m: m.n_bytes > 0)
    waits = [len(list(run)) for brings, run in slots if not brings]

    assert max(waits, default=0) <= 1.15 * model.longest_wait_s + 1


def test_drift_wanders_slowly_and_as_far_as_asked():
    """Minutes are like their neighbours; the spread over hours is the one asked for."""
    found = [m.n_bytes for m in made(DecoyBb84(GYS, 2.0, Drift(spread=0.1, memory_s=600.0)), 86_400)]
    mean = statistics.mean(found)
    minutes = [statistics.mean(found[i : i + 60]) / mean for i in range(0, 86_400, 60)]

    assert statistics.stdev(minutes) == pytest.approx(0.1, rel=0.35)
    assert statistics.mean(abs(a - b) for a, b in itertools.pairwise(minutes)) < 0.05


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("eve", [0.02, 0.05])
def test_eavesdropper_raises_the_errors_and_lowers_the_rate(model, eve):
    """By a quarter of what she intercepts, nearly."""
    before, now = made(model, 3000), made(model, 3000, eve=eve)
    errors = [statistics.mean(m.qber for m in found if m.qber is not None) for found in (before, now)]

    assert errors[1] - errors[0] == pytest.approx(eve / 4, rel=0.1)
    assert 0 < sum(m.n_bytes for m in now) < sum(m.n_bytes for m in before)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_above_eleven_percent_nothing_comes_and_the_errors_are_said(model):
    """An eavesdropper on half of the pulses is seen, and gets no key."""
    found = made(model, 1000, eve=0.5)

    assert sum(m.n_bytes for m in found) == 0
    assert max(m.qber for m in found if m.qber is not None) > MOST_QBER


@given(st.floats(0, 0.1), st.floats(0, 1), st.floats(0, 1))
def test_more_interception_never_leaves_more(qber, one, other):
    """Of any device."""
    less, more = sorted((one, other))

    assert left_under_eve(qber, more) <= left_under_eve(qber, less) + 1e-12
    assert left_under_eve(qber, 0.0) in (0.0, 1.0)
    assert under_eve(qber, 1.0) == pytest.approx(0.25 + 0.5 * qber)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("eve", [0.0, 0.1, 0.5])
def test_mean_under_an_eavesdropper_is_that_of_what_comes(model, eve):
    """Of a day; by which a network in virtual time sees that nothing comes."""
    found = made(model, 86_400, eve=eve)
    rate, qber = intercepted(model, eve)

    assert sum(m.n_bytes for m in found) / 86_400 == pytest.approx(rate, rel=0.03)
    if model is not TRACE:  # whose QBER is another one in each line
        assert qber == pytest.approx(statistics.mean(m.qber for m in found if m.qber is not None))


@given(st.floats(0, 0.5), st.lists(st.floats(0, 0.3), max_size=3))
def test_eavesdroppers_in_a_row_do_what_one_does_that_intercepts_as_much(qber, eves):
    """Whoever comes first."""
    one_by_one = qber
    for eve in eves:
        one_by_one = under_eve(one_by_one, eve)

    assert one_by_one == pytest.approx(under_eve(qber, in_a_row(eves)))
    assert in_a_row(eves) == pytest.approx(in_a_row(reversed(eves)))


def test_decoy_rate_is_that_of_its_fibre():
    """In bytes a second, without drift."""
    found = made(DecoyBb84(GYS, 5.0), 1000)

    assert sum(m.n_bytes for m in found) == pytest.approx(1000 * decoy_bb84.rate_bps(GYS, 5.0) / 8, abs=1)
    assert found[0].qber == decoy_bb84.qber(GYS, 5.0)
