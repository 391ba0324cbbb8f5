"""When a frame leaves the delay line."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.delay_queue import DelayQueue, Shape, parse_shape

MS = 1_000_000
shapes = st.builds(
    Shape,
    delay_ms=st.floats(0, 100),
    jitter_ms=st.floats(0, 50),
    loss_percent=st.floats(0, 100),
    bandwidth_mbit=st.none() | st.floats(0.1, 1000),
)
# Gaps between frames in ns, and their lengths in bytes.
arrivals = st.lists(st.tuples(st.integers(0, 5 * MS), st.integers(60, 1514)), max_size=60)


def never() -> float:
    """The chance at which nothing is lost and jitter is at its highest."""
    return 0.999999


@given(shapes, arrivals, st.integers())
def test_every_frame_leaves_once_in_order_or_is_counted_as_dropped(shape, arrivals, seed):
    """Whatever the shape."""
    queue = DelayQueue(shape, random.Random(seed).random)
    now, kept = 0, []
    for i, (gap, n_bytes) in enumerate(arrivals):
        now += gap
        if queue.put(i, n_bytes, now):
            kept.append(i)

    assert queue.due(1 << 62) == kept
    assert len(kept) + queue.dropped == len(arrivals)


@given(shapes, arrivals, st.integers())
def test_no_frame_is_early(shape, arrivals, seed):
    """Not before its arrival plus delay less jitter."""
    queue = DelayQueue(shape, random.Random(seed).random)
    now, earliest = 0, {}
    for i, (gap, n_bytes) in enumerate(arrivals):
        now += gap
        queue.put(i, n_bytes, now)
        earliest[i] = now + round((shape.delay_ms - shape.jitter_ms) * MS) - 1
    while (at := queue.next_ns()) is not None:
        assert all(at >= earliest[i] for i in queue.due(at))


def test_frame_leaves_exactly_after_the_delay():
    """Neither before nor after."""
    queue = DelayQueue(Shape(5), never)
    queue.put("x", 100, 1000)

    assert queue.next_ns() == 1000 + 5 * MS
    assert queue.due(1000 + 5 * MS - 1) == []
    assert queue.due(1000 + 5 * MS) == ["x"]
    assert queue.next_ns() is None


def test_bandwidth_spaces_frames_by_their_length():
    """1250 bytes at 10 Mbit/s take a millisecond each."""
    queue = DelayQueue(Shape(0, bandwidth_mbit=10), never)
    for i in range(3):
        queue.put(i, 1250, 0)

    assert [queue.due(ms * MS) for ms in (1, 2, 3)] == [[0], [1], [2]]


def test_full_queue_drops_only_where_a_bandwidth_fills_it():
    """A long fibre holds what is on it."""
    narrow, wide = DelayQueue(Shape(1000, bandwidth_mbit=1), never), DelayQueue(Shape(1000), never)
    for i in range(2000):
        narrow.put(i, 1500, i)
        wide.put(i, 1500, i)

    assert (narrow.dropped, wide.dropped) == (1000, 0)


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
    ("shape", "field"),
    [
        ({}, "delay_ms"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"delay_ms": True}, "delay_ms"),
        ({"delay_ms": 1, "loss_percent": 101}, "loss_percent"),
        ({"delay_ms": 1, "bandwidth_mbit": 0}, "bandwidth_mbit"),
        ({"delay_ms": 1, "colour": 1}, "colour"),
        ([], "line"),
    ],
)
def test_malformed_shape_is_refused_by_name(shape, field):
    """The line names the member."""
    with pytest.raises(ValueError, match=field):
        parse_shape(shape, "line")
