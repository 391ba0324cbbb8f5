"""PURE: what key sessions have declared to take of a QC, slot by slot, and whether there will be enough of it.

A key session takes key material at known times: its first key at once, then one every interval, until its declared end.
In modes that make keys ahead it takes more, less often. So the future of a QC can be played: bytes that were made in a
slot serve that slot and those after it, as many as key material may wait, and the oldest go first. If everybody finds
enough in a play with a supply that is a little less than what is measured, nobody goes short, but for chance. Sessions
without a declared end count as endless.

Who lets everybody in for whom there is room fills a QC with the first to come. Many that come later want little, and
one long session takes the place of several of them. So it is also remembered what sessions wanted, be they admitted or
not.

A slot lasts a second. Slots count from 0 when the clock of whoever keeps the agenda says 0.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

# Of what a QC made lately, so much is thought to come. What is made varies: by a tenth of it around the mean in the
# paper's network, less over all slots that can serve a request.
EXPECTED = Fraction(37, 40)
# An endless session is played for so many of its periods, or slots: then all comes again.
_PERIODS, _ENDLESS_SLOTS, _MOST_SLOTS = 4, 60, 3600
_STALE = 1024  # slots that are over, before they are forgotten
# What sessions wanted is remembered for so many slots, and counts as far as they would take it within as many.
WANTED_SLOTS = 60
_MOST_WANTED = 1024  # sessions that are remembered by QC


@dataclass(frozen=True, slots=True)
class Draw:
    """What a key session takes of a QC: `n_bytes` at `first_s`, then every `period_s`, and nothing from `end_s` on."""

    n_bytes: int
    period_s: float
    first_s: float = 0.0
    end_s: float = math.inf

    @property
    def horizon_slots(self) -> int:
        """How many slots show all that it does."""
        last = self.end_s if self.end_s < math.inf else self.first_s + max(_PERIODS * self.period_s, _ENDLESS_SLOTS)
        return min(_MOST_SLOTS, math.ceil(last))

    def by_slot(self, slots: int) -> list[int]:
        """Bytes in each slot from 0 on."""
        found = [0] * slots
        for slot in self.slots(0.0, slots):
            found[slot] += self.n_bytes
        return found

    def within(self, slots: int) -> int:
        """Bytes in all slots before that one."""
        return self.n_bytes * sum(1 for _ in self.slots(0.0, slots))

    def slots(self, since_s: float, before: int) -> Iterator[int]:
        """The slots, in order, in which it takes its bytes at `since_s` or later, and before the slot `before`."""
        for number in itertools.count(max(0, math.ceil((since_s - self.first_s) / self.period_s))):
            at_s = self.first_s + number * self.period_s
            if at_s >= self.end_s or at_s >= before:
                return
            yield math.floor(at_s)


class Agenda:
    """What key sessions have declared to take of one QC."""

    def __init__(self) -> None:
        self._ending: Counter[int] = Counter()  # bytes by slot
        # Of endless sessions: bytes by period and first time in it; where periods are whole slots, by first slot.
        self._endless: Counter[tuple[float, float]] = Counter()

    @property
    def endless_per_slot(self) -> float:
        """Bytes a slot that sessions without an end take on average."""
        return sum(n_bytes / period_s for (period_s, _), n_bytes in self._endless.items())

    def add(self, draw: Draw, now_s: float) -> None:
        """A session takes that from now on."""
        self._change(draw, now_s, draw.n_bytes)

    def remove(self, draw: Draw, now_s: float) -> None:
        """It no longer does."""
        self._change(draw, now_s, -draw.n_bytes)

    def planned(self, first: int, slots: int) -> list[int]:
        """Bytes in slot `first` and those after it."""
        found = [self._ending[slot] for slot in range(first, first + slots)]
        for (period_s, phase_s), n_bytes in self._endless.items():
            start_s = phase_s + period_s * math.floor((first - phase_s) / period_s)
            for slot in Draw(n_bytes, period_s, start_s).slots(first, first + slots):
                found[slot - first] += n_bytes
        return found

    def _change(self, draw: Draw, now_s: float, n_bytes: int) -> None:
        if draw.end_s == math.inf:
            phase_s = draw.first_s % draw.period_s
            key = draw.period_s, float(math.floor(phase_s)) if draw.period_s.is_integer() else phase_s
            self._endless[key] += n_bytes
            if not self._endless[key]:
                del self._endless[key]
            return
        for slot in draw.slots(now_s, math.ceil(draw.end_s)):
            self._ending[slot] += n_bytes
        if len(self._ending) > _STALE:
            self._ending = Counter({s: n for s, n in self._ending.items() if n and s >= math.floor(now_s)})


class Wanted:
    """What sessions wanted to take of QCs lately, on the paths that were best for them."""

    def __init__(self) -> None:
        self._by_qc: dict[str, deque[tuple[float, int]]] = {}
        self._since_s: float | None = None

    def add(self, qcs: Sequence[str], draws: Sequence[Draw], now_s: float) -> None:
        """A session wants that, in seconds after the beginning of the present slot."""
        self._since_s = now_s if self._since_s is None else self._since_s
        for qc, draw in zip(qcs, draws, strict=True):
            self._lately(qc, now_s).append((now_s, draw.within(WANTED_SLOTS)))

    def of(self, qc: str, now_s: float) -> tuple[Sequence[int], float]:
        """Bytes that each session of the last slots wants of a QC; and of how many slots that is known, at least 1."""
        known_s = 0.0 if self._since_s is None else now_s - self._since_s
        return [n_bytes for _, n_bytes in self._lately(qc, now_s)], min(float(WANTED_SLOTS), max(1.0, known_s))

    def _lately(self, qc: str, now_s: float) -> deque[tuple[float, int]]:
        wanted = self._by_qc.setdefault(qc, deque(maxlen=_MOST_WANTED))
        while wanted and wanted[0][0] < now_s - WANTED_SLOTS:
            wanted.popleft()
        return wanted


def most_of_one(wanted: Sequence[int], room: float) -> int | None:
    """How much one may take, so that there is room for all that take less; None if there is for all.

    `wanted`: bytes by session; `room`: bytes.
    """
    for n_bytes, together in zip(found := sorted(wanted), itertools.accumulate(found), strict=True):
        if together > room:
            return n_bytes
    return None


def supply(by_slot: Sequence[int], stored_bytes: int, *, waits_slots: int, slots: int) -> list[int]:
    """Bytes by the slot in which they are made: what is left of the last `waits_slots` slots, then what is expected.

    `by_slot`: what was made in each of the last slots, up to the present one. What is stored are the youngest of these
    bytes, as the oldest are used first.
    """
    left, lately = stored_bytes, list(by_slot[-waits_slots:])
    kept = []
    for made in reversed(lately):
        kept.append(min(made, left))
        left -= kept[-1]
    kept += [0] * (waits_slots - len(kept))
    return kept[::-1] + [expected_per_slot(by_slot)] * (slots - 1)


def expected_per_slot(by_slot: Sequence[int]) -> int:
    """Bytes that are thought to be made in a slot, after what was made in each of the last ones."""
    return math.floor(EXPECTED * sum(by_slot) / len(by_slot)) if by_slot else 0


def first_shortage(made: Sequence[int], wanted: Sequence[int], waits_slots: int) -> tuple[int, int] | None:
    """The first slot in which less is there than is wanted, and how many bytes are missing; None if there is none.

    `wanted`: bytes in the present slot and those after it. `made`: bytes by slot, beginning with the oldest that serve
    the present slot. Those made in a slot serve it and the ones after it, `waits_slots` slots in all; the oldest go
    first.
    """
    left, oldest = list(made), 0
    for slot, missing in enumerate(wanted):
        oldest = max(oldest, slot)
        while missing > 0:
            if oldest == slot + waits_slots:
                return slot, missing
            taken = min(left[oldest], missing)
            left[oldest] -= taken
            missing -= taken  # noqa: PLW2901 - what is left of it
            if not left[oldest]:
                oldest += 1
    return None
