"""The last minutes of every QC, slot by slot, out of the totals that the nodes at its ends tell. PURE."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEPT_SLOTS = 180
# After so many slots without a word from the end that is listened to, the other end is.
_PATIENCE_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Totals:
    """What a node has of a QC: bytes stored now, and bytes generated, used and expired since the start."""

    slot: int
    stored: int
    generated: int
    used: int
    expired: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Totals:
        """Out of a member of `qcs` in a node's status."""
        names = ("stored_bytes", "generated_bytes", "used_bytes", "expired_bytes")
        return cls(document["slot"], *(document[name] for name in names))


@dataclass(frozen=True, slots=True)
class Sample:
    """A QC in a slot: bytes made, used and expired in it, and bytes stored at its end."""

    slot: int
    made: float
    used: float
    expired: float
    stored: int


class Curves:
    """Samples of all QCs. Of each, one end is listened to, because the two count at different moments."""

    def __init__(self) -> None:
        self._samples: dict[str, collections.deque[Sample]] = {}
        self._heard: dict[str, str] = {}
        self._last: dict[tuple[str, str], Totals] = {}

    def take(self, node: str, qc: str, totals: Totals) -> None:
        """A node's totals; nothing new in a slot that was heard of."""
        before = self._last.get((qc, node))
        if before is not None and totals.slot <= before.slot:
            return
        self._last[qc, node] = totals
        listened = self._heard.setdefault(qc, node)
        if node != listened:
            if totals.slot - self._last[qc, listened].slot <= _PATIENCE_SLOTS:
                return
            self._heard[qc] = node
        if before is not None:
            self._add(qc, _between(before, totals))

    def of(self, qc: str) -> tuple[Sample, ...]:
        """The samples of a QC, the oldest first."""
        return tuple(self._samples.get(qc, ()))

    def _add(self, qc: str, sample: Sample) -> None:
        samples = self._samples.setdefault(qc, collections.deque(maxlen=KEPT_SLOTS))
        if not samples or sample.slot > samples[-1].slot:
            samples.append(sample)


def _between(before: Totals, after: Totals) -> Sample:
    slots = after.slot - before.slot
    made, used, expired = (
        max(0, b - a) / slots
        for a, b in (
            (before.generated, after.generated), (before.used, after.used), (before.expired, after.expired),
        )
    )  # fmt: skip
    return Sample(after.slot, made, used, expired, after.stored)


def total(curves: Iterable[Sequence[Sample]]) -> tuple[Sample, ...]:
    """The sum of several QCs, over the slots of which all have a sample."""
    by_slot = [{s.slot: s for s in samples} for samples in curves]
    common = set.intersection(*(set(found) for found in by_slot)) if by_slot else set()
    return tuple(_sum(slot, [found[slot] for found in by_slot]) for slot in sorted(common))


def _sum(slot: int, samples: Sequence[Sample]) -> Sample:
    made, used, expired = (sum(getattr(s, name) for s in samples) for name in ("made", "used", "expired"))
    return Sample(slot, made, used, expired, sum(s.stored for s in samples))


def mean(values: list[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
