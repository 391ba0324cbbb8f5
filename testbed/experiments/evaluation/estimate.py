"""A median and how sure it is. PURE."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

CONFIDENCE = 0.95
# With fewer repeats no interval between measured values holds the true median in 95 of 100 cases.
ENOUGH = 6


@dataclass(frozen=True, slots=True)
class Estimate:
    """The median of `n` repeats; `low` to `high` holds the true one with probability `coverage` (0 to 1) or more."""

    median: float
    low: float
    high: float
    n: int
    coverage: float

    @property
    def is_confident(self) -> bool:
        """Whether there were enough repeats for 95 %."""
        return self.coverage >= CONFIDENCE


def estimate(values: Iterable[float]) -> Estimate:
    """The median with its distribution-free interval (order statistics, the sign test turned round).

    The k-th lowest and the k-th highest of n values enclose the median of whatever they are drawn from unless fewer
    than k of them are on one of its sides: probability 2 P(Binomial(n, 1/2) < k). The narrowest interval of at least
    95 % is taken; where there is none, the lowest and the highest value with the coverage that they have.
    ValueError for fewer than two values: one says nothing of how sure it is.
    """
    ordered = sorted(values)
    n = len(ordered)
    if n < 2:
        raise ValueError(f"an interval needs at least two repeats, got {n}")
    k = 1
    while k < n / 2 and coverage(n, k + 1) >= CONFIDENCE:
        k += 1
    return Estimate(statistics.median(ordered), ordered[k - 1], ordered[n - k], n, coverage(n, k))


def coverage(n: int, k: int) -> float:
    """How likely the k-th lowest and the k-th highest of `n` values have the true median between them."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / float(2**n)
