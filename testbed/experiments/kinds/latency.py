"""Delivery and initialisation time against the delay of the links, beside the floor that round trips set. PURE."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from testbed.bench import round_trip_floor
from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, groups, over_repeats, together
from testbed.experiments.series import Phase, Run

NAME = "latency"
DELAYS_MS = (0, 10, 20, 30, 40, 50)
QUICK_DELAYS_MS = (0, 20, 50)
MODES = ("basic", "qkp")
HOPS = {"one hop": (1, 1), "several hops": (2, 1 << 30)}
FLOOR = "floor of "
WORDS = {"delay ms": "one-way delay of a link, ms", "hops": "path"}
_QUICK = Quick(applications=6, cut_s=2.9)


def runs(settings: Settings) -> list[Run]:
    """A network for each delay and repeat, with a phase for each mode."""
    workload = settings.load("low", _QUICK)
    found = []
    for repeat in range(1, settings.repeats + 1):
        for delay in QUICK_DELAYS_MS if settings.quick else DELAYS_MS:
            phases = [
                Phase({"delay ms": str(delay), "mode": mode.upper()}, settings.parameters(mode), workload,
                      settings.phase_seed(repeat), 1.0 if settings.quick else 4.0)
                for mode in (MODES[:1] if settings.quick else MODES)
            ]  # fmt: skip
            found += together(repeat, phases, delay_ms=float(delay), qc_rate=settings.qc_rate(), measure_rtts=True)
    return found


def rows(seen: Sequence[Seen], _settings: Settings) -> list[Row]:
    """Medians of a repeat's keys that were made for their request, and of its initialisations, with their floors."""
    found: list[Row] = []
    for labels, group in groups(seen):
        for hops, (low, high) in HOPS.items():
            for measure, pick in (("delivery", _delivery), ("initialisation", _initialisation)):
                for name, index in ((measure, 0), (FLOOR + measure, 1)):
                    found += over_repeats(
                        NAME, name, "ms", {**labels, "hops": hops}, group,
                        observe=functools.partial(_column, pick, index, low, high), summarise=statistics.median,
                    )  # fmt: skip
    return found


def _column(
    pick: Callable[[Seen, int, int], list[tuple[float, float]]], index: int, low: int, high: int, one: Seen
) -> list[float]:
    return [found[index] for found in pick(one, low, high)]


def _delivery(one: Seen, low: int, high: int) -> list[tuple[float, float]]:
    """Time and floor of each key that was made for its request, over `low` to `high` hops, ms."""
    return [
        (d.ms, round_trip_floor.delivery_ms(one.rtt, one.mode, d.source, one.paths[d.ksid]))
        for d in one.deliveries
        if low <= d.hops <= high and d.source != "pool" and d.ksid in one.paths
    ]


def _initialisation(one: Seen, low: int, high: int) -> list[tuple[float, float]]:
    return [
        (i.whole, round_trip_floor.initialisation_ms(one.rtt, i.path))
        for i in one.initialisations
        if low <= len(i.path) - 1 <= high
    ]


def draw(results: Results) -> Figure:
    """Lines against the delay, floors dashed; delivery and initialisation side by side."""
    panels = {"delivery": "key delivery time, ms", "initialisation": "whole initialisation of a session, ms"}
    return figures.lines(results, figures.Lines("delay ms", panels, WORDS, dashed=FLOOR, dashed_word="floor"))


def remarks(_results: Results) -> list[str]:
    """What to know when reading it."""
    return [
        "The floor is the sum of the round trips that cannot be avoided, by the fastest pings of the same run: for a"
        " key to the shared database, between neighbours on the path, and from the first node to the last; for an"
        " initialisation from master to slave, from both nodes to the controller, from the controller to the nodes that"
        " it configures at once, and over several hops from the first node to each other one of the path. Keys from a"
        " pool cross no link: they are left out.",
    ]


EXPERIMENT = Experiment(
    NAME, "Latency of keys and sessions", "The same low load over links of growing delay.", runs, rows, draw, remarks,
    words=WORDS,
)  # fmt: skip
