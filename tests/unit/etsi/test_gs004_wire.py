"""GS QKD 004 on a wire: read as it was written by another's client, and checked."""

from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents.checks import Malformed
from documents.secret import Secret
from etsi import gs004_wire as wire
from etsi.gs004_wire import Close, GetKey, OpenConnect, Service, Status, StreamQoS

KSID = uuid.UUID("6f7b4578-1503-479f-9e11-d45d4b3da9d0")
QOS = StreamQoS(32, 40_000, 5_000, 10, 0, 5_000, 3_600, wire.JSON)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100)
numbers = st.integers(0, 2**32 - 1)


def frame(service: int, payload: bytes) -> tuple[bytes, bytes]:
    """Header and payload as a client sends them."""
    return struct.pack("!3BbI", 1, 0, 1, service, len(payload)), payload


def open_connect(source: bytes, destination: bytes, qos: StreamQoS, ksid: uuid.UUID) -> bytes:
    """The payload, put together by hand."""
    named = (qos.key_chunk_size, qos.max_bps, qos.min_bps, qos.jitter, qos.priority, qos.timeout_ms, qos.ttl_s)
    mimetype = qos.metadata_mimetype.encode().ljust(256, b"\0")
    return source + b"\0" + destination + b"\0" + struct.pack("!7I", *named) + mimetype + ksid.bytes


@given(words, words, st.lists(numbers, min_size=7, max_size=7), st.uuids())
def test_open_connect_is_read_as_it_was_sent(source, destination, values, ksid):
    """URIs with a zero byte behind each, seven numbers, a media type of 256 bytes, a UUID."""
    qos = StreamQoS(*values, wire.JSON)
    header, payload = frame(2, open_connect(source.encode(), destination.encode(), qos, ksid))

    assert wire.payload_bytes(header) == len(payload)
    assert wire.request(header, payload) == OpenConnect(source, destination, qos, str(ksid))


def test_get_key_and_close_are_read_as_they_were_sent():
    """By the UUID of the stream."""
    header, payload = frame(4, KSID.bytes + struct.pack("!2I", 7, 1024))
    assert wire.request(header, payload) == GetKey(str(KSID), 7, 1024)
    header, payload = frame(8, KSID.bytes)
    assert wire.request(header, payload) == Close(str(KSID))


@pytest.mark.parametrize(
    ("service", "payload"),
    [(4, b""), (4, KSID.bytes), (8, b""), (8, KSID.bytes + b"x"), (0, b""), (3, KSID.bytes), (255, b""),
     (2, b""), (2, b"a\0b\0"), (2, b"a\0b" + bytes(400)[:1]), (2, open_connect(b"\xff", b"b", QOS, KSID)),
     (2, open_connect(b"a", b"b", QOS, KSID)[:-1]), (2, open_connect(b"x" * 513, b"b", QOS, KSID)[:1342])],
    ids=lambda v: str(v)[:20],
)  # fmt: skip
def test_request_of_another_form_is_malformed(service, payload):
    """Whatever is short, long, or no service of a client."""
    with pytest.raises(Malformed):
        wire.request(struct.pack("!3BBI", 1, 0, 1, service, len(payload)), payload)


@given(st.binary(min_size=8, max_size=8), st.binary(max_size=600))
def test_whatever_comes_is_read_or_malformed(header, payload):
    """Nothing else is raised."""
    for read in (lambda: wire.payload_bytes(header), lambda: wire.request(header, payload)):
        with contextlib.suppress(Malformed):
            read()


def test_header_of_another_version_or_of_a_long_payload_is_malformed():
    """Before anything of the payload is read."""
    for header in (struct.pack("!3BBI", 2, 0, 0, 2, 10), struct.pack("!3BBI", 1, 0, 1, 2, 1 << 20)):
        with pytest.raises(Malformed):
            wire.payload_bytes(header)


def test_answers_have_the_usual_form():
    """Status; then what comes with it."""
    assert wire.said(Service.CLOSE_ANSWER, Status.SUCCESS) == bytes.fromhex("01000109 00000004 00000000")
    assert wire.metadata_too_small(40) == bytes.fromhex("01000105 00000008 00000008 00000028")
    assert wire.key(5, Secret(b"\x01\x02"), b"{}") == bytes.fromhex(
        "01000105 00000014 00000000 00000005 00000002 0102 00000002 7b7d"
    )
    answer = wire.opened(Status.QOS_NOT_MET, QOS, str(KSID))
    assert answer[:12] == bytes.fromhex("01000103") + struct.pack("!2I", 4 + 28 + 256 + 16, 7)
    assert struct.unpack("!7I", answer[12:40]) == (32, 40_000, 5_000, 10, 0, 5_000, 3_600)
    assert answer[40:296].rstrip(b"\0") == b"application/json"
    assert answer[296:] == KSID.bytes
