"""GS QKD 004 V2.1.1 on a wire: messages over a TLS connection, in the form that ETSI's own client has made usual.

The standard fixes functions, parameters and statuses (clause 6.1), and no encoding. The usual form: a header of eight
bytes, which are three of a version, one of a service and four of the payload's length, then the payload. Numbers are
unsigned, of 32 bits, the most significant byte first. Sizes are in bytes, Timeout in milliseconds, TTL in seconds,
bandwidths in bit/s. An answer that is no success is the status alone, except where a counter-proposal or the needed
size of metadata comes with it.
"""

from __future__ import annotations

import enum
import struct
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from documents.checks import Malformed, integer
from documents.secret import Secret

HEADER_BYTES = 8
VERSION = (1, 0, 1)
JSON = "application/json"
_HEADER = struct.Struct("!3BBI")
_U32 = struct.Struct("!I")
_NUMBERS = struct.Struct("!7I")
_MIMETYPE_BYTES, _KSID_BYTES, _LONGEST_URI = 256, 16, 512
LONGEST_REQUEST = 2 * (_LONGEST_URI + 1) + _NUMBERS.size + _MIMETYPE_BYTES + _KSID_BYTES  # bytes of payload
_MOST = (1 << 32) - 1
NO_KSID = "00000000-0000-0000-0000-000000000000"  # asks the key manager for one


class Service(enum.IntEnum):
    """What a message is."""

    OPEN_CONNECT = 0x02
    OPEN_CONNECT_ANSWER = 0x03
    GET_KEY = 0x04
    GET_KEY_ANSWER = 0x05
    CLOSE = 0x08
    CLOSE_ANSWER = 0x09


class Status(enum.IntEnum):
    """Clause 6.1; the last one is the usual form's, for a stream that is not there."""

    SUCCESS = 0
    PEER_NOT_CONNECTED = 1
    TOO_LITTLE_KEY = 2
    NO_PEER_YET = 3
    NO_CONNECTION = 4
    KSID_IN_USE = 5
    TIMEOUT = 6
    QOS_NOT_MET = 7
    METADATA_TOO_SMALL = 8
    NOT_OPEN = 9


@dataclass(frozen=True, slots=True)
class StreamQoS:
    """The quality of service of a chunk stream (clause 6.1: key stream), in the order in which it is sent."""

    key_chunk_size: int  # bytes
    max_bps: int
    min_bps: int
    jitter: int
    priority: int
    timeout_ms: int
    ttl_s: int
    metadata_mimetype: str  # "" if the stream has no metadata


@dataclass(frozen=True, slots=True)
class OpenConnect:
    """OPEN_CONNECT; `key_stream_id` is NO_KSID, or a UUID that the peer has."""

    source: str
    destination: str
    qos: StreamQoS
    key_stream_id: str


@dataclass(frozen=True, slots=True)
class GetKey:
    """GET_KEY; `metadata_size`: bytes that there is room for, 0 if none are wanted."""

    key_stream_id: str
    index: int
    metadata_size: int


@dataclass(frozen=True, slots=True)
class Close:
    """CLOSE."""

    key_stream_id: str


def payload_bytes(header: bytes) -> int:
    """How many bytes follow a request's header; Malformed if it is none of ours."""
    major, _, _, _, length = _HEADER.unpack(header)
    if major != VERSION[0]:
        raise Malformed("version", f"{VERSION[0]}.x")
    if length > LONGEST_REQUEST:
        raise Malformed("length", f"at most {LONGEST_REQUEST} bytes")
    return int(length)


def request(header: bytes, payload: bytes) -> OpenConnect | GetKey | Close:
    """A request; Malformed names what is wrong with it."""
    service = header[3]
    if service == Service.OPEN_CONNECT:
        return _open_connect(payload)
    if service == Service.GET_KEY and len(payload) == _KSID_BYTES + 2 * _U32.size:
        index, size = struct.unpack("!2I", payload[_KSID_BYTES:])
        return GetKey(_ksid(payload), index, size)
    if service == Service.CLOSE and len(payload) == _KSID_BYTES:
        return Close(_ksid(payload))
    raise Malformed("service", "OPEN_CONNECT, GET_KEY or CLOSE, with the parameters of each")


def opened(status: Status, qos: StreamQoS, key_stream_id: str) -> bytes:
    """The answer to OPEN_CONNECT, with the quality of service that there is."""
    mimetype = qos.metadata_mimetype.encode().ljust(_MIMETYPE_BYTES, b"\0")
    numbers = _NUMBERS.pack(*astuple(qos)[:-1])
    return _message(
        Service.OPEN_CONNECT_ANSWER, _U32.pack(status) + numbers + mimetype + uuid.UUID(key_stream_id).bytes
    )


def key(index: int, chunk: Secret, metadata: bytes) -> bytes:
    """The answer to GET_KEY. It holds key bytes: it goes to the application only."""
    parts = (Status.SUCCESS, index, len(chunk))
    head = b"".join(map(_U32.pack, parts))
    return _message(Service.GET_KEY_ANSWER, head + chunk.reveal() + _U32.pack(len(metadata)) + metadata)


def metadata_too_small(needed: int) -> bytes:
    """The answer to GET_KEY that has no room for the metadata, with the bytes that they need."""
    return _message(Service.GET_KEY_ANSWER, _U32.pack(Status.METADATA_TOO_SMALL) + _U32.pack(needed))


def said(service: Service, status: Status) -> bytes:
    """An answer that is a status."""
    return _message(service, _U32.pack(status))


def qos_from_json(document: dict[str, Any]) -> StreamQoS:
    """What `dataclasses.asdict` made of one, between two nodes; Malformed."""
    numbers = [integer(document.get(f.name), f"qos.{f.name}", low=0, high=_MOST) for f in fields(StreamQoS)[:-1]]
    mimetype = document.get("metadata_mimetype")
    if mimetype not in ("", JSON):
        raise Malformed("qos.metadata_mimetype", f'"" or {JSON}')
    return _qos(numbers, str(mimetype))


def _open_connect(payload: bytes) -> OpenConnect:
    source, after_source, rest = payload.partition(b"\0")
    destination, after_destination, rest = rest.partition(b"\0")
    if not after_source or not after_destination:
        raise Malformed("Source, Destination", "two URIs, each with a zero byte behind it")
    if len(rest) != _NUMBERS.size + _MIMETYPE_BYTES + _KSID_BYTES:
        raise Malformed("QoS, Key_stream_ID", "seven numbers, 256 bytes of a media type, 16 of a UUID")
    numbers, mimetype = _NUMBERS.unpack(rest[: _NUMBERS.size]), rest[_NUMBERS.size : -_KSID_BYTES]
    qos = _qos(numbers, _text(mimetype.partition(b"\0")[0], "Metadata_mimetype"))
    return OpenConnect(_text(source, "Source"), _text(destination, "Destination"), qos, _ksid(rest[-_KSID_BYTES:]))


def _qos(numbers: Sequence[int], mimetype: str) -> StreamQoS:
    chunk, most, least, jitter, priority, timeout_ms, ttl_s = numbers
    return StreamQoS(chunk, most, least, jitter, priority, timeout_ms, ttl_s, mimetype)


def _text(raw: bytes, name: str) -> str:
    try:
        found = raw.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(name, "ASCII") from None
    if len(found) > _LONGEST_URI:
        raise Malformed(name, f"at most {_LONGEST_URI} characters")
    return found


def _ksid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw[:_KSID_BYTES]))


def _message(service: Service, payload: bytes) -> bytes:
    return _HEADER.pack(*VERSION, service, len(payload)) + payload
