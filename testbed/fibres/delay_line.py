"""`python -m testbed.fibres.delay_line CONFIG.json`: netem's stand-in, in user space, where the kernel has no netem.

It runs in a network namespace of its own, in which each link has an interface for either end; what comes in by one
goes out by the other, later. Frames pass unchanged, checksums still to be computed and segments still to be cut
included (PACKET_VNET_HDR): TCP's offloads work across it. VLAN tags do not pass: the kernel takes them off. The delay
counts from the kernel's time stamp of the arrival, so that waking up late costs nothing as long as it is shorter than
the delay; and the process has real-time priority, for otherwise the machine's scheduling would be the jitter that one
measures.

SIGHUP reads the configuration (`testbed.fibres.delay_config`) again; shapes may differ then, and hold for frames that
come later. What it thinks of it goes to the file `answer`, if one is named: {"error": null}, or one line that says what
is wrong, and then nothing has changed. SIGUSR1 writes frames, bytes and drops of each direction to the file `stats`, if
one is named, and so does the end, by SIGTERM or SIGINT. When one end of a link loses its carrier, the other end loses
it too, as on a fibre (`testbed.fibres.delay_line_carrier`).

Its configuration; delays are one way, and only `delay_ms` has no default:

{"lines": [{"name": "a-b", "a": "dl0a", "b": "dl0b",
            "a_to_b": {"delay_ms": 5, "jitter_ms": 0, "loss_percent": 0, "bandwidth_mbit": null},
            "b_to_a": {"delay_ms": 5}}],
 "seed": 1, "stats": "stats.json", "answer": "answer.json"}
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from documents.checks import Malformed, integer, mapping, sequence, text
from scenario.shape import Shape, parse_shape
from testbed.fibres.delay_line_carrier import Carrier, set_up
from testbed.fibres.delay_queue import DelayQueue, wire_bytes

# IFNAMSIZ, less the zero at the end.
_LONGEST_INTERFACE = 15


@dataclass(frozen=True, slots=True)
class Line:
    """A link: the interfaces at its two ends, and the shape of each direction."""

    name: str
    a: str
    b: str
    a_to_b: Shape
    b_to_a: Shape


@dataclass(frozen=True, slots=True)
class Config:
    """Lines, seed of losses and jitter, and where the statistics and the answer to a change go, if anywhere."""

    lines: tuple[Line, ...]
    seed: int
    stats: Path | None
    answer: Path | None


def load(path: Path) -> Config:
    """The configuration in `path`. OSError, or ValueError that names the member and what was expected."""
    try:
        document = json.loads(path.read_text())
    except RecursionError:
        raise Malformed("configuration", "an object, not so deeply nested") from None
    return parse(document)


def parse(document: Any) -> Config:
    """The configuration in a JSON document. Malformed names the member and what was expected. PURE."""
    given = _object(document, "configuration", ("lines", "seed", "stats", "answer"))
    lines = []
    taken: set[tuple[str, str]] = set()
    for i, entry in enumerate(sequence(given.get("lines"), "lines", longest=4096)):
        line = _line(entry, f"lines[{i}]")
        for member, value in (("name", line.name), ("a", line.a), ("b", line.b)):
            kind = "line" if member == "name" else "interface"
            if (kind, value) in taken:
                raise Malformed(f"lines[{i}].{member}", f"a name of its own, {value!r} is taken")
            taken.add((kind, value))
        lines.append(line)
    return Config(
        tuple(lines),
        integer(given.get("seed", 0), "seed", low=0, high=1 << 62),
        *(None if given.get(m) is None else Path(text(given[m], m, longest=4096)) for m in ("stats", "answer")),
    )


def _line(value: Any, field: str) -> Line:
    line = _object(value, field, ("name", "a", "b", "a_to_b", "b_to_a"))
    name = text(line.get("name"), f"{field}.name")
    a, b = (text(line.get(m), f"{field}.{m}", longest=_LONGEST_INTERFACE) for m in "ab")
    there, back = (parse_shape(line.get(m), f"{field}.{m}") for m in ("a_to_b", "b_to_a"))
    return Line(name, a, b, there, back)


def _object(value: Any, field: str, members: tuple[str, ...]) -> Mapping[str, Any]:
    given = mapping(value, field)
    for member in given:
        if member not in members:
            # A stranger may hold anything, and the message is to be one line.
            shown = member if member.isidentifier() else repr(member)
            raise Malformed(f"{field}.{shown}", f"only the members {', '.join(members)}")
    return given


_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 1, 6, 15, 23
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 0x0003
_SO_TIMESTAMPNS, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 35, 32, 33
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1

_MAX_FRAME_BYTES = (1 << 16) + 4096
# Bursts of TCP's large segments must fit; the usual limit of 200 KiB holds three of them.
_BUFFER_BYTES = 8 << 20
# Frames read from one end before the others have their turn.
_BATCH = 32
# A time stamp that is older than this means that somebody set the clock.
_OLDEST_NS = 100_000_000
_PRIORITY = 20

_TIMESPEC = struct.Struct("qq")
_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """A timerfd: readable at an absolute time of the monotonic clock, to the nanosecond (Python has it from 3.13)."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set_ns = 0

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns`, or at once if that is past."""
        if at_ns != self._set_ns:
            value = struct.pack("4q", 0, 0, *divmod(max(1, at_ns), 1_000_000_000))
            if _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, value, None) != 0:
                raise OSError(ctypes.get_errno(), "timerfd_settime")
            self._set_ns = at_ns

    def fired(self) -> None:
        """Take note that it fired."""
        self._set_ns = 0
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)


class _Direction:
    """One direction of a line: from the socket `incoming` to the socket `outgoing`."""

    def __init__(self, incoming: socket.socket, outgoing: socket.socket, shape: Shape, chance: Callable[[], float]):
        self.incoming = incoming
        self.queue: DelayQueue[bytes] = DelayQueue(shape, chance)
        self._outgoing = outgoing
        self._frames = self._bytes = self._dropped = 0

    def receive(self) -> None:
        """Take in frames that wait at the socket."""
        # A new bytes object for each, shrunk to fit, is faster than a buffer to copy out of (measured: 11 against 14 us
        # for 60 kB, the same for small ones).
        receive, put = self.incoming.recvmsg, self.queue.put
        for _ in range(_BATCH):
            try:
                frame, extra, _, _ = receive(_MAX_FRAME_BYTES, 64)
            except OSError:  # there are no more; or the interface is down, which `Carrier` sees to
                return
            # In this order: held up between the two, we take the frame for younger and send it late, never early.
            wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
            if extra:
                seconds, ns = _TIMESPEC.unpack(extra[0][2])
                now_ns -= min(max(0, wall_ns - seconds * 1_000_000_000 - ns), _OLDEST_NS)
            put(frame, wire_bytes(frame), now_ns)

    def send_due(self, now_ns: int) -> None:
        """Send what is to leave by now."""
        for frame in self.queue.due(now_ns):
            try:
                self._outgoing.send(frame)
            except OSError:  # the interface is down, or its queue is full: a fibre would lose the frame, too
                self._dropped += 1
            else:
                self._frames += 1
                self._bytes += wire_bytes(frame)

    def stats(self) -> dict[str, int]:
        """Frames and bytes sent, frames dropped: lost, found the queue full, or the interface down."""
        # Those that the socket had no room for; reading sets the kernel's count to zero.
        _, missed = struct.unpack("II", self.incoming.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._dropped += missed
        return {"frames": self._frames, "bytes": self._bytes, "dropped": self._dropped + self.queue.dropped}


def _open(interface: str, field: str) -> socket.socket:
    """A socket that sees every frame that comes in by `interface`, and none that goes out. Malformed: not there."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        raise Malformed(field, f"an interface of this network namespace, {interface!r} is none") from None
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        raw.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        raw.bind((interface, _ETH_P_ALL))
        membership = struct.pack("IHH8s", index, _PACKET_MR_PROMISC, 0, b"")
        raw.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        set_up(raw, interface, up=True)
    except BaseException:
        raw.close()
        raise
    return raw


class _DelayLine:
    """All lines of a configuration, and the loop that serves them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = load(path)
        lines = self._config.lines
        chance = random.Random(self._config.seed).random  # noqa: S311 - losses, no keys
        self._carrier = Carrier((line.name, line.a, line.b) for line in lines)
        self._directions: list[_Direction] = []
        for i, line in enumerate(lines):
            a, b = _open(line.a, f"lines[{i}].a"), _open(line.b, f"lines[{i}].b")
            self._directions += [_Direction(a, b, line.a_to_b, chance), _Direction(b, a, line.b_to_a, chance)]
        self._carrier.changed()
        self._timer = Timer()
        # When each direction that holds frames sends its next one.
        self._departures: list[tuple[int, int]] = []

    def serve(self, wanted: set[int], wake: int) -> None:
        """Forward until SIGTERM or SIGINT is among the signals `wanted`; `wake` is readable when that set grew."""
        fds = {direction.incoming.fileno(): i for i, direction in enumerate(self._directions)}
        watched = self._carrier.socket.fileno()
        with select.epoll() as poll:
            for fd in (*fds, self._timer.fd, watched, wake):
                poll.register(fd, select.EPOLLIN)
            while not wanted & {signal.SIGTERM, signal.SIGINT}:
                for fd, _ in poll.poll():
                    if fd in fds:
                        self._receive(fds[fd])
                    elif fd == self._timer.fd:
                        self._timer.fired()
                    elif fd == watched:
                        self._carrier.changed()
                    else:
                        os.read(wake, 1024)
                        self._obey(wanted)
                self._send()
        self._write_stats()

    def _receive(self, i: int) -> None:
        queue = self._directions[i].queue
        was_empty = not queue
        self._directions[i].receive()
        if was_empty and (at_ns := queue.next_ns()) is not None:
            heapq.heappush(self._departures, (at_ns, i))

    def _send(self) -> None:
        departures = self._departures
        now_ns = time.monotonic_ns()
        while departures and departures[0][0] <= now_ns:
            direction = self._directions[departures[0][1]]
            direction.send_due(now_ns)
            at_ns = direction.queue.next_ns()
            if at_ns is None:
                heapq.heappop(departures)
            else:
                heapq.heapreplace(departures, (at_ns, departures[0][1]))
        if departures:
            self._timer.set(departures[0][0])

    def _obey(self, wanted: set[int]) -> None:
        if signal.SIGHUP in wanted:
            wanted.discard(signal.SIGHUP)
            self._reread()
        if signal.SIGUSR1 in wanted:
            wanted.discard(signal.SIGUSR1)
            self._write_stats()

    def _reread(self) -> None:
        error = None
        try:
            self._reshape()
        except (OSError, ValueError) as problem:
            error = str(problem)
            _say(f"{self._path}: {error}; nothing changed")
        if self._config.answer is not None:
            _write(self._config.answer, {"error": error})

    def _reshape(self) -> None:
        config = load(self._path)
        if [(x.name, x.a, x.b) for x in config.lines] != [(x.name, x.a, x.b) for x in self._config.lines]:
            raise Malformed("lines", "the same names and interfaces as at the start")
        shapes = [shape for line in config.lines for shape in (line.a_to_b, line.b_to_a)]
        for direction, shape in zip(self._directions, shapes, strict=True):
            direction.queue.shape = shape

    def _write_stats(self) -> None:
        if self._config.stats is None:
            return
        counts = [direction.stats() for direction in self._directions]
        document = {
            line.name: {"a_to_b": there, "b_to_a": back}
            for line, there, back in zip(self._config.lines, counts[::2], counts[1::2], strict=True)
        }
        _write(self._config.stats, document)


def _write(path: Path, document: object) -> None:
    try:
        unfinished = path.with_name(path.name + ".new")  # so that nobody ever reads half a file
        unfinished.write_text(json.dumps(document) + "\n")
        unfinished.replace(path)
    except OSError as error:
        _say(f"{path.name} is not written: {error}")


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # there may be no room for it
        print(f"delay_line: {message}", file=sys.stderr, flush=True)


def main(path: Path) -> int:
    """Run the lines that `path` describes until SIGTERM or SIGINT; the exit status."""
    wanted: set[int] = set()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _: wanted.add(number))
    try:
        delay_line = _DelayLine(path)
    except (OSError, ValueError) as error:
        _say(f"{path}: {error}")
        return 2
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError as error:
        _say(f"no real-time priority ({error.strerror}): delays will jitter")
    # The collector's pauses would be delays; what the loop makes is freed by reference counts.
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    delay_line.serve(wanted, reader)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m testbed.fibres.delay_line CONFIG.json", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
