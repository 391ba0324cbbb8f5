"""What this machine's kernel has of what carries packets; where it lacks it, a program does that work, over TUN.

Each is tried out in a network of its own, which is gone with the program that tries: nothing else tells of a module
that is loaded only when it is wanted.
"""

from __future__ import annotations

from sae.client import Failed
from sae.vpn.daemons import tool

_ESP = (
    "ip", "xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x100",
    "mode", "tunnel", "encap", "espinudp", "4500", "4500", "192.0.2.1",
    "aead", "rfc4106(gcm(aes))", f"0x{'00' * 36}", "128",  # a key for no packet
)  # fmt: skip
_WIREGUARD = ("ip", "link", "add", "probe", "type", "wireguard")


def has_esp() -> bool:
    """Whether it has the ESP that gateways agree on, with its cipher."""
    return _can(*_ESP)


def has_wireguard() -> bool:
    """Whether it has WireGuard."""
    return _can(*_WIREGUARD)


def _can(*command: str) -> bool:
    try:
        tool("unshare", "--net", "--", *command)
    except Failed:
        return False
    return True
