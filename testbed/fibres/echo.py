"""The round trip of a fibre of which only one end is here: the other end sends back what the probe sends.

Two machines have two clocks, so what is measured is a round trip by one of them, and half of what it is too long counts
for either direction.
"""

from __future__ import annotations

import math
import select
import statistics
import time

from scenario.shape import Shape
from testbed.fibres import probe
from testbed.fibres.probe import SHORT_FRAME_BYTES, WAIT_BEYOND_S, send_train

# As far apart as the pings that measure the real path: where what joins machines is slow, no probe waits for another.
_PROBES, _GAP_S = 15, 0.02


def echo(port: str, seconds: float) -> None:
    """Send back by `port` each probe's frame that comes in by it, for so long."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    with probe.open_port(port) as raw:
        poll.register(raw, select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0:
            poll.poll(math.ceil(1000 * left_s))
            for frame, _ in probe.waiting(raw):
                if frame.startswith(probe.HEADER):
                    probe.send(raw, frame)


def one_way_by_echo(port: str, there: Shape, back: Shape) -> list[float | None]:
    """The delays there and back in ms, from `port` to one that echoes; None if nothing came back."""
    longest_s = (there.delay_ms + there.jitter_ms + back.delay_ms + back.jitter_ms) / 1000 + WAIT_BEYOND_S
    train = send_train(
        port, port, frames=_PROBES, frame_bytes=SHORT_FRAME_BYTES, gap_s=_GAP_S, longest_s=longest_s
    )  # fmt: skip
    if not train.delays_ms:
        return [None, None]
    own_ms = there.transmission_ms(SHORT_FRAME_BYTES) + back.transmission_ms(SHORT_FRAME_BYTES)
    # Both machines, and what joins them, may be busy: without jitter the probe that was held up least is the truest.
    typical = statistics.median if there.jitter_ms or back.jitter_ms else min
    beyond_ms = typical(train.delays_ms) - own_ms - there.delay_ms - back.delay_ms
    return [shape.delay_ms + beyond_ms / 2 for shape in (there, back)]
