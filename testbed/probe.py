"""Round-trip times of links, measured frame by frame on the links themselves.

A frame of an Ethernet type that no switch forwards goes out by one end's interface and is awaited at the other's,
then the same way back: through the shaper, past the switches, by one clock. What a `ping` between two hosts shows is
this plus the work of the switches and of the hosts.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Sequence

# IEEE 802.1 Local Experimental Ethertype 1
_ETHERTYPE = 0x88B5
_ALL_TYPES = 0x0003  # ETH_P_ALL of linux/if_ether.h
_SOURCE = b"\x02\x00\x00\xff\xff\x01"
_TARGET = b"\x02\x00\x00\xff\xff\x02"
_FRAME_BYTES = 64
_PROBES = 15
_WAIT_BEYOND_MS = 500.0


def link_rtt_ms(port_a: str, port_b: str, expected_ms: float) -> float | None:
    """Median round-trip time between two ports of this namespace in ms; None if no frame of fifteen came back."""
    rtts: list[float] = []
    with _raw(port_a) as a, _raw(port_b) as b:
        for sent in range(_PROBES):
            if sent > _PROBES // 2 and not rtts:
                break
            mark = os.urandom(8)
            timeout_s = (expected_ms + _WAIT_BEYOND_MS) / 1000
            started = time.perf_counter()
            if _cross(a, b, mark, timeout_s) and _cross(b, a, mark, timeout_s):
                rtts.append((time.perf_counter() - started) * 1000)
    return statistics.median(rtts) if rtts else None


def is_off(configured_ms: float, measured_ms: float | None, jitter_ms: float) -> bool:
    """Whether a measured round-trip time contradicts the configured one. PURE.

    Frames are never early; a busy machine makes them late, a wrong unit or a missing shaper is off by more.
    """
    if measured_ms is None:
        return True
    early = configured_ms * 0.9 - 2 * jitter_ms - 0.05
    late = configured_ms * 1.25 + 2 * jitter_ms + 10.0
    return not early <= measured_ms <= late


def wait_for_carrier(ports: Sequence[str], timeout_s: float = 10.0) -> list[str]:
    """Those of `ports` that have no carrier when all have one, or when time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        shown = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
        live = {link["ifname"] for link in json.loads(shown) if "LOWER_UP" in link["flags"]}
        down = [p for p in ports if p not in live]
        if not down or time.monotonic() > deadline:
            return down
        time.sleep(0.02)


def _raw(port: str) -> socket.socket:
    # All types: the kernel's Open vSwitch takes a frame off its port before sockets for a single type see it.
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_TYPES))
    raw.bind((port, _ALL_TYPES))
    return raw


def _cross(sender: socket.socket, receiver: socket.socket, mark: bytes, timeout_s: float) -> bool:
    header = _TARGET + _SOURCE + struct.pack(">H", _ETHERTYPE)
    sender.send((header + mark).ljust(_FRAME_BYTES, b"\0"))
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        try:
            frame, address = receiver.recvfrom(2048)
        except TimeoutError:
            return False
        if address[2] != socket.PACKET_OUTGOING and frame.startswith(header + mark):
            return True
    return False
