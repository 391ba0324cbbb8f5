"""Frames sent over a link and awaited at its other end, on the link itself: what a direction really does to them.

A frame of an Ethernet type that no switch forwards goes out by one end's interface and arrives at the other's: through
the shaper, past the switches, by one clock. It is stamped by the kernel when it arrives, so that a busy machine's
waking us up late is no delay. What a `ping` between two hosts shows is this, there and back, plus the work of the
switches and of the hosts.
"""

from __future__ import annotations

import array
import errno
import fcntl
import math
import os
import select
import socket
import statistics
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from scenario.shape import Shape

# IEEE 802.1 Local Experimental Ethertype 1
_ETHERTYPE = 0x88B5
_ALL_TYPES = 0x0003  # ETH_P_ALL of linux/if_ether.h
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_SO_TIMESTAMPNS, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 35, 32, 33
_SOURCE = b"\x02\x00\x00\xff\xff\x01"
_TARGET = b"\x02\x00\x00\xff\xff\x02"
HEADER = _TARGET + _SOURCE + struct.pack(">H", _ETHERTYPE)
_NUMBER = struct.Struct(">I")
_TIMESPEC = struct.Struct("qq")
_BUFFER_BYTES = 16 << 20
_MAX_FRAME_BYTES = (1 << 16) + 4096
# linux/sockios.h, linux/ethtool.h: whether a port is up and has a carrier. The first member is the name.
_SIOCETHTOOL, _ETHTOOL_GLINK = 0x8946, 0x0000000A
_INTERFACE = struct.Struct("16sP16x")
# Frames sent before we look what came, when they are to go as fast as they can.
_BURST = 16

SHORT_FRAME_BYTES = 64
LONG_FRAME_BYTES = 1514
_PROBES = 15
_MOST_PROBES = 2000
_PROBE_GAP_S = 0.001
_PROBING_S = 2.0
# A lossy direction gets as many probes as make it this unlikely that all are lost.
_ALL_LOST = 1e-9
WAIT_BEYOND_S = 0.5


@dataclass(frozen=True, slots=True)
class Train:
    """Frames of `frame_bytes` that crossed a direction: when each was sent and arrived (None: it did not), in ns.

    `bytes_behind_first` is all that came in by the far end after our first frame and until our last one: whatever else
    crossed meanwhile took its part of the bandwidth, too.
    """

    frame_bytes: int
    sent_ns: Sequence[int]
    arrived_ns: Sequence[int | None]
    bytes_behind_first: int

    @property
    def delays_ms(self) -> list[float]:
        """Of those that arrived."""
        pairs = zip(self.sent_ns, self.arrived_ns, strict=True)
        return [(arrived - sent) / 1e6 for sent, arrived in pairs if arrived is not None]

    @property
    def lost(self) -> int:
        """How many did not arrive."""
        return sum(arrived is None for arrived in self.arrived_ns)

    @property
    def mbit_per_s(self) -> float | None:
        """What came in from the first to the last frame's arrival; None if that is no time at all."""
        found = [arrived for arrived in self.arrived_ns if arrived is not None]
        if len(found) < 2 or found[-1] <= found[0]:
            return None
        return self.bytes_behind_first * 8000 / (found[-1] - found[0])


def send_train(
    sender: str, receiver: str, *, frames: int, frame_bytes: int, gap_s: float, longest_s: float
) -> Train:
    """Send frames from port `sender` to port `receiver` of this namespace, one every `gap_s`.

    Return when all have arrived, or `longest_s` after the last was sent: that is how late one may be.
    """
    mark = os.urandom(8)
    sent: list[int] = []
    arrived: list[int | None] = [None] * frames
    bytes_in, bytes_at_first, bytes_at_last = 0, 0, 0
    left = frames
    poll = select.poll()  # select() knows no descriptors beyond 1023
    with open_port(sender) as out, open_port(receiver) as back:
        poll.register(back, select.POLLIN)
        due = time.monotonic()
        deadline = due + longest_s
        finished = False
        while not finished:
            for _ in range(_BURST):
                if len(sent) == frames or (now := time.monotonic()) < due:
                    break
                sent.append(time.time_ns())
                send(out, (HEADER + mark + _NUMBER.pack(len(sent) - 1)).ljust(frame_bytes, b"\0"))
                due, deadline = max(due, now - gap_s) + gap_s, now + longest_s
            until = due if len(sent) < frames else deadline
            left_ms = 1000 * (until - time.monotonic())
            if left_ms >= 1:
                poll.poll(int(left_ms))
            else:  # poll() knows no fractions; what arrives meanwhile bears the kernel's time
                time.sleep(max(0.0, left_ms / 1000))
            # Looked at before what waits: if we are late ourselves, the frames are not.
            finished = len(sent) == frames and time.monotonic() > deadline
            for frame, arrival_ns in waiting(back):
                bytes_in += len(frame)
                if frame[:22] == HEADER + mark:
                    number = _NUMBER.unpack_from(frame, 22)[0]
                    if left == frames:
                        bytes_at_first = bytes_in
                    bytes_at_last = bytes_in
                    left -= arrived[number] is None
                    arrived[number] = arrival_ns
            finished = finished or not left
    return Train(frame_bytes, sent, arrived, bytes_at_last - bytes_at_first)


