"""Where the page is: a port of this machine's loopback."""

from __future__ import annotations

import socket

from testbed.errors import UserError
from testbed.network.expose import ANY_PORT, LOOPBACK

# Where people look first: GS QKD 014 is what a KME speaks. A second run at the same time takes whatever is free.
USUAL_PORT = 8014
_BACKLOG = 64


def listen(port: int | None) -> socket.socket:
    """A socket that listens at `port`, or (None) at the usual one, or else at any; UserError if that cannot be."""
    if port is not None:
        return _listen(port)
    try:
        return _listen(USUAL_PORT)
    except UserError:
        return _listen(ANY_PORT)


def check(port: int | None) -> None:
    """UserError if the port that was asked for is in use now: better heard before anything is built than after."""
    if port is not None:
        listen(port).close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        text = f"cannot listen on {LOOPBACK}:{port} ({error.strerror}): choose another"
        raise UserError(f"--dashboard {port}: {text}") from None
    return listener
