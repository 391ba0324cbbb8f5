"""`python -m testbed.delay_line CONFIG.json`: netem's stand-in, in user space, where the kernel has no netem.

It runs in a network namespace of its own, in which each link has an interface for either end; what comes in by one
goes out by the other, later. Frames pass unchanged, checksums still to be computed and segments still to be cut
included (PACKET_VNET_HDR): TCP's offloads work across it. It runs with real-time priority, for otherwise the machine's
scheduling would be the jitter that one measures.

SIGHUP reads the configuration again; shapes may differ then. When one end of a link loses its carrier, the other
end loses it too, as on a fibre.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etsi.checks import integer, mapping, sequence, text
from testbed.delay_queue import DelayQueue, Shape, parse_shape

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 1, 15, 23
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 0x0003
_VNET_HEADER_BYTES = 10
_MAX_FRAME_BYTES = (1 << 16) + 4096
_BUFFER_BYTES = 8 << 20
_PRIORITY = 20

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_RTMGRP_LINK = 1
_NETLINK_ROUTE = 0
_RTM_NEWLINK = 16
_IFLA_IFNAME, _IFLA_CARRIER = 3, 33

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Line:
    """A link: the interfaces at its two ends, and the shape of each direction."""

    name: str
    a: str
    b: str
    a_to_b: Shape
    b_to_a: Shape


def load(path: Path) -> tuple[list[Line], int]:
    """Lines and seed of the configuration in `path`. ValueError names the member and what was expected."""
    given = mapping(json.loads(path.read_text()), "configuration")
    lines = []
    for i, entry in enumerate(sequence(given.get("lines"), "lines", longest=4096)):
        line = mapping(entry, f"lines[{i}]")
        names = [text(line.get(m), f"lines[{i}].{m}") for m in ("name", "a", "b")]
        shapes = [parse_shape(line.get(m), f"lines[{i}].{m}") for m in ("a_to_b", "b_to_a")]
        lines.append(Line(names[0], names[1], names[2], *shapes))
    return lines, integer(given.get("seed", 0), "seed", low=0, high=1 << 62)


class Timer:
    """A timerfd: readable at an absolute time of the monotonic clock, to the nanosecond (Python has it from 3.13)."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(1, 0o4000 | 0o2000000)  # CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set_ns = 0

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns`."""
        if at_ns != self._set_ns:
            self._set_ns = at_ns
            value = struct.pack("4q", 0, 0, *divmod(max(1, at_ns), 1_000_000_000))
            _libc.timerfd_settime(self.fd, 1, value, None)  # TFD_TIMER_ABSTIME

    def fired(self) -> None:
        """Take note that it fired."""
        self._set_ns = 0
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)


class Direction:
    """One direction of a line: from the socket `incoming` to the socket `outgoing`."""

    def __init__(self, incoming: socket.socket, outgoing: socket.socket, shape: Shape, chance: Callable[[], float]):
        self.incoming = incoming
        self.queue: DelayQueue[bytes] = DelayQueue(shape, chance)
        self.forwarded = 0
        self._outgoing = outgoing

    def receive(self) -> None:
        """Take in all frames that wait at the socket."""
        while True:
            try:
                frame = self.incoming.recv(_MAX_FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the interface is down
                return
            self.queue.put(frame, len(frame) - _VNET_HEADER_BYTES, time.monotonic_ns())

    def send_due(self, now_ns: int) -> None:
        """Send what is to leave by now."""
        for frame in self.queue.due(now_ns):
            try:
                self._outgoing.send(frame)
                self.forwarded += 1
            except OSError:  # the interface is down, or its queue is full: a fibre would lose the frame, too
                self.queue.dropped += 1


class Carrier:
    """Watches the interfaces by netlink, and takes one end of a line down while the other has lost its carrier.

    An interface is "lit" when its peer outside is up. A veth whose own side is down shows no carrier either; so what
    counts is the pair: this side is up, and there is no carrier.
    """

    def __init__(self, lines: list[Line]) -> None:
        self._peer = {line.a: line.b for line in lines} | {line.b: line.a for line in lines}
        self._dark: set[str] = set()
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        self.socket.bind((0, _RTMGRP_LINK))
        self.socket.setblocking(False)

    def changed(self) -> None:
        """Take in what the kernel says, and mirror it."""
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # messages were lost; the next one brings us up to date
                    continue
                raise
            for name, up, carrier in _links(data):
                if name in self._peer:
                    self._take(name, up=up, carrier=carrier)

    def _take(self, name: str, *, up: bool, carrier: bool) -> None:
        peer = self._peer[name]
        # Never both ends: of an interface that we took down ourselves nobody could see its light come back.
        if up and not carrier and not {name, peer} & self._dark:
            self._dark.add(name)
            set_up(peer, up=False)
        elif carrier and name in self._dark:
            self._dark.discard(name)
            set_up(peer, up=True)
        elif not up and peer not in self._dark:
            set_up(name, up=True)  # its peer is lit again, or somebody else took it down


def _links(data: bytes) -> list[tuple[str, bool, bool]]:
    """(name, is up, has carrier) of the links in netlink messages."""
    found = []
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16:
            break
        if kind == _RTM_NEWLINK:
            (flags,) = struct.unpack_from("=I", data, at + 16 + 8)
            attributes = _attributes(data[at + 16 + 16 : at + length])
            name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
            found.append((name, bool(flags & _IFF_UP), attributes.get(_IFLA_CARRIER, b"\0")[0] == 1))
        at += (length + 3) & ~3
    return found


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def set_up(interface: str, *, up: bool) -> None:
    """Take an interface up or down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sh14x", interface.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(s, _SIOCGIFFLAGS, request), 16)
        wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
        if wanted != flags:
            fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), wanted))


def _open(interface: str) -> socket.socket:
    """A socket that sees every frame that comes in by `interface`, and none that goes out."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        raw.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            raw.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        raw.bind((interface, _ETH_P_ALL))
        membership = struct.pack("IHH8s", socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0, b"")
        raw.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        raw.setblocking(False)
        set_up(interface, up=True)
    except BaseException:
        raw.close()
        raise
    return raw


class DelayLine:
    """All lines of a configuration, and the loop that serves them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines, seed = load(path)
        chance = random.Random(seed).random  # noqa: S311 - losses, no keys
        self._directions: dict[str, tuple[Direction, Direction]] = {}
        self._carrier = Carrier(self._lines)
        for line in self._lines:
            try:
                a, b = _open(line.a), _open(line.b)
            except OSError as error:
                raise ValueError(f"line {line.name}: interfaces {line.a} and {line.b}: {error.strerror}") from None
            there = Direction(a, b, line.a_to_b, chance)
            self._directions[line.name] = there, Direction(b, a, line.b_to_a, chance)
        self._timer = Timer()

    def serve(self, wanted: set[str], wake: int) -> None:
        """Forward until `wanted` holds "stop"; `wake` is readable when it changed."""
        poll = select.epoll()
        everything = [d for pair in self._directions.values() for d in pair]
        by_fd = {d.incoming.fileno(): d for d in everything}
        for fd in (*by_fd, self._timer.fd, self._carrier.socket.fileno(), wake):
            poll.register(fd, select.EPOLLIN)
        while "stop" not in wanted:
            for fd, _ in poll.poll():
                if fd in by_fd:
                    by_fd[fd].receive()
                elif fd == self._timer.fd:
                    self._timer.fired()
                elif fd == wake:
                    os.read(wake, 1024)
                    self._obey(wanted)
                else:
                    self._carrier.changed()
            now_ns = time.monotonic_ns()
            for direction in everything:
                direction.send_due(now_ns)
            due = [at for d in everything if (at := d.queue.next_ns()) is not None]
            if due:
                self._timer.set(min(due))

    def _obey(self, wanted: set[str]) -> None:
        if "reread" in wanted:
            wanted.discard("reread")
            try:
                lines, _ = load(self._path)
                if [(x.name, x.a, x.b) for x in lines] != [(x.name, x.a, x.b) for x in self._lines]:
                    raise ValueError("lines: expected the same ones as before")
            except (OSError, ValueError) as error:
                print(f"delay_line: {self._path}: {error}; nothing changed", file=sys.stderr, flush=True)
                return
            for line in lines:
                there, back = self._directions[line.name]
                there.queue.shape, back.queue.shape = line.a_to_b, line.b_to_a


def main(path: Path) -> int:
    """Run the lines that `path` describes until SIGTERM or SIGINT; the exit status."""
    try:
        delay_line = DelayLine(path)
    except (OSError, ValueError) as error:
        print(f"delay_line: {path}: {error}", file=sys.stderr)
        return 2
    wanted: set[str] = set()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def on_signal(number: int, _: Any) -> None:
        wanted.add("reread" if number == signal.SIGHUP else "stop")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError as error:
        print(f"delay_line: no real-time priority ({error.strerror}): delays will jitter", file=sys.stderr, flush=True)
    # The collector's pauses would be delays; what the loop makes is freed by reference counts.
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    delay_line.serve(wanted, reader)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m testbed.delay_line CONFIG.json", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
