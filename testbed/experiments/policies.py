"""`run.py experiment policies`: what each policy accepts and carries, beside a planner that knows everything.

In virtual time. Sessions arrive by chance and stay by chance (Poisson arrivals, exponential holding). The loads of a
network are shares of the key rate that its QCs make; how much the planner itself has to refuse stands beside them. What
counts is a session that is accepted and has no key error: each policy's number of these as a share of the planner's.

The planner may accept sessions in part and over several paths at once, as that is solved in seconds and gives the same
on any machine. Where the whole search ends, it finds a session less, or as many.

Two planners more do not know who will come (planner/one_by_one.py). One lets in whom it can, the other one goes by
prices that all other loads of the same size had in the mean. They say what part of the gap is the price of not knowing.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import networkx as nx
from matplotlib.figure import Figure
from scipy.stats import t as student

from decisions import user_policies
from decisions.modes import MODES
from decisions.parameters import ADMISSION, KEYS_AHEAD, MODE, PATH_POLICY, TTL
from etsi.gs004 import QoS
from scenario.scenario import Scenario
from scenario.topology import load as load_topology
from scenario.topology_description import Sae, Topology
from scenario.workload import Arrival
from simulation.engine import Simulation
from simulation.qcs import make_qcs
from testbed import options
from testbed.errors import UserError
from testbed.experiments.evaluation import figures
from testbed.experiments.in_virtual_time import made
from testbed.experiments.planner.bounds import Offered, Prices, best_acceptance, offered
from testbed.experiments.planner.one_by_one import accepted_one_by_one, mean_prices
from testbed.experiments.series import Store, clear, digests, writing
from testbed.experiments.workers import sources, workers
from testbed.operation.tables import table

NAME = "policies"
NETWORKS = ("poliqi", "nsfnet", "usnet", "cost239", "secoqc")
# Of what the QCs make, were all sessions accepted: loads of which the planner refuses up to 30 %. One of SECOQC's QCs
# is far slower than the others.
LOADS: Sequence[float] = (1.0, 1.5, 2.5, 3.5)
_LOADS_OF: Mapping[str, Sequence[float]] = {"secoqc": (0.3, 0.6, 0.9, 1.3)}
SEEDS = 30
# Admission and path policy, as it is written.
POLICIES: Mapping[str, tuple[str, str]] = {
    "none": ("none", "shortest"),
    "eq1": ("eq1", "shortest"),
    "reserve": ("reserve", "shortest"),
    "reserve, widest": ("reserve", "widest-shortest"),
    "reserve, backlog": ("reserve", "backlog"),
    "calendar": ("calendar", "shortest"),
    "calendar, widest": ("calendar", "widest-shortest"),
    "selective, widest": ("selective", "widest-shortest"),
}
_ARRIVING_S, _STAYING_S, _INTERVAL_S, _KEY_BITS = 120.0, 60.0, 5.0, 128
_CONFIDENCE = 0.95
ONE_BY_ONE, KNOWS_THE_LOAD = "one by one", "one by one, knows the load"


@dataclass(frozen=True, slots=True)
class Case:
    """One load on one network, offered to all."""

    network: str
    load: float
    seed: int
    mode: str

    @property
    def name(self) -> str:
        """As in file names."""
        words = (Path(self.network).stem, f"{self.load:g}", str(self.seed))
        return "_".join("".join(c if c.isalnum() else "-" for c in word) for word in words)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of `offered` sessions: how many the planner could accept at most, under which prices; and by policy, or lesser
    planner, how many were accepted and unbroken, and how many were accepted and had a key error.
    """

    case: Case
    offered: int
    best: int
    unbroken: Mapping[str, int]
    broken: Mapping[str, int]
    prices: Prices = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Alike:
    """All cases of one load, each under the prices that the planner found there."""

    cases: Sequence[Case]
    prices: Sequence[Prices]

    @property
    def name(self) -> str:
        """As in file names."""
        return f"{self.cases[0].name}_and_{len(self.cases) - 1}_more"


@dataclass(frozen=True, slots=True)
class _Informed:
    """How many sessions of each case a planner accepts that knows the load."""

    accepted: Sequence[int]


def outcome(
    case: Case, networks: Mapping[str, Topology], policies: Mapping[str, tuple[str, str]] = POLICIES,
    own: Mapping[str, str] | None = None,
) -> Outcome:  # fmt: skip
    """What comes of one case, by `networks`' names. PURE but for policies of the user's `own`, FILE.py:NAME."""
    user_policies.use(own or {})
    topology = networks[case.network]
    arrivals = draw(topology, case)
    unbroken, broken = {}, {}
    for label, (admission, paths) in policies.items():
        parameters = {"mode": case.mode, "admission": admission, "path_policy": paths}
        result = Simulation(Scenario(topology, arrivals, parameters, seed=case.seed)).run()
        unbroken[label], broken[label] = result.unbroken, result.with_errors
    all_carried = len(arrivals) in unbroken.values()
    load = _offered(topology, case, arrivals)
    unbroken[ONE_BY_ONE], broken[ONE_BY_ONE] = accepted_one_by_one(load), 0
    if all_carried:  # no planner can do better
        return Outcome(case, len(arrivals), len(arrivals), unbroken, broken)
    bound = best_acceptance(load, time_limit_s=None)
    return Outcome(case, len(arrivals), bound.best, unbroken, broken, bound.prices)


