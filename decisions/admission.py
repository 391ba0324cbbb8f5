"""Whether a key session may start on a path: policies as a table. PURE.

A policy sees the path's QCs as measured, what open sessions have declared there, and what the new one needs. It
answers None to admit, or what was short where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from decisions.calendar import WANTED_SLOTS, Draw, expected_per_slot, first_shortage, most_of_one, supply


def nothing_planned(slots: int) -> Sequence[int]:
    """The plan of a QC that no session has."""
    return [0] * slots


def nothing_wanted() -> tuple[Sequence[int], float]:
    """Of a QC that no session wanted."""
    return (), 1.0


@dataclass(frozen=True, slots=True)
class QcView:
    """A QC as measured over the last `slots` slots of 1 s, in bytes, and what it stores now.

    `reserved_per_slot`: what open sessions have declared to need of it, in bytes a slot; `endless_per_slot`: those of
    them that do not say when they end. `by_slot`: what it generated in each of the last slots, the newest last.
    `planned`: what open sessions have declared that they will take of it in the present slot and those after it, for so
    many slots. `wanted`: bytes that each session which asked for it lately would take in the next `WANTED_SLOTS` slots,
    be it admitted or not, and of how many slots these sessions are; nothing if the new session is open already.
    """

    qc: str
    generated_bytes: int
    requested_bytes: int
    stored_bytes: int
    slots: int
    reserved_per_slot: float = 0.0
    endless_per_slot: float = 0.0
    by_slot: Sequence[int] = ()
    planned: Callable[[int], Sequence[int]] = nothing_planned
    wanted: Callable[[], tuple[Sequence[int], float]] = nothing_wanted

    @property
    def merit(self) -> tuple[float, int]:
        """How much the QC has for one more session: bytes a slot that nobody uses or has declared, then its store."""
        return self.generated_bytes / max(1, self.slots) - self._claimed, self.stored_bytes

    @property
    def claimed_share(self) -> float:
        """Of what it generates, how much is used or declared; infinite if it generates nothing."""
        return self._claimed * self.slots / self.generated_bytes if self.generated_bytes else math.inf

    @property
    def _claimed(self) -> float:
        return max(self.reserved_per_slot, self.requested_bytes / max(1, self.slots))


def since_lit(view: QcView, per_slot: float, slots: int, lit_slots: int) -> QcView:
    """The view, over so many slots, of a QC that has been lit for `lit_slots` of them: as if it had made before what it
    makes in the mean, `per_slot` bytes.
    """
    known = list(view.by_slot)[-lit_slots:] if lit_slots > 0 else []
    by_slot = [*[math.floor(per_slot)] * (slots - len(known)), *known]
    return replace(view, generated_bytes=sum(by_slot), slots=len(by_slot), by_slot=by_slot)


@dataclass(frozen=True, slots=True)
class Refused:
    """The QC that was short, the bytes that the session needs there and the bytes that there are.

    `tried`: the nodes of all paths on which the session was refused. `seen`: half a sentence for people, on what the
    decision rests.
    """

    qc: str
    needed_bytes: int
    available_bytes: int
    tried: Sequence[Sequence[str]] = ()
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a session declares, a key of `key_bytes` each `interval_s`; and what a key costs on each QC, in bytes.

    `draws`: what it will take of each QC, in seconds after the beginning of the present slot. `waits_slots`: for how
    many slots key material waits for its use.
    """

    key_bytes: int
    interval_s: float
    cost: Sequence[float]
    draws: Sequence[Draw] = ()
    waits_slots: int = 1

    def per_slot(self, hop: int) -> float:
        """Bytes a slot of 1 s that the session needs of the QC of that hop."""
        return self.cost[hop] / self.interval_s

    def shares(self, path: Sequence[QcView]) -> list[float]:
        """Of what each QC of a path makes, the part that the session needs."""
        made = (view.generated_bytes / max(1, view.slots) for view in path)
        return [self.per_slot(hop) / rate if rate else math.inf for hop, rate in enumerate(made)]


