"""Mirrors loss of carrier across the delay line: what one end of a fibre loses, the other end loses too.

Each end of a line is the inner half of a veth pair, and an end is "lit" while the outer half is up. When an end goes
dark the other is taken down, so that its outer half goes dark as well. Of the end that we hold down nobody can see
whether light came back; so never both: the end that went dark first stays up, and is the one that is watched.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCETHTOOL = 0x8913, 0x8914, 0x8946
_ETHTOOL_GLINK = 0x0A
_IFF_UP = 0x1
_RTMGRP_LINK = 1


@dataclass(frozen=True, slots=True)
class Ends:
    """The state of a line's two ends, and which of them (0, 1 or None) is the dark one that is watched."""

    up: tuple[bool, bool]
    lit: tuple[bool, bool]
    dark: int | None


def decide(ends: Ends) -> tuple[int | None, tuple[bool, bool]]:
    """Which end is the dark one now, and which ends are to be up. PURE.

    It is asked again after each change, its own included, until nothing changes.
    """
    dark = ends.dark
    if dark is not None and (ends.lit[dark] or not ends.up[dark]):
        dark = None
    if dark is None:
        dark = next((end for end in (0, 1) if ends.up[end] and not ends.lit[end]), None)
    return dark, (dark != 1, dark != 0)


class Carrier:
    """Watches the ends of lines, given as (line's name, interface a, interface b), from the moment it is made.

    `socket` is readable when something changed. What the kernel's messages say is not looked at, only that there are
    any: they may be stale or lost, the interfaces themselves are neither.
    """

    def __init__(self, lines: Iterable[tuple[str, str, str]]) -> None:
        self._lines = {name: (a, b) for name, a, b in lines}
        self._dark: dict[str, int | None] = dict.fromkeys(self._lines)
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.socket.bind((0, _RTMGRP_LINK))

    def close(self) -> None:
        """Watch no longer."""
        self.socket.close()
        self._control.close()

    def changed(self) -> None:
        """Look at all lines, and take ends up or down as they need."""
        self._drain()
        for name, ends in list(self._lines.items()):
            try:
                self._look(name, ends)
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENXIO):
                    raise
                # Its outer half was deleted, as at the end of a run: the line is dead, the others are not.
                gone = f"delay_line: line {name}: interface {' or '.join(ends)} is gone"
                with contextlib.suppress(OSError):  # there may be no room for it
                    print(gone, file=sys.stderr, flush=True)
                del self._lines[name]

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self.socket.recv(1 << 16)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # some were lost; we look at everything anyway
                        raise

    def _look(self, name: str, ends: tuple[str, str]) -> None:
        a, b = ends
        up = self._is_up(a), self._is_up(b)
        self._dark[name], wanted = decide(Ends(up, (self._is_lit(a), self._is_lit(b)), self._dark[name]))
        for end in (0, 1):
            if up[end] != wanted[end]:
                set_up(self._control, ends[end], up=wanted[end])  # the kernel tells us, and we look again

    def _is_up(self, interface: str) -> bool:
        return bool(_flags(self._control, interface) & _IFF_UP)

    def _is_lit(self, interface: str) -> bool:
        # Not IFF_RUNNING, which follows up to a second later: the kernel limits how often it updates that.
        answer = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_GLINK, 0), 8)
        fcntl.ioctl(self._control, _SIOCETHTOOL, struct.pack("16sP8x", interface.encode(), ctypes.addressof(answer)))
        carrier: int = struct.unpack("II", answer.raw)[1]
        return carrier == 1


def set_up(control: socket.socket, interface: str, *, up: bool) -> None:
    """Take an interface up or down, by way of any socket of its namespace."""
    flags = _flags(control, interface)
    wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
    if wanted != flags:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", interface.encode(), wanted))


def _flags(control: socket.socket, interface: str) -> int:
    request = struct.pack("16s24x", interface.encode())
    flags: int = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
    return flags
