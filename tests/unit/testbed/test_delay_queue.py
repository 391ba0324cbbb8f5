"""When a frame leaves the delay line, what its configuration may say, and which end goes dark with which."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenario.shape import Shape
from testbed.fibres.delay_line import parse
from testbed.fibres.delay_line_carrier import Ends, decide
from testbed.fibres.delay_queue import DelayQueue, wire_bytes

MS = 1_000_000
shapes = st.builds(
    Shape,
    delay_ms=st.floats(0, 100),
    jitter_ms=st.floats(0, 50),
    loss_percent=st.floats(0, 100),
    bandwidth_mbit=st.none() | st.floats(0.1, 1000),
)
# Gaps between frames in ns, their lengths in bytes (TCP's large segments included), and the shape from then on.
arrivals = st.lists(st.tuples(st.integers(0, 5 * MS), st.integers(60, 65_549), shapes), max_size=60)


def never() -> float:
    """The chance at which nothing is lost and jitter is at its highest."""
    return 0.999999


@given(arrivals, st.integers())
def test_every_frame_leaves_once_in_order_or_is_counted_as_dropped(arrivals, seed):
    """Whatever the shapes, and whenever they change."""
    queue = DelayQueue(Shape(0), random.Random(seed).random)
    now, kept, left = 0, [], []
    for i, (gap, n_bytes, queue.shape) in enumerate(arrivals):
        now += gap
        if queue.put(i, n_bytes, now):
            kept.append(i)
        left += queue.due(now)
    left += queue.due(1 << 62)

    assert left == kept
    assert len(kept) + queue.dropped == len(arrivals)
    assert len(queue) == 0


@given(arrivals, st.integers())
def test_no_frame_is_early(arrivals, seed):
    """Not before its arrival, plus the time its bytes take, plus delay less jitter."""
    queue = DelayQueue(Shape(0), random.Random(seed).random)
    now, earliest = 0, {}
    for i, (gap, n_bytes, shape) in enumerate(arrivals):
        now += gap
        queue.shape = shape
        queue.put(i, n_bytes, now)
        bytes_ns = 0 if shape.bandwidth_mbit is None else n_bytes * 8000 / shape.bandwidth_mbit
        earliest[i] = now + bytes_ns + max(0, shape.delay_ms - shape.jitter_ms) * MS - 2  # roundings
    while (at := queue.next_ns()) is not None:
        assert all(at >= earliest[i] for i in queue.due(at))


@given(st.lists(st.tuples(st.integers(0, MS), st.integers(60, 65_549)), max_size=60), st.floats(0.1, 1000))
def test_no_more_passes_than_the_bandwidth(arrivals, bandwidth_mbit):
    """Between any first and last frame."""
    queue = DelayQueue(Shape(3, bandwidth_mbit=bandwidth_mbit), never)
    now, passed_bytes = 0, 0
    for gap, n_bytes in arrivals:
        now += gap
        passed_bytes += n_bytes * queue.put(None, n_bytes, now)
    last = 0
    while (at := queue.next_ns()) is not None:
        last = at
        queue.due(at)

    assert passed_bytes * 8000 / bandwidth_mbit <= last - 3 * MS * bool(passed_bytes) + len(arrivals)


def test_frame_leaves_exactly_after_the_delay():
    """Neither before nor after."""
    queue = DelayQueue(Shape(5), never)
    queue.put("x", 100, 1000)

    assert queue.next_ns() == 1000 + 5 * MS
    assert queue.due(1000 + 5 * MS - 1) == []
    assert queue.due(1000 + 5 * MS) == ["x"]
    assert queue.next_ns() is None


def test_jitter_reaches_both_its_ends_and_overtakes_nobody():
    """A late frame holds back the one behind it."""
    chances = iter([0.0, never(), 0.0])
    queue = DelayQueue(Shape(5, jitter_ms=2), lambda: next(chances))
    queue.put("early", 100, 0)
    queue.put("late", 100, 0)
    queue.put("held back", 100, 0)

    assert queue.due(3 * MS) == ["early"]
    assert queue.due(7 * MS - 1000) == []
    assert queue.due(7 * MS) == ["late", "held back"]


def test_jitter_does_not_let_frames_pass_closer_than_their_bytes_take():
    """The second drew a delay that is shorter by 4 ms, and still leaves a millisecond after the first."""
    chances = iter([never(), 0.0])
    queue = DelayQueue(Shape(5, jitter_ms=2, bandwidth_mbit=10), lambda: next(chances))
    queue.put("late", 1250, 0)
    queue.put("behind it", 1250, 0)

    assert queue.due(8 * MS) == ["late"]
    assert queue.due(9 * MS - 100) == []
    assert queue.due(9 * MS) == ["behind it"]


def test_bandwidth_spaces_frames_by_their_length():
    """1250 bytes at 10 Mbit/s take a millisecond each."""
    queue = DelayQueue(Shape(0, bandwidth_mbit=10), never)
    for i in range(3):
        queue.put(i, 1250, 0)

    assert [queue.due(ms * MS) for ms in (1, 2, 3)] == [[0], [1], [2]]


def test_busy_line_lets_a_thousand_full_frames_wait():
    """The rest is dropped, until there is room again."""
    queue = DelayQueue(Shape(0, bandwidth_mbit=1), never)
    kept = [queue.put(i, 1514, 0) for i in range(2000)]

    assert kept == [True] * 1000 + [False] * 1000
    assert not queue.put("too soon", 1514, 12 * MS)
    assert queue.put("room for one", 1514, 13 * MS)


def test_what_is_on_the_fibre_takes_no_room_in_the_queue():
    """A wide and long link carries bandwidth times delay: here 8000 full frames and more."""
    queue = DelayQueue(Shape(100, bandwidth_mbit=1000), never)
    frame_ns = 1514 * 8

    assert all(queue.put(i, 1514, i * frame_ns) for i in range(8000))


def test_flood_without_a_bandwidth_is_dropped_before_it_takes_all_memory():
    """A quarter of a gibibyte in one direction is on its way at most, and leaves room when it has left."""
    queue = DelayQueue(Shape(60_000), never)
    held = sum(queue.put(i, 65_000, i) for i in range(5000))

    assert held * 65_000 <= 256 << 20
    assert held + queue.dropped == 5000
    assert len(queue.due(60_001 * MS)) == held
    assert queue.put("again", 65_000, 60_001 * MS)


@pytest.mark.parametrize(("loss_percent", "kept"), [(0, 1000), (100, 0)])
def test_loss_at_its_ends_is_exact(loss_percent, kept):
    """0 % loses nothing, 100 % everything."""
    queue = DelayQueue(Shape(0, loss_percent=loss_percent), random.Random(1).random)

    assert sum(queue.put(i, 60, i) for i in range(1000)) == kept


def test_changed_shape_holds_for_later_frames():
    """Frames on the way keep theirs, and are not overtaken."""
    queue = DelayQueue(Shape(10), never)
    queue.put("old", 60, 0)
    queue.shape = Shape(1)
    queue.put("new", 60, 0)

    assert queue.due(10 * MS - 1) == []
    assert queue.due(10 * MS) == ["old", "new"]


@pytest.mark.parametrize(
    ("kind", "payload", "transport", "n_bytes", "on_the_wire"),
    [
        (0, 0, 0, 1514, 1514),
        (1, 1448, 34, 66 + 1448, 1514),
        (1, 1448, 34, 66 + 1449, 1514 + 67),
        (0x81, 1448, 34, 66 + 40 * 1448, 40 * 1514),
        (4, 1428, 54, 86 + 2 * 1428, 2 * 1514),
        (5, 1472, 34, 42 + 3 * 1472, 3 * 1514),
        (1, 1448, 60_000, 1514, 1514),
    ],
    ids=["plain", "one segment", "and a byte more", "TCP with ECN", "TCP over IPv6", "UDP", "nonsense"],
)
def test_large_segments_take_as_long_as_the_frames_they_will_be(kind, payload, transport, n_bytes, on_the_wire):
    """Each with headers of its own: Ethernet, IP, and TCP with time stamps or UDP."""
    frame = bytearray(10 + n_bytes)
    struct.pack_into("<BBHHHH", frame, 0, 1, kind, 0, payload, transport, 16)
    if transport < n_bytes:
        frame[10 + transport + 12] = 0x80

    assert wire_bytes(bytes(frame)) == on_the_wire


def line(**changed):
    """A line of a configuration."""
    return {"name": "w", "a": "dl0a", "b": "dl0b", "a_to_b": {"delay_ms": 1}, "b_to_a": {"delay_ms": 2}} | changed


def test_configuration_gives_each_direction_its_shape():
    """What is left out of a shape is zero, or no limit."""
    full = {"delay_ms": 5, "jitter_ms": 1, "loss_percent": 0.5, "bandwidth_mbit": 100}
    config = parse({"lines": [line(a_to_b=full)], "seed": 7})

    assert config.lines[0].a_to_b == Shape(5.0, 1.0, 0.5, 100.0)
    assert config.lines[0].b_to_a == Shape(2.0, 0.0, 0.0, None)
    assert (config.seed, config.stats) == (7, None)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "configuration"),
        ({}, "lines"),
        ({"lines": [line()], "sead": 1}, "configuration.sead"),
        ({"lines": [line()], "seed": 1.5}, "seed"),
        ({"lines": [line()], "stats": 3}, "stats"),
        ({"lines": [3]}, "lines[0]"),
        ({"lines": [line(), line()]}, "lines[1].name"),
        ({"lines": [line(b="dl0a")]}, "lines[0].b"),
        ({"lines": [line(a="longer-than-fifteen")]}, "lines[0].a"),
        ({"lines": [line(a_to_b={})]}, "lines[0].a_to_b.delay_ms"),
        ({"lines": [line(a_to_b={"delay_ms": -1})]}, "lines[0].a_to_b.delay_ms"),
        ({"lines": [line(a_to_b={"delay_ms": True})]}, "lines[0].a_to_b.delay_ms"),
        ({"lines": [line(a_to_b={"delay_ms": float("nan")})]}, "lines[0].a_to_b.delay_ms"),
        ({"lines": [line(b_to_a={"delay_ms": 1, "loss_percent": 101})]}, "lines[0].b_to_a.loss_percent"),
        ({"lines": [line(b_to_a={"delay_ms": 1, "bandwidth_mbit": 0})]}, "lines[0].b_to_a.bandwidth_mbit"),
        ({"lines": [line(b_to_a={"delay_ms": 1, "colour\n": 1})]}, "lines[0].b_to_a.'colour\\n'"),
    ],
)
def test_malformed_configuration_is_refused_by_name(document, field):
    """In one line that begins with the member."""
    with pytest.raises(ValueError, match="expected") as refused:
        parse(document)

    assert str(refused.value).startswith(f"{field}: expected ")
    assert "\n" not in str(refused.value)


class Fibre:
    """A line whose outer halves are up or down, and which the mirror's decisions are applied to, one by one."""

    def __init__(self, inner_up=(True, True)):
        self.outer = [True, True]
        self.inner = list(inner_up)
        self.dark = None

    def lit(self, end):
        """Whether an inner end has carrier, which a veth has while both its halves are up."""
        return self.inner[end] and self.outer[end]

    def settle(self):
        """Ask until nothing changes, as the kernel's messages about our own changes have us do."""
        for _ in range(5):
            before = list(self.inner)
            ends = Ends((before[0], before[1]), (self.lit(0), self.lit(1)), self.dark)
            self.dark, wanted = decide(ends)
            self.inner = list(wanted)
            if self.inner == before:
                return
        raise AssertionError("the mirror swings")


@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), st.booleans(), st.booleans()), max_size=30),
    st.tuples(st.booleans(), st.booleans()),
)
def test_light_at_both_ends_or_at_none(changes, inner_up):
    """Whatever goes down and up, in any order, seen one by one or several at once: never stuck, never one-eyed."""
    fibre = Fibre(inner_up)
    fibre.settle()
    for end, up, look in changes:
        fibre.outer[end] = up
        if look:
            fibre.settle()
    fibre.settle()

    assert [fibre.lit(0), fibre.lit(1)] == [all(fibre.outer)] * 2
