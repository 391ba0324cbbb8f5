"""PURE: which bytes of a QC's stream may be handed out. The shared database decides by the same rule (shared_db.sql).

A QC's output is one byte stream that both ends hold. Per QC there is a head (both ends hold everything before it),
a floor (the first byte that neither end has given up) and a tail (the next free byte). An allocation of n bytes
takes [max(tail, floor), max(tail, floor) + n) if that does not pass the head, and moves the tail to its end. The
tail only ever grows, so that no byte is allocated twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [start, end) of the stream of `qc`, as offsets from the stream's first byte."""

    qc: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"no range: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start

    def split(self, n_bytes: int) -> tuple[Range, Range]:
        """The first `n_bytes` and the rest."""
        middle = self.start + n_bytes
        return Range(self.qc, self.start, middle), Range(self.qc, middle, self.end)


@dataclass(frozen=True, slots=True)
class Instruction:
    """Where a single-hop key lies in its QC's stream, and whose it is. `asked`: not only made with one asked for.

    `trace`: ID of the trace in which it was made; empty if there was none.
    """

    key_id: str
    request: str
    ksid: str
    master_sae: str
    slave_sae: str
    where: Range
    asked: bool
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """One QC in the shared database: what each end holds, [floor, head), and the next free byte."""

    head_a: int = 0
    head_b: int = 0
    floor_a: int = 0
    floor_b: int = 0
    tail: int = 0

    @property
    def head(self) -> int:
        """Both ends hold everything before it (from the floor on)."""
        return min(self.head_a, self.head_b)

    @property
    def first_free(self) -> int:
        """Where the next allocation starts."""
        return max(self.tail, self.floor_a, self.floor_b)

    @property
    def available(self) -> int:
        """Bytes that can be allocated now."""
        return max(0, self.head - self.first_free)


@dataclass(frozen=True, slots=True)
class Shortage:
    """The tightest QC of a request and how many bytes it lacked."""

    qc: str
    short_bytes: int


def allocate(
    streams: Mapping[str, Stream], needs: Sequence[tuple[str, int]]
) -> tuple[dict[str, Stream], list[Range]] | Shortage:
    """All of `needs` (QC, bytes) or nothing: the streams afterwards and the ranges in the order asked, or the shortage.

    The shortage named is the largest; among equals the first by name.
    """
    short = [Shortage(qc, n - streams[qc].available) for qc, n in needs if n > streams[qc].available]
    if short:
        return min(short, key=lambda s: (-s.short_bytes, s.qc))
    after = dict(streams)
    ranges = []
    for qc, n_bytes in needs:
        start = after[qc].first_free
        ranges.append(Range(qc, start, start + n_bytes))
        after[qc] = replace(after[qc], tail=start + n_bytes)
    return after, ranges


def oldest_promised_slot(newest_slot: int, ttl_slots: int) -> int:
    """The first slot whose bytes may still be promised when `newest_slot` is the current one.

    A fifth of the TTL later than what may still be used: the ends begin a slot at different moments, their reports
    take time to arrive, and the slave needs time to fetch what its master was given. A slot of life is the least.
    """
    return min(newest_slot, oldest_live_slot(newest_slot, ttl_slots) + max(1, ttl_slots // 5))


def spare_slots(ttl_slots: int) -> int:
    """Slots that bytes must still have to live when their first user takes them, so that the other end is in time.

    What was promised in good time has them; what the shared database gives out after it was away for a while, by
    reports of long ago, may not.
    """
    return min(1, ttl_slots // 10)


def oldest_live_slot(newest_slot: int, ttl_slots: int) -> int:
    """The first slot whose bytes may still be used when `newest_slot` is the current one.

    With a TTL of 15, a byte made in slot s is used in slots s to s + 14 and never later.
    """
    return newest_slot - ttl_slots + 1
