"""What was reported slot by slot, so that whoever may have missed reports hears of these slots again. PURE.

A report that is lost with its connection would be missing in the load that admission control counts. So figures are
told as differences of totals, and a new listener is told of the last slots once more. Reports that overlap take the
place of one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from node import limits


@dataclass(frozen=True, slots=True)
class Totals:
    """Bytes by QC at the end of a slot, counted from whenever: made at and taken from this node's QCs, asked of any."""

    slot: int
    generated: Mapping[str, int] = field(default_factory=dict)
    requested: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)


class Reports:
    """The totals at the ends of the slots that were reported last, the first of which is `first`."""

    def __init__(self, first: Totals) -> None:
        self._kept = [first]
        self._last: tuple[int, int, Totals] = (first.slot, 0, first)  # slot, listener, what it counted from

    def since(self, now: Totals, listener: int) -> Totals:
        """The totals from which the figures of the next report count; it ends with `now`, and is for that listener."""
        slot, told, base = self._last
        earlier = [t for t in self._kept if t.slot < now.slot]
        if not earlier:  # the slots count from the beginning again
            base = self._kept[-1]
        elif listener != told:
            base = earlier[0]
        elif slot != now.slot:  # else this report takes the place of the one before
            base = earlier[-1]
        self._last = now.slot, listener, base
        # What is told in one report is told again in one, or not at all: half of it cannot be replaced.
        earlier = [t for t in earlier if t.slot <= base.slot]
        last = max((i for i, t in enumerate(earlier) if t.slot <= now.slot - limits.RETOLD_SLOTS), default=0)
        self._kept = [*earlier[last:], now]
        return base
