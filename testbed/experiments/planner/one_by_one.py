"""A planner that is asked for one session after the other, as they arrive, and does not know who comes later. PURE.

It knows what a controller could know at best, and more: what QCs will make, all ways that a session may go, and what
those that were accepted will take, until when. It lets in whoever can have all of its keys beside these, over the way
that costs least, and of several such the one that leaves most on its poorest QC. It neither splits a session nor leads
one another way later.

Under prices it knows the load as well, though not the sessions: a price says what a byte of a QC is worth to others. It
lets in whoever takes bytes that are worth less than a session.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from testbed.experiments.planner.bounds import PRICED_SLOTS, Offered, Prices, Way

# In sessions. Prices are means, so where many come what a session takes is dearer than they say: of 0.7, 0.85, 1 and
# more, this accepted the most on PoliQI.
_MOST_PRICE = 0.85


def accepted_one_by_one(load: Offered, prices: Prices | None = None) -> int:
    """How many of the sessions are accepted. Each of these has all of its keys."""
    cells = {cell for ways in load.ways for way in ways for cell in way}
    slots = 1 + max((slot for _, slot in cells), default=0)
    qcs = {
        qc: _Qc([load.supply[qc, slot] for slot in range(-load.ttl_slots, slots)], load.ttl_slots)
        for qc in {qc for qc, _ in cells}
    }
    accepted = 0
    for ways in load.ways:
        costs = [(_worth(way, prices or {}), sum(way.values())) for way in ways]
        by_cost = sorted(range(len(ways)), key=costs.__getitem__)
        for cost, alike in itertools.groupby(by_cost, key=costs.__getitem__):
            if cost[0] > _MOST_PRICE:
                break
            draws = [_by_qc(ways[number], slots) for number in alike]
            left = [min(qcs[qc].left_beside(wanted) for qc, wanted in draw) for draw in draws]
            if max(left) >= 0:
                for qc, wanted in draws[left.index(max(left))]:
                    qcs[qc].wanted += wanted
                accepted += 1
                break
    return accepted


def mean_prices(found: Sequence[Prices]) -> Prices:
    """Of several loads; where a load has no price, it is 0."""
    by_qc = {
        qc: itertools.zip_longest(*(one.get(qc, ()) for one in found), fillvalue=0.0)
        for qc in sorted({qc for one in found for qc in one})
    }
    return {qc: [math.fsum(span) / len(found) for span in spans] for qc, spans in by_qc.items()}


class _Qc:
    """What it makes, and what accepted sessions will take of it: `wanted`, bytes by slot."""

    def __init__(self, made: Sequence[int], ttl_slots: int) -> None:
        """`made`: bytes by slot, from `ttl_slots` before the first one on."""
        so_far = np.concatenate([[0], np.cumsum(made, dtype=np.int64)])
        # By slot: made before those bytes that still serve it, and made by its end.
        self._expired, self._made = so_far[: -ttl_slots - 1], so_far[ttl_slots + 1 :]
        self.wanted = np.zeros(len(self._made), np.int64)

    def left_beside(self, wanted: NDArray[np.int64]) -> float:
        """What part of all that can serve a session is left beside it, if it wants that; below 0 if anybody goes short.

        Nobody does if in no row of slots more is wanted than was made in these slots and the TTL before them.
        """
        together = self.wanted + wanted
        until = np.cumsum(together)
        before = until - together
        if np.any(until - self._made > np.minimum.accumulate(before - self._expired)):
            return -1.0
        slots = np.flatnonzero(wanted)
        first, last = slots[0], slots[-1]
        return 1 - float(until[last] - before[first]) / float(self._made[last] - self._expired[first])


def _worth(way: Way, prices: Prices) -> float:
    return math.fsum(
        n_bytes * prices[qc][slot // PRICED_SLOTS] for (qc, slot), n_bytes in way.items()
        if slot // PRICED_SLOTS < len(prices.get(qc, ()))
    )  # fmt: skip


def _by_qc(way: Way, slots: int) -> list[tuple[str, NDArray[np.int64]]]:
    found = {qc: np.zeros(slots, np.int64) for qc, _ in way}
    for (qc, slot), n_bytes in way.items():
        found[qc][slot] += n_bytes
    return list(found.items())
