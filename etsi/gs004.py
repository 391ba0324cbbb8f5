"""GS QKD 004 V2.1.1 as far as key sessions need it: the quality of service that an application declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from documents.checks import Malformed, integer, number


@dataclass(frozen=True, slots=True)
class QoS:
    """What an application wants: a key of `key_size_bits` every `interval_s` seconds.

    Clause 6.1 speaks of Key_chunk_size (bytes) and of bit rates; both follow from these two.
    """

    key_size_bits: int = 128
    interval_s: float = 5.0

    @property
    def max_bps(self) -> float:
        """Bits a second, the standard's Max_bps."""
        return self.key_size_bits / self.interval_s

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return asdict(self)


def qos(document: Mapping[str, Any]) -> QoS:
    """A received QoS; members left out take their defaults (6.1: "empty: the system chooses")."""
    unknown = set(document) - {"key_size_bits", "interval_s"}
    if unknown:
        raise Malformed(f"qos.{min(unknown)}", "one of key_size_bits, interval_s")
    size = integer(document.get("key_size_bits", 128), "qos.key_size_bits", low=8, high=1 << 20)
    if size % 8:
        raise Malformed("qos.key_size_bits", "a multiple of 8")
    return QoS(size, number(document.get("interval_s", 5.0), "qos.interval_s", low=0.001, high=86_400))
