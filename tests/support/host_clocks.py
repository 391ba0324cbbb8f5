"""`python host_clocks.py ADDRESS PORT`: give a machine in user-mode Linux the clocks of whoever answers there.

Its kernel has no time namespaces, and a clock that counts from its start cannot be set. But the kernel lets a clock go
up to a tenth faster or slower: that is done until it says what it is to say. The clock of the wall is then set. See
`serve`.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading
import time

_ADJ_TICK, _TICK_US, _MOST_US = 0x4000, 10_000, 1000
_ANSWER = struct.Struct("!dd")
_NEAR_S, _ASKED, _PAUSE_S = 0.001, 5, 0.2
_FIELDS = ("offset", "freq", "maxerror", "esterror", "status", "constant", "precision", "tolerance", "s", "us", "tick")


class _Timex(ctypes.Structure):
    _fields_ = [("modes", ctypes.c_uint), *((name, ctypes.c_long) for name in _FIELDS), ("rest", ctypes.c_long * 16)]


def serve(asked: socket.socket, since: float) -> None:
    """Answer, from a thread, with the time since `since` (monotonic) and that of the wall."""

    def answer() -> None:
        while True:
            try:
                _, caller = asked.recvfrom(64)
            except OSError:  # it was closed
                return
            asked.sendto(_ANSWER.pack(time.monotonic() - since, time.time()), caller)

    threading.Thread(target=answer, daemon=True).start()


def _ahead(server: socket.socket) -> tuple[float, float]:
    """How far its two clocks are ahead of ours, by the answer that was the fastest of some."""
    found = []
    while len(found) < _ASKED:
        before, wall = time.monotonic(), time.time()
        try:
            server.send(b"?")
            monotonic, theirs = _ANSWER.unpack(server.recv(64))
        except OSError:
            continue
        half = (time.monotonic() - before) / 2
        found.append((half, monotonic - before - half, theirs - wall - half))
    return min(found)[1:]


def _go(faster: float) -> None:
    """Let our clock go faster by that share of a second a second."""
    tick = _TICK_US + max(-_MOST_US, min(_MOST_US, round(faster * _TICK_US)))
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(_Timex(modes=_ADJ_TICK, tick=tick))) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")


def main(address: str, port: int) -> None:
    """Return when our clocks are its."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(1)
        server.connect((address, port))
        while abs(ahead_s := _ahead(server)[0]) > _NEAR_S:
            _go(ahead_s / (2 * _PAUSE_S))
            time.sleep(_PAUSE_S)
        _go(0)
        time.clock_settime(time.CLOCK_REALTIME, time.time() + _ahead(server)[1])
        print("clocks apart:", *_ahead(server), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
