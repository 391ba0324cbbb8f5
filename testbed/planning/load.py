"""Which applications share keys with which. PURE."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from testbed.planning.plan import SaePlan


def possible_pairs(saes: Sequence[SaePlan]) -> list[tuple[SaePlan, SaePlan]]:
    """All ordered pairs (master, slave) at different nodes: one node needs no quantum channel to itself.

    External SAEs do what their owners want, so they are in none.
    """
    ours = [sae for sae in saes if not sae.external]
    return [(a, b) for a, b in itertools.permutations(ours, 2) if a.node != b.node]


def draw_pairs(saes: Sequence[SaePlan], number: int, seed: int) -> list[tuple[SaePlan, SaePlan]]:
    """`number` different pairs, the same ones for the same seed and the same names. ValueError if there are fewer."""
    pairs = possible_pairs(saes)
    if number > len(pairs):
        raise ValueError(f"expected at most {len(pairs)}, the ordered pairs of our SAEs on different nodes")
    return random.Random(seed).sample(pairs, number)  # noqa: S311 - a workload, no key
