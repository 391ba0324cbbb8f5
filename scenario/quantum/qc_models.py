"""What a QC makes, slot by slot: models as values, and sources that follow them. PURE; the same in both engines.

A source is asked for one slot after the other and answers with bytes and a QBER. The same seed gives the same answers.
How many bytes there are is no secret; which ones, is not decided here.
"""

from __future__ import annotations

import bisect
import functools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from scenario.quantum import decoy_bb84
from scenario.quantum.decoy_bb84 import MOST_QBER, Device

DAY_S = 86_400.0
USUAL_QBER = 0.02
SPREADS = 3  # standard deviations that a normal quantity hardly ever exceeds


@dataclass(frozen=True, slots=True)
class Made:
    """What a slot brought: bytes of key, and the QBER of what they were distilled from; None if nothing was."""

    n_bytes: int
    qber: float | None


NOTHING = Made(0, None)


@dataclass(frozen=True, slots=True)
class Uniform:
    """From `low` to `high` bytes a slot, both included and all alike, as in the paper."""

    low: int
    high: int
    qber: float = USUAL_QBER

    @property
    def mean_bytes_per_s(self) -> float:
        """What it makes in the mean."""
        return (self.low + self.high) / 2

    @property
    def longest_wait_s(self) -> float:
        """How long it may bring nothing."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Drift:
    """How a rate wanders: by a normal share `spread` that lasts for `memory_s`, and by `daily` up and down in a day."""

    spread: float = 0.0
    memory_s: float = 600.0
    daily: float = 0.0


@dataclass(frozen=True, slots=True)
class DecoyBb84:
    """The rate and the QBER that `device` has over a fibre of that loss, dB."""

    device: Device
    loss_db: float
    drift: Drift = Drift()

    @property
    def mean_bytes_per_s(self) -> float:
        """What it makes in the mean."""
        return decoy_bb84.rate_bps(self.device, self.loss_db) / 8

    @property
    def longest_wait_s(self) -> float:
        """How long it may bring nothing: at a slow rate a byte takes its time."""
        return max(1.0, 1 / self.mean_bytes_per_s) if self.mean_bytes_per_s else math.inf


@dataclass(frozen=True, slots=True)
class Blocks:
    """`block_bytes` at a time, every `every_s` seconds, give or take a normal `jitter_s`: raw key is distilled when
    there is enough of it."""

    block_bytes: int
    every_s: float
    jitter_s: float = 0.0
    qber: float = USUAL_QBER

    @property
    def mean_bytes_per_s(self) -> float:
        """What it makes in the mean."""
        return self.block_bytes / self.every_s

    @property
    def longest_wait_s(self) -> float:
        """How long it may bring nothing; hardly ever longer."""
        return self.every_s + SPREADS * self.jitter_s


@dataclass(frozen=True, slots=True)
class Trace:
    """What a device made: `bits` between one moment of `times_s` and the next, the first of which follows 0.

    When it is over it begins anew, or, if `once`, makes nothing more.
    """

    times_s: Sequence[float]
    bits: Sequence[float]
    qber: Sequence[float]
    once: bool = False

    @property
    def mean_bytes_per_s(self) -> float:
        """What it makes in the mean, while it lasts."""
        return sum(self.bits) / 8 / self.times_s[-1]

    @property
    def longest_wait_s(self) -> float:
        """How long it may bring nothing."""
        longest = waited = 0.0
        for begins, ends, bits in zip([0.0, *self.times_s], self.times_s, self.bits, strict=False):
            waited = 0.0 if bits else waited + ends - begins
            longest = max(longest, waited)
        return longest + 1.0


Model = Uniform | DecoyBb84 | Blocks | Trace


def may_pause(model: Model) -> bool:
    """Whether there may be slots in which it brings nothing, with nobody in its way."""
    match model:
        case Uniform():
            return model.low == 0
        case DecoyBb84():
            return model.longest_wait_s > 1.0 or model.drift != Drift()
        case _:
            return True


class Source(Protocol):
    """A QC at work."""

    def make(self, slot: int, eve: float = 0.0) -> Made:
        """What comes at the end of that slot of 1 s; slots count from 1 and none is left out.

        `eve`: the part of the pulses that an eavesdropper intercepts and sends again.
        """


UNIFORM, DECOY, BLOCKS, TRACE = MODELS = ("uniform", "decoy_bb84", "blocks", "trace")
_BY_NAME: Mapping[str, type[Model]] = {UNIFORM: Uniform, DECOY: DecoyBb84, BLOCKS: Blocks, TRACE: Trace}


def to_json(model: Model) -> dict[str, Any]:
    """The document that `from_json` reads."""
    return {"model": next(n for n, kind in _BY_NAME.items() if isinstance(model, kind)), **asdict(model)}


def from_json(document: Mapping[str, Any]) -> Model:
    """The model that a document of `to_json` describes. KeyError, TypeError for another document."""
    given = dict(document)
    kind = _BY_NAME[given.pop("model")]
    if kind is DecoyBb84:
        given |= {"device": Device(**given["device"]), "drift": Drift(**given["drift"])}
    return kind(**given)


def source(model: Model, chance: random.Random) -> Source:
    """A source that follows the model, and takes its random numbers from `chance`."""
    match model:
        case Uniform():
            return _Uniform(model, chance)
        case DecoyBb84():
            return _Decoy(model, chance)
        case Blocks():
            return _Blocks(model, chance)
        case Trace():
            return _Trace(model)


def under_eve(qber: float, eve: float) -> float:
    """The QBER of a device of which no more is known than its usual one, while somebody intercepts that part.

    Of what is intercepted a quarter is wrong that was right, and a quarter is right that was wrong.
    """
    return qber + eve * (0.25 - 0.5 * qber)


def left_under_eve(qber: float, eve: float) -> float:
    """The part of its rate that such a device keeps: as the secret part of a sifted bit falls, 1 - 2 H2(QBER)."""
    now = under_eve(qber, eve)
    if now > MOST_QBER:
        return 0.0
    before = 1 - 2 * decoy_bb84.entropy(qber)
    return max(0.0, (1 - 2 * decoy_bb84.entropy(now)) / before) if before > 0 else 0.0


def in_a_row(eves: Iterable[float]) -> float:
    """What several eavesdroppers come to, of whom each intercepts that part; 0 for none, 1 at most.

    Each leaves 1 - eve / 2 of what 1 - 2 QBER was, so it is the product of these that counts.
    """
    return min(1.0, functools.reduce(lambda one, other: one + other - one * other / 2, eves, 0.0))


def intercepted(model: Model, eve: float) -> tuple[float, float]:
    """What a QC makes in the mean while somebody intercepts that part of the pulses, bytes/s, and its QBER."""
    match model:
        case DecoyBb84():
            device = decoy_bb84.intercepted(model.device, eve)
            return decoy_bb84.rate_bps(device, model.loss_db) / 8, decoy_bb84.qber(device, model.loss_db)
        case Trace():
            bits = sum(n * left_under_eve(qber, eve) for n, qber in zip(model.bits, model.qber, strict=True))
            errors = sum(n * under_eve(qber, eve) for n, qber in zip(model.bits, model.qber, strict=True))
            return bits / 8 / model.times_s[-1], errors / (sum(model.bits) or 1.0)
        case _:
            return model.mean_bytes_per_s * left_under_eve(model.qber, eve), under_eve(model.qber, eve)


class Whole:
    """Bits that come by and by, given out as whole bytes; what is left stays for the next time."""

    def __init__(self) -> None:
        self._bits = 0.0

    def bytes_of(self, bits: float) -> int:
        self._bits += bits
        whole = int(self._bits // 8)
        self._bits -= 8 * whole
        return whole


class _Uniform:
    def __init__(self, model: Uniform, chance: random.Random) -> None:
        self._model, self._chance, self._whole = model, chance, Whole()

    def make(self, slot: int, eve: float = 0.0) -> Made:  # noqa: ARG002 - all slots are alike
        # The draw of `simulation.supply.Uniform`, which makes it without a call for each slot.
        n_bytes = self._model.low + int(self._chance.random() * (self._model.high - self._model.low + 1))
        if eve:
            n_bytes = self._whole.bytes_of(8 * n_bytes * left_under_eve(self._model.qber, eve))
        return Made(n_bytes, under_eve(self._model.qber, eve))


class _Decoy:
    def __init__(self, model: DecoyBb84, chance: random.Random) -> None:
        self._model, self._chance, self._whole = model, chance, Whole()
        self._wander = 0.0
        self._phase = chance.random()  # devices of one network are not all at noon at once
        self._known: tuple[float, float, float] = (-1.0, 0.0, 0.0)  # interception, and rate and QBER under it

    def make(self, slot: int, eve: float = 0.0) -> Made:
        if eve != self._known[0]:
            self._known = eve, *intercepted(self._model, eve)
        _, bytes_per_s, qber = self._known
        return Made(self._whole.bytes_of(8 * bytes_per_s * self._factor(slot)), qber)

    def _factor(self, slot: int) -> float:
        """How the rate stands to its mean now."""
        drift = self._model.drift
        if drift.spread:
            keeps = math.exp(-1 / drift.memory_s)
            self._wander = keeps * self._wander + self._chance.gauss(0.0, drift.spread * math.sqrt(1 - keeps**2))
        daily = drift.daily * math.sin(2 * math.pi * (slot / DAY_S + self._phase)) if drift.daily else 0.0
        return max(0.0, 1 + self._wander + daily)


class _Blocks:
    def __init__(self, model: Blocks, chance: random.Random) -> None:
        self._model, self._chance, self._whole = model, chance, Whole()
        # The first one is on its way when time begins: networks do not start all their devices at once.
        self._due_s = self._gap_s() * chance.random()

    def make(self, slot: int, eve: float = 0.0) -> Made:
        blocks = 0
        while self._due_s <= slot:
            self._due_s += self._gap_s()
            blocks += 1
        if not blocks:
            return NOTHING
        left = left_under_eve(self._model.qber, eve) if eve else 1.0
        n_bytes = self._whole.bytes_of(8 * blocks * self._model.block_bytes * left)
        return Made(n_bytes, under_eve(self._model.qber, eve))

    def _gap_s(self) -> float:
        jitter = self._chance.gauss(0.0, self._model.jitter_s) if self._model.jitter_s else 0.0
        return max(1.0, self._model.every_s + jitter)


class _Trace:
    def __init__(self, model: Trace) -> None:
        self._model, self._whole = model, Whole()
        self._sums = [0.0]
        for bits in model.bits:
            self._sums.append(self._sums[-1] + bits)
        self._times = [0.0, *model.times_s]
        self._before = 0.0

    def make(self, slot: int, eve: float = 0.0) -> Made:
        total = self._until(float(slot))
        bits, self._before = total - self._before, total
        _, at = self._played(float(slot))
        place = bisect.bisect_left(self._times, at, 1, len(self._times) - 1)
        usual = self._model.qber[place - 1]
        if not bits:
            return NOTHING
        n_bytes = self._whole.bytes_of(bits * left_under_eve(usual, eve) if eve else bits)
        return Made(n_bytes, under_eve(usual, eve))

    def _played(self, at_s: float) -> tuple[float, float]:
        """How often the trace was over before that moment, and which moment of it that is.

        Both of one division: of two that are rounded each for itself, one may see a round that the other one does not.
        """
        lasts = self._times[-1]
        if self._model.once:
            return 0.0, min(at_s, lasts)
        rounds, at = divmod(at_s, lasts)
        return (rounds, at) if at or not rounds else (rounds - 1, lasts)

    def _until(self, at_s: float) -> float:
        """All bits up to that moment: what came between two moments of the trace came evenly."""
        rounds, at = self._played(at_s)
        place = bisect.bisect_left(self._times, at, 1, len(self._times) - 1)
        begins, ends = self._times[place - 1], self._times[place]
        part = (at - begins) / (ends - begins)
        return rounds * self._sums[-1] + self._sums[place - 1] + part * (self._sums[place] - self._sums[place - 1])
