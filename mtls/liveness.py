"""Seconds after which a silent peer counts as dead, on every connection over TCP that this project opens or accepts;
for how long a connection is kept on which nothing is asked; and how far away a peer is that answers.

A machine that loses its power or its network says nothing: without what is asked of the kernel here, a connection that
only listens would stay for ever, and one that sends for some 15 minutes.
"""

from __future__ import annotations

import socket
import struct

# An event stream has a comment when it had nothing else for so long; who listens waits for a few of them.
BEAT_S = 2.0
SILENCE_S = 4 * BEAT_S
# A server keeps a connection on which nothing is asked for so long, and a client uses it again for so long: what is
# asked late is on its way for some time, and must not meet a server that is just closing.
KEPT_S = 75.0
USED_AGAIN_S = 60.0
# The kernel asks a peer that says nothing, and closes the connection when what was sent is not confirmed.
DEAD_S = 10
_IDLE_S, _AGAIN_S, _TIMES = 4, 2, 3

OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _AGAIN_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _TIMES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_S * 1000),
]

# Longer round trips no network may have (testbed/planning/round_trips.py), and a hostile kernel may make any look so.
# A kernel that waits before it confirms makes short ones look longer.
LONGEST_ROUND_TRIP_S = 2.5
_NOISE_S = 0.1
_TCP_INFO = struct.Struct("68xII72xI")  # tcpi_rtt, tcpi_rttvar, tcpi_min_rtt of Linux's struct tcp_info, microseconds


def notice_death(sock: socket.socket) -> None:
    """Have the kernel close that TCP connection within DEAD_S seconds of its peer's death."""
    for level, option, value in OPTIONS:
        sock.setsockopt(level, option, value)


def round_trip_s(sock: socket.socket) -> float:
    """How long packets go there and back on that TCP connection, as its kernel has measured; 0 if that is nothing much.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        return believed_s(*_TCP_INFO.unpack(info))
    except (OSError, struct.error):  # it was closed meanwhile; a kernel before 4.6
        return 0.0


def believed_s(smoothed_us: int, deviation_us: int, shortest_us: int) -> float:
    """The round trip behind a kernel's figures; 0 if that is nothing much. PURE.

    After a partition an answer may confirm a packet that was sent seconds before. To the kernel that is one very long
    round trip, and its smoothed figure tells of it for the next dozen packets. Its mean deviation does so twice as
    much; so what is left when that is taken off twice knows nothing of single packets, and follows what stays so. What
    is new is told by the shortest round trip, to which single packets are nothing either; the kernel remembers it for
    five minutes, so that it does not tell of what has become long.
    """
    if not smoothed_us:  # nothing was measured yet, and the shortest one is all ones
        return 0.0
    seconds = max(shortest_us, smoothed_us - 2 * deviation_us) / 1e6
    return 0.0 if seconds < _NOISE_S else min(seconds, LONGEST_ROUND_TRIP_S)
