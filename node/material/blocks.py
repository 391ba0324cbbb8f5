"""The node's input port for key material: frames in which a QC hands over its output, and their acknowledgement.

A frame is a fixed header (magic, version, length of the QC's name, sequence number, epoch, slot, stream offset, payload
length, error rate; big-endian), the name, and the payload. The epoch is a number that the device draws at each start:
offsets count from 0 in each. A block may be empty: it says that the slot has begun.

The node answers each frame by the question how old the block is, which the device answers in milliseconds of its own
clock. No clock is common to both: what the device made so long before it answered, it made so long before the node
asked at least, however long a message waits on its way. Then the node answers the block's sequence number once the
block is stored, so that the sender can repeat what a crash swallowed.
"""

from __future__ import annotations

import hmac
import json
import math
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from decisions.parameters import MOST_RATE
from documents.secret import Secret
from mtls.unix_socket import short_name

_HEADER = struct.Struct(">2sBBQQQQII")
_AGE = struct.Struct(">Q")
_MAGIC = b"QB"
_VERSION = 3
MAX_PAYLOAD_BYTES = MOST_RATE
SOCKET = "blocks.sock"  # in a node's folder
_PATIENCE_S = 30.0
AUTHENTICATION_KEY_BYTES = 32
DIGEST_BYTES = 16
# What a node writes back: a letter and a number. "A": the block of that sequence number is stored. "R": make blocks of
# low to high bytes from now on, low in the upper half of the number. "G": generate (1) or do not (0). "T": say how long
# ago the block of that sequence number was made.
_ANSWER = struct.Struct(">cQ")
ANSWER_BYTES = _ANSWER.size
_NOT_MEASURED = 0xFFFFFFFF


def boottime() -> float:
    """Seconds that pass while the machine sleeps, too, and count from its start (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class BadFrame(ValueError):
    """What came is no block frame; the connection is of no use any more."""


@dataclass(frozen=True, slots=True)
class Block:
    """What a QC made in one slot: `payload` stands at `offset` bytes of its stream. `sequence` counts blocks from 0.

    `qber` is the quantum bit error rate in thousandths of a percent, None if it was not measured. `made` is when, in
    seconds of a clock of whoever holds the block.
    """

    qc: str
    sequence: int
    slot: int
    offset: int
    payload: Secret
    qber: int | None = None
    epoch: int = 0
    made: float = field(default=0.0, compare=False)

    def digest(self, key: Secret) -> bytes:
        """What the two ends of the QC compare, under the key that they share: HMAC-SHA256, cut to DIGEST_BYTES."""
        where = json.dumps([self.qc, self.epoch, self.offset, len(self.payload)]).encode()
        return hmac.digest(key.reveal(), where + b"\0" + self.payload.reveal(), "sha256")[:DIGEST_BYTES]

    def encode(self) -> bytes:
        """The frame."""
        name = self.qc.encode()
        header = _HEADER.pack(
            _MAGIC, _VERSION, len(name), self.sequence, self.epoch, self.slot, self.offset, len(self.payload),
            _NOT_MEASURED if self.qber is None else self.qber,
        )  # fmt: skip
        return header + name + self.payload.reveal()


def connect(directory: Path) -> socket.socket:
    """A device's connection to the quantum module of the node whose folder that is; OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE_S)
        with short_name(directory / SOCKET) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


def acknowledge(sequence: int) -> bytes:
    """The answer that says that a block is stored."""
    return _ANSWER.pack(b"A", sequence)


def ask_rate(low: int, high: int) -> bytes:
    """The answer that asks for another rate, in bytes a slot."""
    return _ANSWER.pack(b"R", low << 32 | high)


def ask_generation(enabled: bool) -> bytes:
    """The answer that asks to generate, or to stop."""
    return _ANSWER.pack(b"G", enabled)


def encode_age(age_s: float) -> bytes:
    """What a device says when it is asked how old a block is."""
    return _AGE.pack(math.ceil(1000 * age_s))


def read_answer(data: bytes) -> int | tuple[int, int] | bool | None:
    """An acknowledgement's sequence number, the (low, high) of a wanted rate, or whether to generate. BadFrame.

    None asks how old the block is.
    """
    kind, number = _ANSWER.unpack(data)
    if kind == b"A":
        return int(number)
    if kind == b"T":
        return None
    if kind == b"G" and number in (0, 1):
        return bool(number)
    low, high = number >> 32, number & 0xFFFFFFFF
    if kind != b"R" or not low <= high <= MAX_PAYLOAD_BYTES:
        raise BadFrame("expected an acknowledgement or a rate")
    return low, high


def receive(connection: socket.socket, clock: Callable[[], float] = boottime) -> Block | None:
    """The next block, or None at the end of the connection. BadFrame if something else came.

    It was made at its `made` of `clock` or later.
    """
    header = _receive_exactly(connection, _HEADER.size)
    if header is None:
        return None
    magic, version, name_length, sequence, epoch, slot, offset, length, qber = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION:
        raise BadFrame(f"expected a block frame of version {_VERSION}")
    # Slots are counted on over all epochs of a device.
    if length > MAX_PAYLOAD_BYTES or epoch >> 63 or offset >> 62 or slot >> 48 or sequence >> 62:
        raise BadFrame("a number in the frame is out of range")
    rest = _receive_exactly(connection, name_length + length)
    if rest is None:
        return None
    try:
        name = rest[:name_length].decode()
    except UnicodeDecodeError:
        raise BadFrame("the QC's name is not UTF-8") from None
    asked = clock()
    connection.sendall(_ANSWER.pack(b"T", sequence))
    age = _receive_exactly(connection, _AGE.size)
    if age is None:
        return None
    return Block(
        name, sequence, slot, offset, Secret(rest[name_length:]), None if qber == _NOT_MEASURED else qber, epoch,
        asked - _AGE.unpack(age)[0] / 1000,
    )  # fmt: skip


def _receive_exactly(connection: socket.socket, n_bytes: int) -> bytes | None:
    data = bytearray()
    while len(data) < n_bytes:
        chunk = connection.recv(n_bytes - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)
