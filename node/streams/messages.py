"""What the server on the port of GS QKD 004 speaks: messages of `etsi.gs004_wire`, answered by `ChunkStreams`."""

from __future__ import annotations

from etsi import gs004_wire as wire
from mtls.framed import Exchange
from mtls.identity import Identity
from node.streams.chunk_streams import ChunkStreams
from telemetry import trace


class Gs004:
    """The messages of one node's streams."""

    header_bytes = wire.HEADER_BYTES

    def __init__(self, streams: ChunkStreams) -> None:
        self._streams = streams

    def payload_bytes(self, header: bytes) -> int:
        """How much follows that header; Malformed."""
        return wire.payload_bytes(header)

    def answer(self, caller: Identity, header: bytes, payload: bytes, exchange: Exchange) -> bytes:
        """The answer to a message of an SAE; Malformed."""
        with trace.begin():
            return self._streams.answer(caller.name, wire.request(header, payload), exchange)
