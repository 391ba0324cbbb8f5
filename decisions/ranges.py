"""PURE: which bytes of a QC's stream may be handed out. The shared database decides by the same rule (shared_db.sql).

A QC's output is one byte stream that both ends hold, from one start of the device to the next: an epoch. Per epoch
there is a head (both ends hold the same before it, from the floor on), a floor (the first byte that neither end has
given up) and a tail (the next free byte). An allocation of n bytes takes [max(tail, floor), max(tail, floor) + n) of
the epoch that both ends report as current, if that does not pass the head, and moves the tail to its end. The tail of
an epoch only ever grows, so that no byte is allocated twice.

The ends say what they hold block by block, each with a digest under a key that only they share. The head moves over a
block when both have said the same of it. If a later block agrees and an earlier one does not, because it is missing at
one end or differs, the floor moves behind that one. Where blocks of the two ends differ, both ends are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

# How many blocks of a QC a report names: what is more waits for the next one. The shared database takes no more.
MOST_MARKS = 512
# The newest bytes of a QC's stream that a node keeps, whatever the TTL: at 10 Mbit/s what comes in 3.5 minutes. What is
# older than that goes as if it were too old.
STOCK_BYTES = 256 << 20


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

    `age_s`: how old it was when the shared database answered, in seconds of that database's clock.
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
    age_s: float = 0.0
    server: str = ""  # that said so, as in Allocation


@dataclass(frozen=True, slots=True)
class Allocation:
    """Ranges on the QCs of a path that the shared database gave for a request.

    `server`: which server of the database it was; they count for nothing once a node follows another one. `proofs`: for
    each later node of a path of several hops, see node/relaying/ciphers.py.
    """

    request: str
    server: str
    ranges: Sequence[Range]
    proofs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A block as one end has it: bytes [start, end) of the epoch, and their digest."""

    start: int
    end: int
    digest: bytes

    def differs(self, other: Mark) -> bool:
        """Whether they are of the same place and do not agree."""
        return self != other and self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class Claim:
    """What an end of a QC says that it holds: its current epoch from `floor` on, and its blocks that end after `after`.

    What ends before, it thinks, the shared database knows. What it said of later ones before counts no more.
    """

    qc: str
    epoch: int
    floor: int
    after: int = 0
    marks: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the shared database says to a claim: up to where it knows what is held, and which blocks the other end has
    others in the place of.
    """

    known: int
    differing: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class End:
    """What one end of a QC said last of its current epoch; marks that were compared with all of the other end's.

    Those in `differing` are another block at the other end.
    """

    epoch: int = 0
    floor: int = 0
    marks: frozenset[Mark] = frozenset()
    differing: frozenset[Mark] = frozenset()


@dataclass(frozen=True, slots=True)
class Stream:
    """One QC in the shared database: what its ends said, and of the epoch that was the last to be current at both the
    bytes [floor, head) on which they agree.

    `tails` has the next free byte of each epoch.
    """

    a: End = End()
    b: End = End()
    epoch: int = 0
    floor: int = 0
    head: int = 0
    tails: Mapping[int, int] = field(default_factory=dict)

    @property
    def first_free(self) -> int:
        """Where the next allocation starts."""
        return max(self.tails.get(self.epoch, 0), self.floor, self.a.floor, self.b.floor)

    @property
    def available(self) -> int:
        """Bytes that can be allocated now."""
        return max(0, self.head - self.first_free) if self.a.epoch == self.b.epoch == self.epoch else 0

    def known(self, end: End) -> int:
        """Up to where that end, one of the two, need not say again what it holds."""
        return max([self._settled(end), *(mark.end for mark in end.marks | end.differing)])

    def _settled(self, end: End) -> int:
        """Up to where nothing that this end holds can be allocated to anybody new, or all is agreed already."""
        return max(self.floor, self.head, self.a.floor, self.b.floor) if self.a.epoch == self.b.epoch else end.floor

    def reported(self, claim: Claim, *, by_a: bool) -> Stream:
        """The stream after what one end says. If the database lacks more than it says, its marks count for nothing."""
        own, other = (self.a, self.b) if by_a else (self.b, self.a)
        own = own if own.epoch == claim.epoch else End(claim.epoch)
        still = frozenset(mark for mark in own.marks if mark.end <= claim.after or mark in claim.marks)
        own = replace(own, floor=claim.floor, marks=still)
        now = self._with(own, other, by_a=by_a)
        if own.epoch == other.epoch != self.epoch:
            now = replace(now, epoch=own.epoch, floor=0, head=0)
        new: set[Mark] = set()
        if claim.after <= now.known(own):
            said = {mark.start for mark in own.marks | own.differing}
            new = {mark for mark in claim.marks if mark.end > now._settled(own) and mark.start not in said}
        if own.epoch == other.epoch:
            return now._compared(own, other, new, by_a=by_a)
        kept = frozenset(mark for mark in own.marks | new if mark.end > own.floor)
        return now._with(replace(own, marks=kept), other, by_a=by_a)

    def _compared(self, own: End, other: End, new: set[Mark], *, by_a: bool) -> Stream:
        """The stream with `new` marks of one end, in an epoch that is current at both."""
        bad = {mark for mark in new if any(mark.differs(their) for their in other.marks | other.differing)}
        bad_there = {their for their in other.marks if any(mark.differs(their) for mark in new)}
        floor, head = self.floor, self.head
        for mark in sorted((new - bad) & (other.marks - bad_there)):
            if mark.start >= head:
                floor, head = (floor if mark.start == head else mark.start), mark.end
        now = replace(self, floor=floor, head=head)

        def end(said: End, marks: frozenset[Mark], differing: frozenset[Mark]) -> End:
            kept = frozenset(mark for mark in marks - differing if mark.end > now._settled(said))
            return replace(said, marks=kept, differing=frozenset(mark for mark in differing if mark.end > said.floor))

        own = end(own, own.marks | new, own.differing | bad)
        return now._with(own, end(other, other.marks, other.differing | bad_there), by_a=by_a)

    def _with(self, own: End, other: End, *, by_a: bool) -> Stream:
        return replace(self, a=own, b=other) if by_a else replace(self, a=other, b=own)

    def take(self, qc: str, n_bytes: int) -> tuple[Stream, Range]:
        """The next `n_bytes`, which must be available, and the stream without them."""
        taken = Range(qc, self.first_free, self.first_free + n_bytes, self.epoch)
        return replace(self, tails={**self.tails, self.epoch: taken.end}), taken


@dataclass(frozen=True, slots=True)
class Shortage:
    """The tightest QC of a request and how many bytes it lacked.

    `in_doubt`: it was asked for twice, since no answer came, and what was asked first may be granted yet.
    """

    qc: str
    short_bytes: int
    in_doubt: bool = False


class Source(Protocol):
    """A QC's bytes, as far as it matters to an allocation: a `Stream`, or what stands for one in virtual time."""

    @property
    def available(self) -> int:
        """Bytes that can be allocated now."""

    def take(self: AnySource, qc: str, n_bytes: int) -> tuple[AnySource, Range]:
        """The next `n_bytes`, which are available, and the source without them."""