def informed(alike: _Alike, networks: Mapping[str, Topology], own: Mapping[str, str]) -> _Informed:
    """What a planner accepts that knows what the others of these loads were like. PURE but for the user's mode."""
    user_policies.use(own)
    found = []
    for number, case in enumerate(alike.cases):
        others = [prices for other, prices in enumerate(alike.prices) if other != number]
        topology = networks[case.network]
        found.append(accepted_one_by_one(_offered(topology, case, draw(topology, case)), mean_prices(others)))
    return _Informed(found)


def _offered(topology: Topology, case: Case, arrivals: Sequence[Arrival[Sae]]) -> Offered:
    """The sessions of a case, for a planner. PURE."""
    scenario = Scenario(topology, arrivals, {"mode": case.mode}, seed=case.seed)
    qcs = make_qcs(scenario, {}, dark=[one.qc for one in topology.on_demand()])
    ends_s = max((arrival.at_s + (arrival.length_s or 0.0) for arrival in arrivals), default=0.0)
    return offered(
        topology, arrivals, made(qcs, ends_s), mode=case.mode, keys_ahead=KEYS_AHEAD.default, ttl_slots=TTL.default
    )


def draw(topology: Topology, case: Case) -> list[Arrival[Sae]]:
    """The sessions of a case, as they arrive. PURE."""
    generator = random.Random(f"{case.network}/{case.load}/{case.seed}")  # noqa: S311 - a load, no key
    saes = [sae for sae in topology.saes if not sae.external]
    rate = case.load * _capacity(topology, case.mode) / _STAYING_S
    found, at_s = [], generator.expovariate(rate)
    while at_s < _ARRIVING_S:
        master, slave = generator.sample(saes, 2)
        if master.node != slave.node:
            length_s = generator.expovariate(1 / _STAYING_S)
            found.append(Arrival(at_s, master, slave, length_s, QoS(_KEY_BITS, _INTERVAL_S)))
            at_s += generator.expovariate(rate)
    return found


