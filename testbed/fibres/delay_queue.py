"""When a frame leaves: delay, jitter, loss and bandwidth of one direction of a link. PURE: time and chance come in.

Times are integers in nanoseconds. The arithmetic is netem's with a rate (net/sched/sch_netem.c), so that both shapers
mean the same by `scenario.shape`: a frame leaves its bytes' time after its delay is over or, if that is later, after
the frame before it has left. What TCP hands over as one large segment is one frame here, as it is for netem: lost as a
whole, and on the line for as long as all its bytes take.

`wire_bytes` says how many bytes a frame has on the wire that the kernel hands over as one large segment, still to be
cut. Before each frame stands the kernel's virtio_net_hdr (linux/virtio_net.h): flags, kind of segmentation, length of
the headers (a hint, and too long at times), bytes of payload a segment, where the checksum starts and where it goes.
Each segment will have headers of its own, and the shaper's line is as long busy with them as with the payload: netem
counts them, too (net/core/dev.c, qdisc_pkt_len_init).
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Callable
from typing import Generic, TypeVar

from scenario.shape import Shape

VNET_HEADER_BYTES = 10
_VNET_HEADER = struct.Struct("<BBHHHH")
_UDP = 5
_ECN = 0x80
_UDP_HEADER_BYTES = 8
# In a TCP header, where its length stands: the upper half of this byte, in words of four bytes.
_TCP_LENGTH_AT = 12


def wire_bytes(frame: bytes) -> int:
    """Bytes of all frames that this one, with its virtio_net_hdr, is going to be; Ethernet headers are counted."""
    n_bytes = len(frame) - VNET_HEADER_BYTES
    if not frame[1]:
        return n_bytes
    _, kind, _, payload_bytes, transport_at, _ = _VNET_HEADER.unpack_from(frame)
    length_at = VNET_HEADER_BYTES + transport_at + _TCP_LENGTH_AT
    if not payload_bytes or length_at >= len(frame):
        return n_bytes
    own = _UDP_HEADER_BYTES if kind & ~_ECN == _UDP else (frame[length_at] >> 4) * 4
    headers_bytes: int = transport_at + own
    further: int = max(0, (n_bytes - headers_bytes - 1) // payload_bytes)
    return n_bytes + further * headers_bytes


T = TypeVar("T")

_NS_PER_MS = 1_000_000
# What may wait for a busy line: 1000 full frames (netem's default), but in bytes, for one frame may hold 64 KiB.
_QUEUE_BYTES = 1000 * 1514
# What a direction may hold in all, so that a flood on a long fibre without a bandwidth cannot take the machine's
# memory: 100 ms of 20 Gbit/s. The second is about what Python needs for a frame besides its bytes.
_HELD_BYTES = 256 << 20
_FRAME_COST_BYTES = 256


class DelayQueue(Generic[T]):
    """Frames on their way in one direction, in the order in which they will leave.

    `chance` gives numbers uniform in [0, 1). `shape` may be replaced at any time: it holds for frames that come later.
    `dropped` counts what `put` refused.
    """

    def __init__(self, shape: Shape, chance: Callable[[], float]) -> None:
        self.shape = shape
        self.dropped = 0
        self._chance = chance
        self._frames: collections.deque[tuple[int, int, T]] = collections.deque()
        self._held_bytes = 0
        self._line_free_ns = 0

    def put(self, frame: T, n_bytes: int, now_ns: int) -> bool:
        """Take in a frame that arrived at `now_ns`; False if it is lost or finds the queue full."""
        shape = self.shape
        cost_bytes = n_bytes + _FRAME_COST_BYTES
        if (shape.loss_percent and self._chance() * 100 < shape.loss_percent) or (
            self._held_bytes + cost_bytes > _HELD_BYTES
        ):
            self.dropped += 1
            return False
        takes_ns = 0
        if shape.bandwidth_mbit is not None:
            starts_ns = max(now_ns, self._line_free_ns)
            ns_per_byte = 8000 / shape.bandwidth_mbit  # a bit at 1 Mbit/s is a microsecond
            if (starts_ns - now_ns) / ns_per_byte + n_bytes > _QUEUE_BYTES:
                self.dropped += 1
                return False
            takes_ns = round(n_bytes * ns_per_byte)
            self._line_free_ns = starts_ns + takes_ns
        delay_ms = shape.delay_ms
        if shape.jitter_ms:
            delay_ms = max(0.0, delay_ms + shape.jitter_ms * (2 * self._chance() - 1))
        leaves_ns = now_ns + round(delay_ms * _NS_PER_MS)
        if self._frames and leaves_ns < self._frames[-1][0]:
            leaves_ns = self._frames[-1][0]
        self._frames.append((leaves_ns + takes_ns, cost_bytes, frame))
        self._held_bytes += cost_bytes
        return True

    def due(self, now_ns: int) -> list[T]:
        """All frames that are to leave by now, taken out."""
        found = []
        frames = self._frames
        while frames and frames[0][0] <= now_ns:
            _, cost_bytes, frame = frames.popleft()
            self._held_bytes -= cost_bytes
            found.append(frame)
        return found

    def next_ns(self) -> int | None:
        """When the next frame leaves."""
        return self._frames[0][0] if self._frames else None

    def __len__(self) -> int:
        return len(self._frames)
