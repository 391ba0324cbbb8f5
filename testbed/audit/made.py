"""What the QCs of a run made, by the journal of their emulators: the measure of all that nodes say of their streams."""

from __future__ import annotations

import bisect
import collections
import itertools
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from testbed.audit.evidence import Event, Meant, fact, rows_of
from testbed.audit.lives import Lives, Word

Stream = tuple[str, int]  # a QC, and the epoch of its device
Span = tuple[int, int]  # bytes [start, end) of a stream

_WHERE = "the QC emulators"


class _Waiting(NamedTuple):
    """The first block that may not have come to the end at that node any more when the device was stopped."""

    qc: str
    epoch: int
    end: str
    sequence: int


@dataclass(slots=True)
class Made:
    """The blocks of an epoch in their order: sequence number, first byte, time of making (CLOCK_BOOTTIME, s).

    `lost`: the bytes of the blocks that were given up for the end at that node, in order. `waiting`, if the device was
    stopped in peace: the first block, by node, that may not have come there any more; else `ended`, when it lost its
    memory (monotonic clock, s).
    """

    sequences: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    end: int = 0
    slot: int = -1
    lost: dict[str, list[Span]] = field(default_factory=lambda: collections.defaultdict(list))
    waiting: Mapping[str, int] | None = None
    ended: float = math.inf

    def made_at(self, byte: int) -> float:
        """When the block of `byte` was made."""
        return self.times[max(0, bisect.bisect_right(self.starts, byte) - 1)]

    def span(self, sequence: int) -> Span | None:
        """The bytes of a block; None of one that never was."""
        at = bisect.bisect_left(self.sequences, sequence)
        if at == len(self.sequences) or self.sequences[at] != sequence:
            return None
        return self.starts[at], self.starts[at + 1] if at + 1 < len(self.starts) else self.end

    def came(self, node: str, start: int, end: int) -> bool:
        """Whether none of these bytes was given up for the end at `node`."""
        lost = self.lost.get(node, [])
        at = bisect.bisect_left(lost, (end, 0))
        return at == 0 or lost[at - 1][1] <= start

    def came_before(self, node: str, head: int) -> int:
        """How many bytes before `head` must have come to the end at `node`."""
        return head - sum(end - start for start, end in self.lost.get(node, ()) if end <= head)

    def begins_or_ends(self, byte: int) -> bool:
        """Whether a block begins or ends at `byte`."""
        at = bisect.bisect_left(self.starts, byte)
        return byte == self.end or (at < len(self.starts) and self.starts[at] == byte)

    @property
    def longest(self) -> int:
        """The length of the longest block, in bytes."""
        return max(end - start for start, end in itertools.pairwise([*self.starts, self.end]))

    def after(self, node: str, head: int) -> list[int]:
        """The numbers of the blocks with bytes from `head` on that were not given up for the end at `node`."""
        first = bisect.bisect_left(self.starts, head)
        bounds = itertools.pairwise([*self.starts[first:], self.end])
        lost = set(self.lost.get(node, ()))
        return [
            sequence for sequence, span in zip(self.sequences[first:], bounds, strict=True)
            if span[1] > span[0] and span not in lost
        ]  # fmt: skip


