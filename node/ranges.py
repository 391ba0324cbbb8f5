"""PURE: which bytes of a QC's stream may be handed out. The shared database decides by the same rule (shared_db.sql).

A QC's output is one byte stream that both ends hold, from one start of the device to the next: an epoch. Per epoch
there is a head (both ends hold everything before it), a floor (the first byte that neither end has given up) and a
tail (the next free byte). An allocation of n bytes takes [max(tail, floor), max(tail, floor) + n) of the epoch that
both ends report as current, if that does not pass the head, and moves the tail to its end. The tail of an epoch only
ever grows, so that no byte is allocated twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [start, end) of the stream of `qc`, as offsets from the first byte of the epoch."""

    qc: str
    start: int
    end: int
    epoch: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"no range: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start

    def split(self, n_bytes: int) -> tuple[Range, Range]:
        """The first `n_bytes` and the rest."""
        middle = self.start + n_bytes
        return replace(self, end=middle), replace(self, start=middle)


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
    """One QC in the shared database: what each end holds of its current epoch, [floor, head), and the next free byte.

    `tails` has that byte of each epoch that was current at both ends at the same time.
    """

    head_a: int = 0
    head_b: int = 0
    floor_a: int = 0
    floor_b: int = 0
    epoch_a: int = 0
    epoch_b: int = 0
    tails: Mapping[int, int] = field(default_factory=dict)

    @property
    def head(self) -> int:
        """Both ends hold everything before it (from the floor on)."""
        return min(self.head_a, self.head_b)

    @property
    def first_free(self) -> int:
        """Where the next allocation starts."""
        return max(self.tails.get(self.epoch_a, 0), self.floor_a, self.floor_b)

    @property
    def available(self) -> int:
        """Bytes that can be allocated now."""
        return max(0, self.head - self.first_free) if self.epoch_a == self.epoch_b else 0

    def reported(self, *, by_a: bool, epoch: int, head: int, floor: int) -> Stream:
        """The stream after a report of one end; within an epoch heads and floors only grow."""
        before = (self.epoch_a, self.head_a, self.floor_a) if by_a else (self.epoch_b, self.head_b, self.floor_b)
        if epoch == before[0]:
            head, floor = max(head, before[1]), max(floor, before[2])
        if by_a:
            return replace(self, epoch_a=epoch, head_a=head, floor_a=floor)
        return replace(self, epoch_b=epoch, head_b=head, floor_b=floor)

    def take(self, qc: str, n_bytes: int) -> tuple[Stream, Range]:
        """The next `n_bytes`, which must be available, and the stream without them."""
        taken = Range(qc, self.first_free, self.first_free + n_bytes, self.epoch_a)
        return replace(self, tails={**self.tails, self.epoch_a: taken.end}), taken


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
        after[qc], taken = after[qc].take(qc, n_bytes)
        ranges.append(taken)
    return after, ranges


def promised_slots(ttl_slots: int) -> int:
    """How many slots bytes may be old and still be promised; with a TTL of 15, those made in slot s in s to s + 11.

    A fifth of the TTL, and a slot at least, is kept back: the ends begin a slot at different moments, their reports
    take time to arrive, and the slave needs time to fetch what its master was given. Bytes of the slot that runs are
    promised whatever the TTL is.
    """
    return max(1, ttl_slots - max(1, ttl_slots // 5))


def spare_slots(ttl_slots: int) -> int:
    """Slots that bytes must still have to live when their first user takes them, so that the other end is in time.

    What was promised in good time has them; what the shared database gives out after it was away for a while, by
    reports of long ago, may not.
    """
    return min(1, ttl_slots // 10)