AnySource = TypeVar("AnySource", bound=Source)


def allocate(
    sources: Mapping[str, AnySource], needs: Sequence[tuple[str, int]]
) -> tuple[dict[str, AnySource], list[Range]] | Shortage:
    """All of `needs` (QC, bytes), each of another QC, or nothing: those sources afterwards and the ranges, in the order
    asked; or the shortage.

    The shortage named is the largest; among equals the first by name.
    """
    short = [Shortage(qc, n - sources[qc].available) for qc, n in needs if n > sources[qc].available]
    if short:
        return min(short, key=lambda s: (-s.short_bytes, s.qc))
    after, ranges = {}, []
    for qc, n_bytes in needs:
        after[qc], taken = sources[qc].take(qc, n_bytes)
        ranges.append(taken)
    return after, ranges


def promised_slots(ttl_slots: int) -> float:
    """For how many slots from their making bytes, or keys that wait for their master, are promised to somebody new.

    A fifth of the TTL is kept back, but a slot at least, as QCs go by slots; of a single slot a half. It is shared by
    what takes its time behind the promise, see `spare_slots`.
    """
    return ttl_slots - min(ttl_slots / 2, max(1.0, ttl_slots / 5))


def promised_bytes(stock_bytes: int = STOCK_BYTES) -> int:
    """How many of a stream's newest bytes are promised to somebody new, where so many are kept.

    A fifth is kept back, so that what was allocated before is still there when it is taken.
    """
    return stock_bytes - stock_bytes // 5


def spare_slots(ttl_slots: int) -> float:
    """Slots that bytes must still have to live when their first user takes them, so that the other end is in time.

    A third of what is kept back. Another is for the shared database, which promises by what the ends said last: they
    say it as often. The last is for the slave's node, which asks as often for what its slaves have not asked for.
    """
    return (ttl_slots - promised_slots(ttl_slots)) / 3
