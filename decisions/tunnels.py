"""When a tunnel gets its next key, and what becomes of it when none comes. PURE."""

from __future__ import annotations

WIREGUARD, IPSEC = "wireguard", "ipsec"
KINDS = (WIREGUARD, IPSEC)
CLOSE, HOLD = "close", "hold"
# What a tunnel does when no new key has come in time: let nothing through, or go on under the old key.
POLICIES = (CLOSE, HOLD)
KEY_BITS = 256  # of each key: a WireGuard PSK has no other size, and RFC 8784, clause 6, asks for 256 bits
LEAST_EVERY_S, EVERY_S, MOST_EVERY_S = 1.0, 10.0, 86_400.0  # between two keys; the second one by default
_RETRY_S = 2.0


def next_try_s(every_s: float, *, failed: bool) -> float:
    """How long after one attempt the next one comes: an interval; sooner after a failure, as the key has no time."""
    return min(_RETRY_S, every_s / 4) if failed else every_s


def lapse_s(every_s: float) -> float:
    """The age at which a key is too old: the interval for which it was meant, and the one in which another was due."""
    return 2 * every_s
