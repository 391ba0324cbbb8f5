"""A client of GS QKD 004 in its usual wire form, as its users write one: sockets, TLS and struct."""

from __future__ import annotations

import socket
import ssl
import struct
import uuid
from dataclasses import dataclass, field

NOBODY = uuid.UUID(int=0)


@dataclass(frozen=True)
class Opened:
    """The answer to OPEN_CONNECT: status, and with most of them the stream's ID and its quality of service."""

    status: int
    ksid: uuid.UUID = NOBODY
    qos: tuple[int, ...] = ()
    mimetype: str = ""


@dataclass(frozen=True)
class Chunk:
    """The answer to GET_KEY."""

    status: int
    index: int = -1
    key: bytes = field(default=b"", repr=False)
    metadata: bytes = b""
    needed: int = 0


class Application:
    """One connection to a node, over mutual TLS."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._connection = context.wrap_socket(raw, server_hostname="127.0.0.1")

    def ask(self, service: int, payload: bytes) -> tuple[int, bytes]:
        """Service and payload of the answer."""
        self.send(struct.pack("!3BbI", 1, 0, 1, service, len(payload)) + payload)
        header = self._read(8)
        assert header[:3] == bytes((1, 0, 1))
        return header[3], self._read(struct.unpack("!I", header[4:])[0])

    def send(self, data: bytes) -> None:
        """Anything."""
        self._connection.sendall(data)

    def ended(self) -> bool:
        """Whether the node closes the connection."""
        try:
            return self._connection.recv(1) == b""
        except OSError:
            return True

    def open(
        self, source: str, destination: str, *, ksid: uuid.UUID = NOBODY, chunk: int = 32, max_bps: int = 0,
        min_bps: int = 0, timeout_ms: int = 2000, ttl_s: int = 3600, mimetype: str = "application/json",
    ) -> Opened:  # fmt: skip
        """OPEN_CONNECT."""
        numbers = struct.pack("!7I", chunk, max_bps, min_bps, 10, 0, timeout_ms, ttl_s)
        payload = source.encode() + b"\0" + destination.encode() + b"\0" + numbers
        service, answer = self.ask(2, payload + mimetype.encode().ljust(256, b"\0") + ksid.bytes)
        assert service == 3
        (status,) = struct.unpack("!I", answer[:4])
        if len(answer) == 4:
            return Opened(status)
        assert len(answer) == 4 + 28 + 256 + 16
        kind = answer[32:288].rstrip(b"\0").decode()
        return Opened(status, uuid.UUID(bytes=answer[288:]), struct.unpack("!7I", answer[4:32]), kind)

    def get(self, ksid: uuid.UUID, index: int = 0, metadata_size: int = 0) -> Chunk:
        """GET_KEY."""
        service, answer = self.ask(4, ksid.bytes + struct.pack("!2I", index, metadata_size))
        assert service == 5
        (status,) = struct.unpack("!I", answer[:4])
        if status == 8:
            return Chunk(status, needed=struct.unpack("!I", answer[4:])[0])
        if status:
            assert len(answer) == 4
            return Chunk(status)
        found, size = struct.unpack("!2I", answer[4:12])
        key, rest = answer[12 : 12 + size], answer[12 + size :]
        assert struct.unpack("!I", rest[:4])[0] == len(rest) - 4
        return Chunk(status, found, key, rest[4:])

    def close_stream(self, ksid: uuid.UUID) -> int:
        """CLOSE: the status."""
        service, answer = self.ask(8, ksid.bytes)
        assert service == 9
        return int(struct.unpack("!I", answer)[0])

    def hang_up(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _read(self, number: int) -> bytes:
        found = b""
        while len(found) < number:
            part = self._connection.recv(number - len(found))
            assert part, "the node closed the connection"
            found += part
        return found
