"""`python -P -m testbed.experiments.search`: which load comes closest to the paper's Figure 8, in virtual time.

Tries every setting with a few loads, and the closest ones again with many others: what is best of hundreds by a few
is so by chance, too. Writes a line for every setting, the finalists first; docs/experiments.md tells what came of it.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import math
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from decisions.rekey import PACES, POLICIES
from scenario.scenario import Scenario
from scenario.topology import Topology
from scenario.topology import load as load_topology
from scenario.workload import Distribution, Workload, arrivals
from scenario.workload import load as load_workload
from simulation.engine import Simulation
from testbed.errors import UserError
from testbed.experiments.evaluation import results
from testbed.experiments.evaluation.outcome import Load
from testbed.experiments.kinds import fig8
from testbed.experiments.workers import Each, workers

_ROOT = Path(__file__).resolve().parents[2]
GAPS_S = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
LENGTHS_S = (30, 60, 90, 120, 180)  # means; cut at twice the mean, as in the authors' published software
TTLS_SLOTS = (10, 15, 20, 30)
SEEDS = range(20)
FINALISTS = 24
FINAL_SEEDS = range(20, 220)
# A quick look: settings so far apart that each value has a turn.
QUICK_EVERY, QUICK_SEEDS, QUICK_FINALISTS, QUICK_FINAL_SEEDS = 37, range(2), 3, range(20, 26)
# All that the figure shows: four scenarios, three shares of each. Without admission nobody is refused.
SCENARIOS = {label: (mode, admission) for label, mode, admission in fig8.SCENARIOS[: fig8.PAPERS]}
Shares = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Setting:
    """What the paper leaves open."""

    gap_s: float
    length_s: float
    ttl_slots: int
    on_key_failure: str
    pace: str

    def of(self, workload: Workload) -> Workload:
        """The paper's load under this setting."""
        return replace(
            workload, on_key_failure=self.on_key_failure, pace=self.pace,
            gap_s=Distribution("exponential", self.gap_s),
            length_s=Distribution("exponential", self.length_s, at_most=2 * self.length_s),
        )  # fmt: skip


def settings() -> list[Setting]:
    """All that are tried."""
    return [Setting(*values) for values in itertools.product(GAPS_S, LENGTHS_S, TTLS_SLOTS, POLICIES, PACES)]


def shares(setting: Setting, topology: Topology, workload: Workload, seeds: range) -> dict[tuple[str, str], float]:
    """In percent, by scenario and measure, the mean over the loads of `seeds`, in the model."""
    load = setting.of(workload)
    found: dict[tuple[str, str], float] = {}
    for scenario, (mode, admission) in SCENARIOS.items():
        parameters = {"mode": mode, "admission": admission, "ttl_slots": setting.ttl_slots}
        loads = [
            _offered(
                Scenario(topology, arrivals(load, topology.saes, seed), parameters,
                         on_key_failure=load.on_key_failure, pace=load.pace, seed=seed)
            )
            for seed in seeds
        ]  # fmt: skip
        found |= {(scenario, measure): _mean(measure, loads) for measure in fig8.MEASURES}
    return found


def _offered(scenario: Scenario) -> Load:
    """What becomes of it in virtual time."""
    result = Simulation(scenario).run()
    return Load(
        offered=result.offered, refused=result.refused.total(), failed=0, with_errors=result.with_errors,
        requests=result.requests, failed_requests=result.failed_requests,
    )  # fmt: skip


def distance(found: Shares) -> float:
    """How far `found` is from the paper: by which factor its shares are off on average, as a natural logarithm.

    Half a point is added to each share first, so that 0.0 % and 0.1 % are the same and 20 % and 25 % are not.
    """
    off = []
    for (scenario, measure), share in found.items():
        known = results.value(fig8.NAME, measure, {"scenario": scenario})
        assert known is not None  # noqa: S101 - SCENARIOS and MEASURES are chosen so
        off.append(abs(math.log((share + 0.5) / (known + 0.5))))
    return sum(off) / len(off)


def lines(address: str | None = None, *, quick: bool = False) -> Iterator[list[str]]:
    """The table, its head first; made on all cores, or on the Dask cluster at `address`. UserError.

    `quick`: of a few settings, by a few loads.
    """
    tried = settings()[:: QUICK_EVERY if quick else 1]
    seeds, final_seeds = (QUICK_SEEDS, QUICK_FINAL_SEEDS) if quick else (SEEDS, FINAL_SEEDS)
    best = QUICK_FINALISTS if quick else FINALISTS
    names = [f"{scenario}: {measure}, %" for scenario in SCENARIOS for measure in fig8.MEASURES]
    with workers(address) as each:
        ranked = _ranked(tried, seeds, each)
        finalists = _ranked([setting for setting, _ in ranked[:best]], final_seeds, each)
    yield ["distance", "loads", *(f.name for f in fields(Setting)), *names]
    for loads, found in ((final_seeds, finalists), (seeds, ranked[best:])):
        for setting, percent in found:
            yield [f"{distance(percent):.3f}", str(len(loads)), *map(str, astuple(setting)),
                   *(f"{share:.1f}" for share in percent.values())]  # fmt: skip


def _ranked(tried: list[Setting], seeds: range, each: Each) -> list[tuple[Setting, Shares]]:
    topology, workload = load_topology("poliqi", _ROOT / "topologies"), load_workload("paper", _ROOT / "workloads")
    every = functools.partial(shares, topology=topology, workload=workload, seeds=seeds)
    return sorted(zip(tried, each(every, tried), strict=True), key=lambda pair: distance(pair[1]))


def _mean(measure: str, loads: list[Load]) -> float:
    return statistics.fmean(statistics.fmean(fig8.MEASURES[measure](load)) for load in loads)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="search", description="The load that comes closest to the paper's Figure 8.")
    parser.add_argument("--quick", action="store_true", help="a few settings, by a few loads")
    parser.add_argument("--dask", metavar="ADDRESS", help="on the Dask cluster with that scheduler, tcp://HOST:PORT")
    given = parser.parse_args()
    try:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines(given.dask, quick=given.quick))
    except UserError as error:
        print(f"search: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