def one_way_ms(sender: str, receiver: str, shape: Shape) -> float | None:
    """Median delay from port `sender` to port `receiver` in ms; None if nothing arrived.

    The time that a frame's own bytes take at the shape's bandwidth is not part of it.
    """
    transmission_ms = shape.transmission_ms(SHORT_FRAME_BYTES)
    gap_s = max(_PROBE_GAP_S, transmission_ms / 1000)
    train = send_train(
        sender, receiver, frames=_probes(shape.loss_percent / 100, gap_s), frame_bytes=SHORT_FRAME_BYTES, gap_s=gap_s,
        longest_s=latest_s(shape, SHORT_FRAME_BYTES),
    )  # fmt: skip
    return statistics.median(train.delays_ms) - transmission_ms if train.delays_ms else None


def latest_s(shape: Shape, waiting_bytes: int) -> float:
    """When the last of `waiting_bytes`, all sent at once, must have arrived even on a busy machine."""
    return (shape.delay_ms + shape.jitter_ms + shape.transmission_ms(waiting_bytes)) / 1000 + WAIT_BEYOND_S


def _probes(loss: float, gap_s: float) -> int:
    wanted = _PROBES if loss in (0, 1) else max(_PROBES, math.ceil(math.log(_ALL_LOST) / math.log(loss)))
    return max(3, min(wanted, _MOST_PROBES, int(_PROBING_S / gap_s)))


def is_off(shape: Shape, measured_ms: float | None) -> bool:
    """Whether a measured one-way delay contradicts the shape. PURE.

    Frames are never early; a busy machine makes them late, a wrong unit or a missing shaper is off by more.
    """
    if measured_ms is None:
        return shape.loss_percent < 100
    early = shape.delay_ms * 0.9 - shape.jitter_ms - 0.05
    late = shape.delay_ms * 1.25 + shape.jitter_ms + 10.0
    return not early <= measured_ms <= late


def wait_for_carrier(ports: Sequence[str], timeout_s: float = 10.0) -> list[str]:
    """Those of `ports` that have no carrier when all have one, or when time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        down = without_carrier(ports)
        if not down or time.monotonic() > deadline:
            return down
        time.sleep(0.02)


def without_carrier(ports: Sequence[str]) -> list[str]:
    """Those of `ports` that are down or see no light, or are not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        return [port for port in ports if not _sees_light(asks, port)]


def _sees_light(asks: socket.socket, port: str) -> bool:
    answer = array.array("I", [_ETHTOOL_GLINK, 0])
    try:
        fcntl.ioctl(asks, _SIOCETHTOOL, _INTERFACE.pack(port.encode(), answer.buffer_info()[0]))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return False
    return bool(answer[1])


def open_port(port: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        # All types: the kernel's Open vSwitch takes a frame off its port before sockets for a single type see it.
        raw.bind((port, _ALL_TYPES))
    except BaseException:
        raw.close()
        raise
    return raw


def send(out: socket.socket, frame: bytes) -> None:
    try:
        out.send(frame)
    except OSError:  # the port is down or the shaper's queue full: the frame is lost, as one on a fibre would be
        return


def waiting(raw: socket.socket) -> list[tuple[bytes, int]]:
    """What waits at a socket, with its time of arrival."""
    found: list[tuple[bytes, int]] = []
    while True:
        try:
            frame, extra, _, _ = raw.recvmsg(_MAX_FRAME_BYTES, 64)
        except OSError:  # there are no more, or the port went down
            return found
        seconds, ns = _TIMESPEC.unpack(extra[0][2]) if extra else divmod(time.time_ns(), 1_000_000_000)
        found.append((frame, seconds * 1_000_000_000 + ns))
