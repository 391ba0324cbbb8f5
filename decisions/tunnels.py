"""When a tunnel gets its next key, and what becomes of it when none comes. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from documents.checks import Malformed, number

WIREGUARD, IPSEC, TLS = "wireguard", "ipsec", "tls"
KINDS = (WIREGUARD, IPSEC, TLS)
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


@dataclass(frozen=True, slots=True)
class Terms:
    """What both ends of a tunnel go by: kind, seconds between two keys, what happens when none comes."""

    kind: str = KINDS[0]
    every_s: float = EVERY_S
    policy: str = POLICIES[0]

    def to_json(self) -> dict[str, Any]:
        """As `terms` reads them."""
        return asdict(self)


def terms(given: Mapping[str, Any]) -> Terms:
    """The terms among the members of a document; Malformed names the one that is wrong. Without a policy, the first."""
    kind, policy = given.get("kind"), given.get("policy", POLICIES[0])
    for member, value, allowed in (("kind", kind, KINDS), ("policy", policy, POLICIES)):
        if value not in allowed:
            raise Malformed(member, f"one of {', '.join(allowed)}")
    every_s = number(given.get("every_s"), "every_s", low=LEAST_EVERY_S, high=MOST_EVERY_S)
    return Terms(str(kind), every_s, str(policy))
