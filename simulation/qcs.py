"""QCs in virtual time: what they made, what was taken of it and asked of it, and what is planned."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection, Mapping

from decisions.admission import QcView, nothing_wanted
from decisions.calendar import Agenda, Wanted
from decisions.ranges import Range, promised_slots
from scenario.scenario import Scenario
from scenario.topology_description import Qc
from simulation.supply import EachSlot, Modelled, Supply, Uniform

_STALE = 4096  # slots whose requests are remembered, before old ones are forgotten


class QcState:
    """A QC between two nodes, as of the time `at` was called with last. To an allocation it is a `ranges.Source`."""

    def __init__(self, name: str, supply: Supply, *, ttl_slots: int, promised_slots: float) -> None:
        self.name = name
        self.supply = supply
        self.agenda = Agenda()
        self.reserved: dict[int, float] = {}  # by session, bytes a slot
        self._ttl_slots = ttl_slots
        self._promised_slots = promised_slots
        self._head = self._floor = self._tail = 0
        self._asked: Counter[int] = Counter()  # bytes by slot

    def at(self, now_s: float) -> None:
        """It is that time."""
        made, heads = self.supply.made, self.supply.heads
        self._head, self._floor = heads[made(now_s)], heads[made(now_s - self._promised_slots)]

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
        self._tail = start + n_bytes
        return self, Range(qc, start, self._tail)

    def ask(self, now_s: float, n_bytes: int) -> None:
        """So much was asked of it, whether it had that or not."""
        self._asked[self.supply.made(now_s)] += n_bytes

    def view(self, now_s: float, slots: int, wanted: Wanted | None = None) -> QcView:
        """How it fared over the last `slots` slots, as nodes report it: as each block comes, until then."""
        made, heads = self.supply.made(now_s), self.supply.heads
        first = max(0, made - slots)
        if len(self._asked) > _STALE:
            self._asked = Counter({slot: n for slot, n in self._asked.items() if slot >= made - slots})
        kept = max(self._tail, heads[self.supply.made(now_s - self._ttl_slots)])
        return QcView(
            self.name,
            heads[made] - heads[first],
            sum(self._asked[slot] for slot in range(made - slots, made)),
            max(0, heads[made] - kept),
            made - first,
            reserved_per_slot=sum(self.reserved.values()),
            endless_per_slot=self.agenda.endless_per_slot,
            by_slot=[heads[n + 1] - heads[n] for n in range(first, made)],
            planned=functools.partial(self.agenda.planned, math.floor(now_s)),
            wanted=nothing_wanted if wanted is None else functools.partial(wanted.of, self.name, now_s),
        )


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
