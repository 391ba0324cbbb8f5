"""QCs in virtual time: what they made, what was taken of it and asked of it, what is planned, and who makes nothing."""

from __future__ import annotations

import functools
import heapq
import math
from collections import Counter
from collections.abc import Collection, Mapping

from decisions.admission import QcView, nothing_wanted
from decisions.calendar import Agenda, Wanted
from decisions.ranges import STOCK_BYTES, Range, promised_bytes, promised_slots
from decisions.rhythm import Coming
from scenario.scenario import Scenario
from scenario.topology_description import Qc
from simulation.supply import EachSlot, Modelled, Supply, Uniform

_STALE = 4096  # slots whose requests are remembered, before old ones are forgotten
_AGAIN_S = 0.05  # until a QC is looked at again at the earliest


class QcState:
    """A QC between two nodes, as of the time `at` was called with last. To an allocation it is a `ranges.Source`.

    `stock_bytes`: so many of its newest bytes are kept.
    """

    def __init__(
        self, name: str, supply: Supply, *, ttl_slots: int, promised_slots: float, stock_bytes: int = STOCK_BYTES
    ) -> None:
        self.name = name
        self.supply = supply
        self.agenda = Agenda()
        self.reserved: dict[int, float] = {}  # by session, bytes a slot
        self._ttl_slots = ttl_slots
        self._promised_slots = promised_slots
        self._stock_bytes, self._promised_bytes = stock_bytes, promised_bytes(stock_bytes)
        self._head = self._floor = self._tail = 0
        self._now_s = -math.inf
        self._left: list[tuple[int, int]] = []  # before the tail: promised to nobody any more, and not expired yet
        self._asked: Counter[int] = Counter()  # bytes by slot

    def at(self, now_s: float) -> None:
        """It is that time."""
        self._now_s = now_s
        made, heads = self.supply.made, self.supply.heads
        head = self._head = heads[made(now_s)]
        self._floor = max(heads[made(now_s - self._promised_slots)], head - self._promised_bytes)

    def oldest(self, now_s: float) -> int:
        """The first byte that has not expired, be it that it is too old, or that it did not fit into the stock."""
        made, heads = self.supply.made, self.supply.heads
        return max(heads[made(now_s - self._ttl_slots)], heads[made(now_s)] - self._stock_bytes)

    @property
    def available(self) -> int:
        """Bytes that can be allocated now."""
        return max(0, self._head - max(self._tail, self._floor))

    def switch(self, now_s: float, *, on: bool, eve: float = 0.0) -> None:
        """Make key from now on, of which an eavesdropper leaves less, or nothing; what is recorded stays as it was."""
        if isinstance(self.supply, EachSlot):
            self.supply.switch(now_s, on=on, eve=eve)

    def take(self, qc: str, n_bytes: int) -> tuple[QcState, Range]:
        """The next `n_bytes`, which are available. This one changes."""
        start = max(self._tail, self._floor)
        if start > self._tail:
            self._left = [*self._left_at(self._now_s), (self._tail, start)]
        self._tail = start + n_bytes
        return self, Range(qc, start, self._tail)

    def _left_at(self, now_s: float) -> list[tuple[int, int]]:
        """What lies before the tail and was not taken, but for what has expired by then."""
        oldest = self.oldest(now_s) if self._left else 0
        return [(max(start, oldest), end) for start, end in self._left if end > oldest]

    def ask(self, now_s: float, n_bytes: int) -> None:
        """So much was asked of it, whether it had that or not."""
        self._asked[self.supply.made(now_s)] += n_bytes

    def view(self, now_s: float, slots: int, wanted: Wanted | None = None) -> QcView:
        """How it fared over the last `slots` slots, as nodes report it: as each block comes, until then."""
        made, heads = self.supply.made(now_s), self.supply.heads
        first = max(0, made - slots)
        if len(self._asked) > _STALE:
            self._asked = Counter({slot: n for slot, n in self._asked.items() if slot >= made - slots})
        kept = max(self._tail, self.oldest(now_s))
        left = sum(end - start for start, end in self._left_at(now_s))
        return QcView(
            self.name,
            heads[made] - heads[first],
            sum(self._asked[slot] for slot in range(made - slots, made)),
            max(0, heads[made] - kept) + left,
            made - first,
            reserved_per_slot=sum(self.reserved.values()),
            endless_per_slot=self.agenda.endless_per_slot,
            by_slot=[heads[n + 1] - heads[n] for n in range(first, made)],
            planned=functools.partial(self.agenda.planned, math.floor(now_s)),
            wanted=nothing_wanted if wanted is None else functools.partial(wanted.of, self.name, now_s),
        )


