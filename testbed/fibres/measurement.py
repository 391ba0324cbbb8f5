"""What a direction of a fibre really does beside what is configured: delay, jitter, loss, bandwidth, with errors.

Three trains of frames cross it, one after another:

    delay, jitter   short frames, so far apart that none waits for another. The delay is their median, less the time
                    of their own bytes, with the interval of 95 % that its ranks give. Jitter is uniform over twice
                    its figure, so that the middle half of all delays takes up as much as the figure itself (from the
                    first quartile to the third). A busy machine's late ones are not among them.
    loss            short frames, many, no faster than the bandwidth; with the Wilson interval of 95 %
    bandwidth       long frames as fast as can be: bytes over time from the first one's arrival to the last one's.
                    Whatever else crosses meanwhile is counted in. Without a limit it is not measured: one would
                    measure this machine.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scenario.shape import Shape
from testbed.fibres.probe import LONG_FRAME_BYTES, SHORT_FRAME_BYTES, Train, latest_s, send_train

# Standard normal quantile of 97.5 %.
_Z = 1.959964
_DELAY_S, _FEWEST_DELAYS, _MOST_DELAYS = 3.0, 40, 1000
_LOSS_S, _FEWEST_LOSSES, _MOST_LOSSES = 3.0, 100, 10_000
_TRAIN_S, _FEWEST_IN_TRAIN, _MOST_IN_TRAIN = 1.0, 20, 800
# Between short frames that go as fast as they may: what a user-space shaper and switch take in without loss.
_GAP_S = 100e-6


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity as configured and as measured, in `unit`; `low` to `high` is its interval of 95 %, if it has one."""

    quantity: str
    unit: str
    configured: float
    measured: float | None
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float | None:
        """Measured less configured."""
        return None if self.measured is None else self.measured - self.configured

    @property
    def error_percent(self) -> float | None:
        """The error in percent of what is configured; None if that is nothing."""
        return None if self.error is None or not self.configured else 100 * self.error / self.configured


def measure_direction(sender: str, receiver: str, shape: Shape) -> list[Figure]:
    """Figures of the direction from port `sender` to port `receiver`, both in this namespace. Takes seconds."""

    def train(frames: int, frame_bytes: int, gap_s: float) -> Train:
        longest_s = latest_s(shape, frame_bytes if gap_s else frame_bytes * frames)
        return send_train(sender, receiver, frames=frames, frame_bytes=frame_bytes, gap_s=gap_s, longest_s=longest_s)

    found = delay_and_jitter(shape, train(*_delay_train(shape)))
    found.append(loss(shape, train(*_loss_train(shape))))
    if shape.bandwidth_mbit is not None and shape.loss_percent < 100:
        measured = train(*_bandwidth_train(shape)).mbit_per_s
        found.append(Figure("bandwidth", "Mbit/s", shape.bandwidth_mbit, measured))
    return found


def delay_and_jitter(shape: Shape, train: Train) -> list[Figure]:
    """Both from one train of frames that did not wait for each other. PURE."""
    own_ms = shape.transmission_ms(train.frame_bytes)
    delays = [delay - own_ms for delay in train.delays_ms]
    if len(delays) < 2:
        return [Figure("delay", "ms", shape.delay_ms, None), Figure("jitter", "ms", shape.jitter_ms, None)]
    first, median, third = statistics.quantiles(delays, n=4, method="inclusive")
    low, high = _around_median(sorted(delays))
    return [
        Figure("delay", "ms", shape.delay_ms, median, low, high),
        Figure("jitter", "ms", shape.jitter_ms, third - first),
    ]


def _around_median(ordered: list[float]) -> tuple[float, float]:
    """Values that enclose the median they were drawn around in 95 of 100 cases (normal approximation of the ranks)."""
    n, spread = len(ordered), _Z * math.sqrt(len(ordered)) / 2
    return ordered[max(0, math.floor(n / 2 - spread))], ordered[min(n - 1, math.ceil(n / 2 + spread))]


def loss(shape: Shape, train: Train) -> Figure:
    """The share of frames that did not arrive. PURE."""
    low, high = interval(train.lost, len(train.arrived_ns))
    return Figure("loss", "%", shape.loss_percent, 100 * train.lost / len(train.arrived_ns), 100 * low, 100 * high)


def interval(found: int, tried: int) -> tuple[float, float]:
    """The Wilson score interval of 95 % for a probability, of which `found` of `tried` is the estimate. PURE."""
    share, z2 = found / tried, _Z**2
    middle = share + z2 / (2 * tried)
    half = _Z * math.sqrt(share * (1 - share) / tried + z2 / (4 * tried**2))
    # Rounding must not cut off the ends 0 and 1, which no share is beyond.
    low = 0.0 if found == 0 else (middle - half) / (1 + z2 / tried)
    return low, 1.0 if found == tried else (middle + half) / (1 + z2 / tried)


def _delay_train(shape: Shape) -> tuple[int, int, float]:
    gap_s = max(0.001, 0.0021 * shape.jitter_ms, 0.002 * shape.transmission_ms(SHORT_FRAME_BYTES))
    return _between(_DELAY_S / gap_s, _FEWEST_DELAYS, _MOST_DELAYS), SHORT_FRAME_BYTES, gap_s


def _loss_train(shape: Shape) -> tuple[int, int, float]:
    gap_s = max(_GAP_S, 0.0012 * shape.transmission_ms(SHORT_FRAME_BYTES))
    return _between(_LOSS_S / gap_s, _FEWEST_LOSSES, _MOST_LOSSES), SHORT_FRAME_BYTES, gap_s


def _bandwidth_train(shape: Shape) -> tuple[int, int, float]:
    frame_ms = shape.transmission_ms(LONG_FRAME_BYTES)
    return _between(_TRAIN_S * 1000 / frame_ms, _FEWEST_IN_TRAIN, _MOST_IN_TRAIN), LONG_FRAME_BYTES, 0.0


def _between(value: float, low: int, high: int) -> int:
    return min(max(low, math.floor(value)), high)
