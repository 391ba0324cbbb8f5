"""How many bytes a frame has on the wire that the kernel hands over as one large segment, still to be cut. PURE.

Before each frame stands the kernel's virtio_net_hdr (linux/virtio_net.h): flags, kind of segmentation, length of the
headers (a hint, and too long at times), bytes of payload a segment, where the checksum starts and where it goes. Each
segment will have headers of its own, and the shaper's line is as long busy with them as with the payload: netem counts
them, too (net/core/dev.c, qdisc_pkt_len_init).
"""

from __future__ import annotations

import struct

VNET_HEADER_BYTES = 10
_VNET_HEADER = struct.Struct("<BBHHHH")
_UDP = 5
_ECN = 0x80
_UDP_HEADER_BYTES = 8
# In a TCP header, where its length stands: the upper half of this byte, in words of four bytes.
_TCP_LENGTH_AT = 12


def wire_bytes(frame: bytes) -> int:
    """Bytes of all frames that this one, with its virtio_net_hdr, is going to be; Ethernet headers are counted."""
    n_bytes = len(frame) - VNET_HEADER_BYTES
    if not frame[1]:
        return n_bytes
    _, kind, _, payload_bytes, transport_at, _ = _VNET_HEADER.unpack_from(frame)
    length_at = VNET_HEADER_BYTES + transport_at + _TCP_LENGTH_AT
    if not payload_bytes or length_at >= len(frame):
        return n_bytes
    own = _UDP_HEADER_BYTES if kind & ~_ECN == _UDP else (frame[length_at] >> 4) * 4
    headers_bytes: int = transport_at + own
    further: int = max(0, (n_bytes - headers_bytes - 1) // payload_bytes)
    return n_bytes + further * headers_bytes