@dataclass(frozen=True, slots=True)
class Need:
    """What the key sessions of a node have declared to need of a QC: bytes a slot of 1 s, and one request of each."""

    per_slot: float
    at_once: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a node at neither end of a QC says that it asked of it, and what its sessions have declared, in bytes."""

    said: Fraction
    declared: Fraction


def believed(own: Fraction, claims: Sequence[Claim], used: Fraction) -> Fraction:
    """Bytes asked of a QC, as far as they can be believed. PURE.

    `own`: asked by the nodes at its ends, which could make it useless by other words as well. `used`: what these saw
    go. What others claim counts as far as their sessions have declared it; and beyond that, as applications may ask for
    more than they said, as far as bytes went for which nobody else has asked.
    """
    nothing = Fraction(0)
    known = sum((min(claim.said, claim.declared) for claim in claims), start=own)
    beyond = sum((max(nothing, claim.said - claim.declared) for claim in claims), start=nothing)
    return known + min(beyond, max(nothing, used - known))


AdmissionPolicy = Callable[[Sequence[QcView], Demand], Refused | None]


def admit_all(path: Sequence[QcView], demand: Demand) -> Refused | None:
    """No admission control: what the network cannot carry shows later, as key errors of running sessions."""
    del path, demand
    return None


def equation_1(path: Sequence[QcView], demand: Demand) -> Refused | None:
    """The paper's Equation 1: in its window, generated minus requested on the tightest QC covers one key."""
    needed = demand.key_bytes
    tightest = min(path, key=lambda view: (view.generated_bytes - view.requested_bytes, view.qc))
    available = tightest.generated_bytes - tightest.requested_bytes
    if available >= needed:
        return None
    both = f"{tightest.generated_bytes} bytes were generated and {tightest.requested_bytes} requested"
    return Refused(tightest.qc, needed, max(0, available), seen=f"{both} in the last {tightest.slots} slots")


def reserve(path: Sequence[QcView], demand: Demand) -> Refused | None:
    """Declared against measured: the mean rate of each QC covers what all sessions over it say that they need.

    Both numbers of a refusal are over the slots measured, so that they are whole bytes.
    """
    short = []
    for hop, view in enumerate(path):
        slots = max(1, view.slots)
        needed = math.ceil(demand.per_slot(hop) * slots)
        available = math.floor(view.generated_bytes - view.reserved_per_slot * slots)
        if available < needed:
            short.append(Refused(view.qc, needed, max(0, available)))
    return min(short, key=lambda r: (r.available_bytes - r.needed_bytes, r.qc)) if short else None


def calendar(path: Sequence[QcView], demand: Demand) -> Refused | None:
    """All that is declared, played forward slot by slot: nobody goes short on a QC that makes a little less than now.

    What is stored hides for a while that sessions without an end need more than is made: they are counted as well. Both
    numbers of a refusal are of the slot in which the QC would be short for the first time, or of any slot.
    """
    for hop, view in enumerate(path):
        draw = demand.draws[hop]
        endless = view.endless_per_slot + draw.n_bytes / draw.period_s
        if draw.end_s == math.inf and endless > expected_per_slot(view.by_slot):
            return Refused(view.qc, math.ceil(endless), expected_per_slot(view.by_slot))
        slots = draw.horizon_slots + demand.waits_slots
        planned, own = view.planned(slots), draw.by_slot(slots)
        wanted = [a + b for a, b in zip(planned, own, strict=True)]
        made = supply(view.by_slot, view.stored_bytes, waits_slots=demand.waits_slots, slots=slots)
        if (found := first_shortage(made, wanted, demand.waits_slots)) is not None:
            slot, short_bytes = found
            return Refused(view.qc, wanted[slot], wanted[slot] - short_bytes)
    return None


def selective(path: Sequence[QcView], demand: Demand) -> Refused | None:
    """As `calendar`; and where more is wanted of a QC than it makes, only sessions that take little of it.

    More sessions are accepted than by `calendar`, and long ones seldom. Who wants little enough: sorted by what they
    take in the next slots, those that came lately, as many as there is room for.
    """
    for view, draw in zip(path, demand.draws, strict=True):
        wanted, slots = view.wanted()
        taken = sum(view.planned(WANTED_SLOTS))
        room = expected_per_slot(view.by_slot) * WANTED_SLOTS + view.stored_bytes - taken
        most, own = most_of_one(wanted, room * slots / WANTED_SLOTS), draw.within(WANTED_SLOTS)
        if most is not None and own > most:
            seen = f"others want to take less in the next {WANTED_SLOTS} slots, and there is room for them alone"
            return Refused(view.qc, own, most, seen=seen)
    return calendar(path, demand)


ADMISSION_POLICIES: dict[str, AdmissionPolicy] = {
    "none": admit_all, "eq1": equation_1, "reserve": reserve, "calendar": calendar,
    "selective": selective,
}  # fmt: skip
# Paths that are tried before a session is refused, by policy; one if nothing is said.
ALTERNATIVES: Mapping[str, int] = {"calendar": 4, "selective": 4}


def window_slots(policy: str, ttl_slots: int) -> int:
    """Over how many of the last slots that policy looks; Equation 1 from n0 - TTL to n0, both included."""
    return ttl_slots + 1 if policy == "eq1" else ttl_slots
