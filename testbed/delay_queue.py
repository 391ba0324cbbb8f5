"""When a frame leaves: delay, jitter, loss and bandwidth of one direction of a link. PURE: time and chance come in.

Times are integers in nanoseconds. Order is kept: a frame that jitter would let overtake waits for the one before it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from etsi.checks import mapping, number
from etsi.errors import Malformed

T = TypeVar("T")

_NS_PER_MS = 1_000_000
# What a full queue holds before it drops, as long as a bandwidth limits it: netem's own default.
_QUEUE_FRAMES = 1000
_MEMBERS = ("delay_ms", "jitter_ms", "loss_percent", "bandwidth_mbit")


@dataclass(frozen=True, slots=True)
class Shape:
    """`delay_ms` one way, uniform within +- `jitter_ms`; share of frames lost; Mbit/s, or None for no limit."""

    delay_ms: float
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    bandwidth_mbit: float | None = None


def parse_shape(value: Any, field: str) -> Shape:
    """The shape in a configuration. Malformed names the member and what was expected."""
    given = mapping(value, field)
    for member in given:
        if member not in _MEMBERS:
            raise Malformed(f"{field}.{member}", f"one of {', '.join(_MEMBERS)}")
    bandwidth = given.get("bandwidth_mbit")
    return Shape(
        number(given.get("delay_ms"), f"{field}.delay_ms", low=0, high=60_000),
        number(given.get("jitter_ms", 0), f"{field}.jitter_ms", low=0, high=60_000),
        number(given.get("loss_percent", 0), f"{field}.loss_percent", low=0, high=100),
        None if bandwidth is None else number(bandwidth, f"{field}.bandwidth_mbit", low=0.001, high=1e6),
    )


class DelayQueue(Generic[T]):
    """Frames on their way in one direction, in the order in which they will leave.

    `chance` gives numbers uniform in [0, 1). `shape` may be replaced at any time: it holds for frames that come later.
    """

    def __init__(self, shape: Shape, chance: Callable[[], float]) -> None:
        self.shape = shape
        self.dropped = 0
        self._chance = chance
        self._frames: collections.deque[tuple[int, T]] = collections.deque()
        self._line_free_ns = 0

    def put(self, frame: T, n_bytes: int, now_ns: int) -> bool:
        """Take a frame in; False if it is lost or finds the queue full."""
        shape = self.shape
        if shape.loss_percent and self._chance() * 100 < shape.loss_percent:
            self.dropped += 1
            return False
        leaves_ns = now_ns
        if shape.bandwidth_mbit is not None:
            if len(self._frames) >= _QUEUE_FRAMES:
                self.dropped += 1
                return False
            # Bits over Mbit/s are microseconds.
            self._line_free_ns = max(now_ns, self._line_free_ns) + round(n_bytes * 8 * 1000 / shape.bandwidth_mbit)
            leaves_ns = self._line_free_ns
        delay_ms = shape.delay_ms
        if shape.jitter_ms:
            delay_ms = max(0.0, delay_ms + shape.jitter_ms * (2 * self._chance() - 1))
        leaves_ns += round(delay_ms * _NS_PER_MS)
        if self._frames and leaves_ns < self._frames[-1][0]:
            leaves_ns = self._frames[-1][0]
        self._frames.append((leaves_ns, frame))
        return True

    def due(self, now_ns: int) -> list[T]:
        """All frames that are to leave by now, taken out."""
        found = []
        while self._frames and self._frames[0][0] <= now_ns:
            found.append(self._frames.popleft()[1])
        return found

    def next_ns(self) -> int | None:
        """When the next frame leaves."""
        return self._frames[0][0] if self._frames else None

    def __len__(self) -> int:
        return len(self._frames)
