"""What a fibre does to frames that cross it in one direction, and what may be configured of that. PURE.

Both shapers, netem and the user-space delay line, mean the same by it: a frame waits until the line is free, takes the
time of its bytes (Ethernet header included) at the bandwidth, then the delay. Jitter draws each frame's delay anew,
uniformly from delay - jitter to delay + jitter and never below zero. No frame overtakes another, as on a fibre: one
that drew a shorter delay leaves right behind the one before it. Loss takes each frame with the same probability, on
its own, before it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from documents.checks import Malformed, mapping, number

# A minute, one way. Beyond it the connection set-up of every component times out, and netem's 32 bit field is near.
MAX_DELAY_MS = 60_000.0
# At 1 kbit/s a full frame takes twelve seconds. The highest is Mininet's own (mininet/link.py, bwParamMax), and about
# what one process can forward.
MIN_BANDWIDTH_MBIT, MAX_BANDWIDTH_MBIT = 0.001, 1000.0

MEMBERS = ("delay_ms", "jitter_ms", "loss_percent", "bandwidth_mbit")


@dataclass(frozen=True, slots=True)
class Shape:
    """`delay_ms` one way, uniform within +- `jitter_ms`; share of frames lost; Mbit/s, or None for no limit."""

    delay_ms: float
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    bandwidth_mbit: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """The shape as a configuration has it."""
        return asdict(self)

    def transmission_ms(self, n_bytes: int) -> float:
        """How long a frame's bytes take to pass."""
        return 0.0 if self.bandwidth_mbit is None else n_bytes * 0.008 / self.bandwidth_mbit


def parse_shape(value: Any, field: str, before: Shape | None = None) -> Shape:
    """The shape in a JSON object; members that it leaves out are as `before`, or else zero, which delay may not be.

    Malformed names the member and what was expected.
    """
    given: Mapping[str, Any] = mapping(value, field or "shape")
    prefix = f"{field}." if field else ""
    for member in given:
        if member not in MEMBERS:
            # A stranger may hold anything, and the message is to be one line.
            shown = member if isinstance(member, str) and member.isidentifier() else repr(member)
            raise Malformed(f"{prefix}{shown}", f"only the members {', '.join(MEMBERS)}")
    merged = ({"jitter_ms": 0, "loss_percent": 0} if before is None else before.to_json()) | dict(given)
    bandwidth = merged.get("bandwidth_mbit")
    return Shape(
        number(merged.get("delay_ms"), f"{prefix}delay_ms", low=0, high=MAX_DELAY_MS),
        number(merged["jitter_ms"], f"{prefix}jitter_ms", low=0, high=MAX_DELAY_MS),
        number(merged["loss_percent"], f"{prefix}loss_percent", low=0, high=100),
        None if bandwidth is None else _bandwidth(bandwidth, f"{prefix}bandwidth_mbit"),
    )


def _bandwidth(value: Any, field: str) -> float:
    return number(value, field, low=MIN_BANDWIDTH_MBIT, high=MAX_BANDWIDTH_MBIT)
