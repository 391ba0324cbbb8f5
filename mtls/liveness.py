"""Seconds after which a silent peer counts as dead, on every connection over TCP that this project opens or accepts.

A machine that loses its power or its network says nothing: without what is asked of the kernel here, a connection that
only listens would stay for ever, and one that sends for some 15 minutes.
"""

from __future__ import annotations

import socket

# An event stream has a comment when it had nothing else for so long; who listens waits for a few of them.
BEAT_S = 2.0
SILENCE_S = 4 * BEAT_S
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


def notice_death(sock: socket.socket) -> None:
    """Have the kernel close that TCP connection within DEAD_S seconds of its peer's death."""
    for level, option, value in OPTIONS:
        sock.setsockopt(level, option, value)