def _capacity(topology: Topology, mode: str) -> float:
    """How many sessions at a time take all that the QCs make, over shortest paths between nodes drawn evenly. PURE."""
    graph: nx.Graph[str] = nx.Graph(topology.graph())
    at: dict[str, int] = {}
    for sae in topology.saes:
        if not sae.external:
            at[sae.node] = at.get(sae.node, 0) + 1
    costs = weights = 0.0
    for a, hops in nx.all_pairs_shortest_path_length(graph):
        for b, number in hops.items():
            if a != b:
                weight = at.get(a, 0) * at.get(b, 0)
                costs += weight * sum(MODES[mode].per_key(number, _KEY_BITS // 8, KEYS_AHEAD.default))
                weights += weight
    made = sum(qc.mean_bytes_per_slot for link in topology.links for qc in link.qcs)
    return made * _INTERVAL_S * weights / costs


def main(arguments: Sequence[str], *, topologies: Path, results: Path) -> int:
    """Make it; the exit status. UserError."""
    given = _parser().parse_args(arguments)
    seeds, loads = (3, slice(1, 3)) if given.quick else (given.seeds, slice(None))
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1")
    networks, (mode, policies, own) = given.networks or NETWORKS, _policies(given)
    # One seed after the other: a series that is interrupted has something of every load.
    cases = [
        Case(network, load, seed, mode)
        for seed, network in itertools.product(range(seeds), networks)
        for load in _LOADS_OF.get(network, LOADS)[loads]
    ]
    out = (given.out or results) / NAME
    described = {name: load_topology(name, topologies) for name in networks}
    if given.again:
        clear(out)
    store = Store(
        out, {"experiment": NAME, "mode": mode, "policies": policies, "files": digests(own.values()),
              "sources": sources()},
    )  # fmt: skip
    with workers(given.dask) as each:
        of_one = functools.partial(outcome, networks=described, policies=policies, own=own)
        documents = store.fill(cases, of_one, each)
        outcomes = [Outcome(**found | {"case": case}) for case, found in zip(cases, documents, strict=True)]
        alike = [_Alike([o.case for o in of], [o.prices for o in of]) for of in _by_load(outcomes).values()]
        documents = store.fill(alike, functools.partial(informed, networks=described, own=own), each)
    known = {case: n for one, found in zip(alike, documents, strict=True)
             for case, n in zip(one.cases, found["accepted"], strict=True)}  # fmt: skip
    outcomes = [
        replace(o, unbroken={**o.unbroken, KNOWS_THE_LOAD: known[o.case]}, broken={**o.broken, KNOWS_THE_LOAD: 0})
        for o in outcomes
    ]
    with writing(out):
        (out / "table.txt").write_text(text := in_words(outcomes), encoding="utf-8")
        _write_csv(outcomes, out / "outcomes.csv")
        figures.save(_figure(outcomes), out / "figure")
    print(text, end="")
    return 0


def _policies(given: argparse.Namespace) -> tuple[str, Mapping[str, tuple[str, str]], Mapping[str, str]]:
    """The mode; the policies to compare, ours and one line more with the user's; and the user's files. UserError."""
    another = given.admission is not None or given.paths is not None
    given.admission, given.paths = given.admission or "calendar", given.paths or PATH_POLICY.default
    parameters, own = options.policies(given)
    yours = parameters[ADMISSION.name], parameters[PATH_POLICY.name]
    return parameters[MODE.name], {**POLICIES, **({", ".join(yours): yours} if another else {})}, own


def shares(outcomes: Sequence[Outcome], policy: str) -> tuple[float, float]:
    """Mean share of the planner's sessions that a policy accepted unbroken, and half of its 95 % interval. PURE."""
    return interval([o.unbroken[policy] / o.best if o.best else 1.0 for o in outcomes])


def interval(found: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval, by Student's t. PURE."""
    if len(found) < 2:
        return found[0], math.inf
    error = statistics.stdev(found) / math.sqrt(len(found))
    return statistics.fmean(found), float(student.ppf((1 + _CONFIDENCE) / 2, len(found) - 1)) * error


def in_words(outcomes: Sequence[Outcome]) -> str:
    """The table. PURE."""
    rows = []
    for (network, load), of in _by_load(outcomes).items():
        refused = 100 * (1 - sum(o.best for o in of) / sum(o.offered for o in of))
        cells = []
        for policy in of[0].unbroken:
            mean, half = shares(of, policy)
            broken = sum(o.broken[policy] for o in of)
            cells.append(f"{mean:.3f} ±{half:.3f}" + (f" ({broken})" if broken else ""))
        rows.append((network, f"{load:g}", f"{refused:.1f} %", *cells))
    head = ("network", "load", "planner refuses", *outcomes[0].unbroken)
    return (
        "Sessions accepted and unbroken, as a share of what a planner that knows everything accepts: mean and 95 %\n"
        "interval; in brackets, how many sessions had a key error. The planner may split sessions between paths, and\n"
        "accept parts of them: it refuses that many at least. One by one: planners that take the sessions as they\n"
        "come, and know no more of those to come than, the second one, what others of that load were like.\n\n"
        + table(head, rows)
    )


def _by_load(outcomes: Sequence[Outcome]) -> dict[tuple[str, float], list[Outcome]]:
    found: dict[tuple[str, float], list[Outcome]] = {}
    for one in outcomes:
        found.setdefault((one.case.network, one.case.load), []).append(one)
    return found


def _write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        facts = ("network", "load", "seed", "mode", "offered", "planner")
        writer.writerow([*facts, "policy", "unbroken", "broken"])
        for o in outcomes:
            for policy in o.unbroken:
                writer.writerow(
                    [o.case.network, o.case.load, o.case.seed, o.case.mode, o.offered, o.best, policy,
                     o.unbroken[policy], o.broken[policy]]
                )  # fmt: skip


def _figure(outcomes: Sequence[Outcome]) -> Figure:
    """A panel a network: shares against the load, a line a policy."""
    panels: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for (network, load), of in _by_load(outcomes).items():
        curves = panels.setdefault(f"load of {network}", {})
        for policy in of[0].unbroken:
            curves.setdefault(policy, []).append((load, *shares(of, policy)))
    return figures.curves(panels, "unbroken sessions,\nshare of the planner's")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"run.py experiment {NAME}",
        description="What policies accept and carry in virtual time, as a share of a planner's that knows everything.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="two loads, three seeds")
    add("--networks", nargs="+", metavar="NAME|FILE", help=f"networks (default: {', '.join(NETWORKS)})")
    add("--mode", default=MODE.default, metavar="NAME|FILE.py:NAME", help=f"{MODE.meaning} (default: {MODE.default})")
    add("--admission", metavar="NAME|FILE.py:NAME", help="another admission policy to compare, of yours")
    add("--paths", metavar="NAME|FILE.py:NAME", help="another path policy to compare, of yours")
    options.series(parser, SEEDS)
    return parser