class Qcs:
    """Everything that the journal tells; `findings`: where it contradicts itself. Unreadable."""

    def __init__(self, meant: Meant, events: Iterable[Event] | None, word: Word) -> None:
        self.made: dict[Stream, Made] = {}
        self.findings: list[str] = []
        self._meant = meant
        self._newest: dict[str, int] = {}  # epoch of each QC
        self._mono, self._boot = array("d"), array("d")  # the same moments by two clocks
        self._since: set[Stream] = set()  # the devices were started
        if events is None:
            self.findings.append("the journal of the QC emulators is missing")
        lives = Lives(_WHERE, word)
        readers = {"block": self._block, "block_lost": self._block_lost, "stopped": self._stopped}
        for event in lives.read(events or ()):
            if event["event"] == "started":
                self._since.clear()
            elif event["event"] in readers:
                readers[event["event"]](event)
        self.findings += lives.findings
        for made in self.made.values():
            if made.waiting is None:
                made.ended = lives.end_of(self.mono_time(made.times[-1]))

    def same_moment(self, mono: float, boot: float) -> None:
        """A moment by both clocks."""
        at = bisect.bisect_right(self._mono, mono)
        self._mono.insert(at, mono)
        self._boot.insert(at, boot)

    def silent(self) -> list[str]:
        """A finding for each QC of which nobody tells that it made anything."""
        told = {qc for qc, _ in self.made}
        return [f"QC {qc}: the journal has no block of it" for qc in sorted(self._meant.qcs.keys() - told)]

    def boot_time(self, mono: float) -> float:
        """A moment of the monotonic clock in seconds of CLOCK_BOOTTIME, which goes on in a suspended machine."""
        return _converted(mono, self._mono, self._boot)

    def mono_time(self, boot: float) -> float:
        """The other way round."""
        return _converted(boot, self._boot, self._mono)

    def _block(self, event: Event) -> None:
        qc, epoch = _fact(event, "qc", str), _fact(event, "epoch", int)
        sequence, slot, offset = (_fact(event, name, int) for name in ("sequence", "slot", "offset"))
        n_bytes, at = _fact(event, "n_bytes", int), _fact(event, "made", float)
        if qc not in self._meant.qcs:
            self.findings.append(f"QC {qc}: the network has none, but the journal tells of its block {sequence}")
        made = self.made.setdefault((qc, epoch), Made())
        if self._newest.get(qc, epoch) != epoch and made.sequences:
            self.findings.append(f"QC {qc}: block {sequence} is of epoch {epoch}, after which another has begun")
        if made.sequences and (qc, epoch) not in self._since:
            self.findings.append(f"QC {qc}: block {sequence} is of epoch {epoch}, which ended with its device's memory")
        self._newest[qc] = epoch
        self._since.add((qc, epoch))
        expected = made.sequences[-1] + 1 if made.sequences else 0
        if sequence != expected:
            self.findings.append(f"QC {qc}: the journal tells of block {sequence} where block {expected} must be")
        elif offset != made.end:
            self.findings.append(f"QC {qc}: block {sequence} begins at byte {offset}, where it must at {made.end}")
        if slot <= made.slot or (made.times and at < made.times[-1]):
            self.findings.append(f"QC {qc}: block {sequence} was made before the one that it follows")
        made.sequences.append(sequence)
        made.starts.append(offset)
        made.times.append(at)
        made.end, made.slot = offset + n_bytes, slot
        self._mono.append(_fact(event, "mono", float))
        self._boot.append(at)

    def _block_lost(self, event: Event) -> None:
        qc, node, sequence = _fact(event, "qc", str), _fact(event, "end", str), _fact(event, "sequence", int)
        made = self.made.get((qc, _fact(event, "epoch", int)))
        span = made.span(sequence) if made else None
        ends = self._meant.qcs[qc][:2] if qc in self._meant.qcs else ()
        if made is None or span is None or node not in ends:
            self.findings.append(f"QC {qc}: block {sequence} was given up for {node}, for which it was never made")
        elif made.lost[node] and span <= made.lost[node][-1]:
            self.findings.append(f"QC {qc}: block {sequence} was given up for {node} twice, or out of order")
        elif span[1] > span[0]:
            made.lost[node].append(span)

    def _stopped(self, event: Event) -> None:
        waiting: dict[Stream, dict[str, int]] = collections.defaultdict(dict)
        for row in rows_of(event, "waiting", _Waiting, _WHERE):
            waiting[row.qc, row.epoch][row.end] = row.sequence
        for stream in self._since | waiting.keys():
            if stream in self._since:
                self.made[stream].waiting = waiting[stream]
            else:  # since the device has its memory
                self.findings.append(f"QC {stream[0]}: blocks of epoch {stream[1]} wait, and none was made")


def _converted(at: float, given: array[float], wanted: array[float]) -> float:
    """A moment of one clock as one of the other, by the last moment before it of which both are known."""
    if not given:
        return at
    i = max(0, bisect.bisect_right(given, at) - 1)
    return wanted[i] + at - given[i]


def _fact(event: Event, name: str, kind: type) -> Any:
    return fact(event, name, kind, _WHERE)