class _Followed:
    """A QC that may pause, as nodes tell of it block by block; `since_s`: when that began which it does now."""

    def __init__(self, supply: Supply, ttl_slots: int) -> None:
        self._supply = supply
        self._ttl_slots = ttl_slots
        self._coming = Coming()
        self._next = 0
        self.generates = True  # or has made nothing yet
        self.since_s = -math.inf

    def follow(self, now_s: float) -> float:
        """All that has come by now; when the next block may."""
        coming, made, heads = self._coming, self._supply.made(now_s), self._supply.heads
        for block in range(self._next, made):
            coming.add(heads[block + 1] - heads[block])
            if (not coming.brought or coming.generates(self._ttl_slots)) is not self.generates:
                self.generates, self.since_s = not self.generates, self._supply.made_s(block)
        self._next = made
        return self._supply.made_s(made - 1) + 1.0 if made else now_s


class Passive:
    """The QCs that have generated nothing for `grace_s`, by their own rhythms. Those that never pause are not asked.

    `since_s`: of those that have paused, since when they generate again.
    """

    def __init__(self, qcs: Mapping[str, QcState], ttl_slots: int, grace_s: float) -> None:
        self.qcs: set[str] = set()
        self.since_s: dict[str, float] = {}
        self._grace_s = grace_s
        self._followed = {name: _Followed(qc.supply, ttl_slots) for name, qc in qcs.items() if qc.supply.pauses}
        self._due = [(-math.inf, name) for name in sorted(self._followed)]

    @property
    def due_s(self) -> float:
        """When one may change; infinity if none ever does."""
        return self._due[0][0] if self._due else math.inf

    def look(self, now_s: float) -> bool:
        """It is that time. Whether one has changed since the last look."""
        before = frozenset(self.qcs)
        while self.due_s <= now_s:
            _, name = self._due[0]
            one = self._followed[name]
            due_s = one.follow(now_s)
            if one.generates:
                self.qcs.discard(name)
                self.since_s[name] = one.since_s
                due_s += self._grace_s
            elif (gone_s := one.since_s + self._grace_s) <= now_s:
                self.qcs.add(name)
            else:
                due_s = gone_s
            heapq.heapreplace(self._due, (max(due_s, now_s + _AGAIN_S), name))
        return before != self.qcs


def make_qcs(scenario: Scenario, supplies: Mapping[str, Supply], dark: Collection[str]) -> dict[str, QcState]:
    """All QCs of a scenario, by name; what `supplies` has makes what is known of it. Those in `dark` make nothing."""
    ttl_slots: int = scenario.parameter("ttl_slots")
    warm = ttl_slots if scenario.warm_slots is None else scenario.warm_slots
    found = {
        qc.name: QcState(
            qc.name, supplies.get(qc.name) or _supply(qc, f"{scenario.seed}/{qc.name}", warm), ttl_slots=ttl_slots,
            promised_slots=promised_slots(ttl_slots),
        )
        for qc, _, _ in scenario.topology.qcs()
    }  # fmt: skip
    for name in dark:  # also before time begins
        found[name].switch(-warm - 1.0, on=False)
    return found


def _supply(qc: Qc, seed: str, warm_slots: int) -> Supply:
    """What that QC makes."""
    if qc.model is None:
        return Uniform(qc.low_bytes_per_slot, qc.high_bytes_per_slot, seed, warm_slots)
    return Modelled(qc.model, seed, warm_slots)
