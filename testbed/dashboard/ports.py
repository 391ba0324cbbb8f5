"""Which network interfaces see light, asked of the kernel without starting a program."""

from __future__ import annotations

import fcntl
import socket
import struct

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
