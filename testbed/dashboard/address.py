"""Where the page is: a port of this machine's loopback."""

from __future__ import annotations

import fcntl
import socket
import struct

from testbed.errors import UserError
from testbed.network.expose import ANY_PORT, LOOPBACK

# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS = 0x8913
_IFF_UP_AND_RUNNING = 0x1 | 0x40
_REQUEST = struct.Struct("16sH14x")


class Ports:
    """Interfaces of the network namespace in which this is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()

    def lit(self, interface: str) -> bool:
        """Whether an interface is up and has a carrier; False if there is none of that name."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, _REQUEST.pack(interface.encode(), 0))
        except OSError:
            return False
        flags: int = _REQUEST.unpack(answer)[1]
        return flags & _IFF_UP_AND_RUNNING == _IFF_UP_AND_RUNNING


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
