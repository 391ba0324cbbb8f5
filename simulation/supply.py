"""What QCs make in virtual time, as it is asked for: nothing is done for a QC that nobody asks."""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from scenario.quantum.qc_models import USUAL_QBER, Model, Whole, left_under_eve, may_pause, source


class Supply(Protocol):
    """The bytes of a QC: `heads[n]` are all of its first n blocks."""

    heads: array[int]
    pauses: bool  # some blocks may be empty

    def made(self, at_s: float) -> int:
        """How many blocks there were at that time; `heads` reaches as far."""

    def made_s(self, block: int) -> float:
        """When that block was made; they count from 0."""


class EachSlot:
    """A QC that makes a block at the beginning of each slot of 1 s.

    `warm_slots`: how long the QC has been making key material when time begins. `pauses`: some blocks may be empty.
    """

    def __init__(self, warm_slots: int, *, pauses: bool) -> None:
        self.pauses = pauses
        self.heads = array("q", [0])
        self._warm = warm_slots
        self._on = True
        self._eve = 0.0

    def blocks(self, at_s: float) -> int:
        """How many blocks there were at that time."""
        return max(0, math.floor(at_s) + 1 + self._warm)

    def made_s(self, block: int) -> float:
        """When that block was made; they count from 0."""
        return float(block - self._warm)

    def made(self, at_s: float) -> int:
        """How many blocks there were at that time; `heads` reaches as far."""
        raise NotImplementedError

    def switch(self, at_s: float, *, on: bool, eve: float = 0.0) -> None:
        """From the slot after that time on, make something, or nothing, of pulses of which that part is intercepted."""
        self.made(at_s)
        self._on, self._eve = on, eve


class Uniform(EachSlot):
    """Between `low` and `high` bytes a slot, both included and all alike. The same `seed` gives the same bytes."""

    def __init__(self, low: int, high: int, seed: str, warm_slots: int) -> None:
        super().__init__(warm_slots, pauses=not low)
        self._draw = random.Random(seed).random  # noqa: S311 - how many bytes, no key
        self._low, self._width = low, high - low + 1
        self._whole = Whole()

    def made(self, at_s: float) -> int:
        number = self.blocks(at_s)
        head = self.heads[-1]
        left = left_under_eve(USUAL_QBER, self._eve) if self._eve else 1.0
        for _ in range(len(self.heads), number + 1):
            if self._on:
                n_bytes = self._low + int(self._draw() * self._width)
                head += n_bytes if left == 1.0 else self._whole.bytes_of(8 * n_bytes * left)
            self.heads.append(head)
        return number


class Modelled(EachSlot):
    """What a model brings, which goes on whether photons arrive or not. The same `seed` gives the same bytes."""

    def __init__(self, model: Model, seed: str, warm_slots: int) -> None:
        super().__init__(warm_slots, pauses=may_pause(model))
        self._source = source(model, random.Random(seed))  # noqa: S311 - how many bytes, no key

    def made(self, at_s: float) -> int:
        number = self.blocks(at_s)
        for slot in range(len(self.heads), number + 1):
            n_bytes = self._source.make(slot, self._eve).n_bytes
            self.heads.append(self.heads[-1] + (n_bytes if self._on else 0))
        return number


class Recorded:
    """Blocks that a QC of a real network made: when, and how many bytes each had."""

    def __init__(self, made_s: Sequence[float], n_bytes: Sequence[int]) -> None:
        self.heads = array("q", [0])
        for number in n_bytes:
            self.heads.append(self.heads[-1] + number)
        self._made_s = list(made_s)
        self.pauses = not all(n_bytes)

    def later(self, by_s: float) -> Recorded:
        """The same, so much later."""
        n_bytes = [self.heads[n + 1] - self.heads[n] for n in range(len(self._made_s))]
        return Recorded([at_s + by_s for at_s in self._made_s], n_bytes)

    def nearest_s(self, at_s: float) -> float:
        """How far from that time the nearest block was made; infinite if none was."""
        place = bisect_right(self._made_s, at_s)
        return min((abs(at_s - made_s) for made_s in self._made_s[max(0, place - 1) : place + 1]), default=math.inf)

    def made(self, at_s: float) -> int:
        """How many blocks there were at that time."""
        return bisect_right(self._made_s, at_s)

    def made_s(self, block: int) -> float:
        """When that block was made; they count from 0."""
        return self._made_s[block]
