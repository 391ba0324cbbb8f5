"""The results of an experiment: rows with intervals, and everything without which they would mean nothing. PURE.

Beside our values stand those that the paper reports, and what its authors' published software takes.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PAPER, SOFTWARE = "paper", "software"
_FILE = Path(__file__).with_name("paper.yaml")
_NO_LABELS = ("value", "source")


def value(experiment: str, measure: str, labels: Mapping[str, str], whose: str = PAPER) -> float | None:
    """What the paper, or its authors' software, has for these labels, in our row's unit; None if it has nothing."""
    wanted = {"measure": measure, **labels}
    for entry in read()[whose].get(experiment, ()):
        if {k: v for k, v in entry.items() if k not in _NO_LABELS} == wanted:
            return float(entry["value"])
    return None


def cite(whose: str = PAPER) -> str:
    """Where those values are from."""
    return str(read()[whose]["cite"])


@functools.cache
def read() -> Mapping[str, Mapping[str, Any]]:
    """The whole file: for `paper` and `software` what they are, and by experiment the values with their labels."""
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found


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


@dataclass(frozen=True, slots=True)
class Row:
    """A figure: what was measured, in which unit, for which labels.

    `samples`: observations behind it, in all repeats together. `paper`: the paper's value, `software`: that of its
    authors' published software, both in the same unit; None where they have none.
    """

    measure: str
    unit: str
    labels: Mapping[str, str]
    estimate: Estimate
    samples: int
    paper: float | None = None
    software: float | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """An experiment's figures and how they came to be. ValueError if there is no row, no shaper or no seed.

    A row cannot be without an interval: an estimate from a single repeat cannot be made. `provenance`: date, commit and
    machine. `command` makes them again. `settings` is what was run. `failed` lists phases that went wrong, whose
    figures are in no row; `missing`: how many phases are still to be run.
    """

    experiment: str
    title: str
    quick: bool
    rows: Sequence[Row]
    seed: int
    shaper: str
    datapath: str
    versions: Mapping[str, str]
    provenance: Mapping[str, str]
    command: str
    settings: Mapping[str, Any]
    failed: Sequence[Mapping[str, Any]]
    missing: int

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("results need rows: no measure has two repeats that went well")
        if not isinstance(self.seed, int):
            raise ValueError("results need the seed")
        for member in ("shaper", "datapath", "versions", "provenance", "command", "settings"):
            if not getattr(self, member):
                raise ValueError(f"results need {member}")
        for row in self.rows:
            found = row.estimate
            if found.n < 2 or not found.low <= found.median <= found.high:
                raise ValueError(f"{row.measure}: an estimate without an interval")

    @property
    def warnings(self) -> list[str]:
        """What nobody may overlook who sees a figure of it alone."""
        speed = self.settings.get("speed", 1)
        return [
            *(["QUICK LOOK, SMALL SAMPLES"] if self.quick else []),
            *([f"all times of the load divided by {speed}"] if speed != 1 else []),
            *([f"{len(self.failed)} failed phases left out"] if self.failed else []),
            *([f"unfinished, phases still to be run: {self.missing}"] if self.missing else []),
        ]

    @property
    def error_bars(self) -> str:
        """What the error bars of its figures are, in words."""
        coverages = sorted({row.estimate.coverage for row in self.rows})
        if coverages[0] >= 0.95:
            return f"bars: 95 % intervals of the median over {self._repeats} repeats"
        share = f"{100 * coverages[0]:.0f} % intervals of the median"
        return f"bars: lowest to highest of {self._repeats} repeats ({share})"

    @property
    def _repeats(self) -> str:
        numbers = sorted({row.estimate.n for row in self.rows})
        return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "experiment": self.experiment,
            "title": self.title,
            "quick": self.quick,
            "seed": self.seed,
            "shaper": self.shaper,
            "datapath": self.datapath,
            "versions": dict(self.versions),
            "provenance": dict(self.provenance),
            "command": self.command,
            "error_bars": self.error_bars,
            "warnings": self.warnings,
            "settings": dict(self.settings),
            "failed": [dict(f) for f in self.failed],
            "missing": self.missing,
            "rows": [_row_json(row) for row in self.rows],
        }

    def to_csv(self) -> str:
        """One line a row, with seed and shaper in each, so that a line torn from its file still says what it is."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.labels))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        figures = ("median", "low", "high", "coverage", "repeats", "samples", "paper", "software")
        writer.writerow(["experiment", *names, "measure", "unit", *figures, "seed", "shaper", "quick"])
        for row in self.rows:
            found = row.estimate
            writer.writerow(
                [self.experiment, *(row.labels.get(name, "") for name in names), row.measure, row.unit,
                 *(f"{v:.6g}" for v in (found.median, found.low, found.high, found.coverage)), found.n, row.samples,
                 *("" if v is None else v for v in (row.paper, row.software)),
                 self.seed, self.shaper, str(self.quick).lower()]
            )  # fmt: skip
        return text.getvalue()


def row(
    measure: str,
    unit: str,
    labels: Mapping[str, str],
    repeats: Sequence[float],
    *,
    samples: int,
    paper: float | None = None,
    software: float | None = None,
) -> list[Row]:
    """A row over `repeats`, one value each; none if fewer than two repeats have one."""
    return [Row(measure, unit, labels, estimate(repeats), samples, paper, software)] if len(repeats) > 1 else []


def _row_json(given: Row) -> dict[str, Any]:
    found = given.estimate
    return {
        "measure": given.measure,
        "unit": given.unit,
        "labels": dict(given.labels),
        "median": found.median,
        "low": found.low,
        "high": found.high,
        "coverage": found.coverage,
        "repeats": found.n,
        "samples": given.samples,
        "paper": given.paper,
        "software": given.software,
    }
