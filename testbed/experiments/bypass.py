"""`run.py experiment bypass`: trusted relays, optical bypass or both, with few QKD modules and with many.

In virtual time. Nodes have so many modules, and no QC is always lit. Key sessions come one after the other, between
nodes drawn by chance, and stay; each is accepted or refused when it comes. What counts is the share that is accepted
under each mechanism. On PoliQI it stands beside the optimum of a planner that knows all sessions beforehand, and beside
one that takes them as they come.

The loss of fibres is set: as long as they are in the file, with a mean that leaves a bypass something to make.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from scipy.optimize import brentq

from decisions.choice import BOTH, BYPASS, RELAY
from etsi.gs004 import QoS
from scenario.qc_document import shipped
from scenario.quantum.decoy_bb84 import Device, rate_bps, reach_db
from scenario.scenario import Scenario
from scenario.switched import Optics, with_switched
from scenario.topology import load as load_topology
from scenario.topology_description import Sae, Switched, Topology
from scenario.workload import Arrival
from simulation.engine import Simulation
from testbed import options
from testbed.errors import UserError
from testbed.experiments.evaluation import figures
from testbed.experiments.planner.lighting import best_lit, best_one_by_one
from testbed.experiments.policies import interval
from testbed.experiments.series import Store, clear, writing
from testbed.experiments.workers import sources, workers
from testbed.operation.tables import table

NAME = "bypass"
MODULES = (1, 2, 3, 4, 8)  # at each node
SEEDS = 30
MECHANISMS: Mapping[str, str] = {BYPASS: "OB", RELAY: "TR", BOTH: "OB+TR"}
DEVICE = "gys"
MEAN_DB = 1.5  # of fibres
_CHANNELS, _INSERTION_DB, _MOST_PAST = 2, 1.0, 2
_EVERY_S, _INTERVAL_S = 20.0, 1.0


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the experiment: how many sessions, the size of their keys, whether the optimum is sought.

    The integer programme of a network with many nodes takes long.
    """

    sessions: int
    key_bits: int
    planned: bool


# A session of PoliQI takes half of the key that a fibre's QC makes, one of NSFNET a thirteenth.
NETWORKS: Mapping[str, Network] = {
    "poliqi": Network(20, 1664, planned=True), "nsfnet": Network(60, 256, planned=False),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """Sessions drawn with that seed, offered to a network whose nodes have so many modules each."""

    network: str
    modules: int
    seed: int

    @property
    def name(self) -> str:
        """As in file names."""
        return f"{self.network}_{self.modules}_{self.seed}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of `offered` sessions, how many were accepted under each mechanism, and had a key error; `best`: of a planner
    that knows all of them, `one_by_one`: of one that takes them as they come; None if it was not asked.
    """

    case: Case
    offered: int
    accepted: Mapping[str, int]
    broken: Mapping[str, int]
    best: int | None
    one_by_one: int | None


def outcome(case: Case, networks: Mapping[str, Topology]) -> Outcome:
    """What comes of one case. PURE."""
    kind = NETWORKS[case.network]
    topology = optical(networks[case.network], case.modules, MEAN_DB)
    arrivals = draw(topology, case, kind)
    accepted, broken = {}, {}
    for mechanism in MECHANISMS:
        parameters = {"mode": "otp", "admission": "reserve", "mechanism": mechanism}
        lasts_s = _EVERY_S * (len(arrivals) + 1)
        result = Simulation(Scenario(topology, arrivals, parameters, seed=case.seed, lasts_s=lasts_s)).run()
        accepted[mechanism] = result.offered - result.refused.total()
        broken[mechanism] = result.with_errors
    best = one_by_one = None
    if kind.planned:
        pairs = [(arrival.master.node, arrival.slave.node) for arrival in arrivals]
        room = functools.partial(_room, kind)
        best, _ = best_lit(topology, pairs, room)
        one_by_one = best_one_by_one(topology, pairs, room)
    return Outcome(case, len(arrivals), accepted, broken, best, one_by_one)


def optical(topology: Topology, modules: int, mean_db: float) -> Topology:
    """That network with so many modules at each node, no QC that is always lit, and fibres of that mean loss. PURE."""
    lengths = [link.rtt_ms for link in topology.links]
    mean = sum(lengths) / len(lengths)
    return with_switched(
        replace(
            topology,
            nodes=tuple(replace(node, modules=modules) for node in topology.nodes),
            links=tuple(
                replace(link, qcs=(), loss_db=mean_db * length / mean)
                for link, length in zip(topology.links, lengths, strict=True)
            ),
        ),
        Optics(shipped()[DEVICE], _INSERTION_DB, _MOST_PAST, _CHANNELS, parallel=_CHANNELS, setup_s=0.0),
    )


def draw(topology: Topology, case: Case, kind: Network) -> list[Arrival[Sae]]:
    """The sessions of a case, as they come. PURE."""
    generator = random.Random(f"{case.network}/{case.seed}")  # noqa: S311 - a load, no key
    saes = [sae for sae in topology.saes if not sae.external]
    found: list[Arrival[Sae]] = []
    while len(found) < kind.sessions:
        master, slave = generator.sample(saes, 2)
        if master.node != slave.node:
            found.append(Arrival(_EVERY_S * len(found), master, slave, None, QoS(kind.key_bits, _INTERVAL_S)))
    return found


def _room(kind: Network, one: Switched) -> int:
    """How many sessions a QC carries."""
    return int(one.qc.mean_bytes_per_slot * _INTERVAL_S / (kind.key_bits / 8))


def crossover_db(device: Device, fibre_db: float) -> float:
    """The loss that a bypass of one node may add to a fibre's, dB, until it makes no more key a module than a relay.

    PURE. The relay has two QCs with a fibre's loss each, hence four modules; the bypass has one QC and two modules.
    """
    relay = rate_bps(device, fibre_db) / 4
    return float(brentq(lambda added: rate_bps(device, fibre_db + added) / 2 - relay, 0.0, reach_db(device) - fibre_db))


def main(arguments: Sequence[str], *, topologies: Path, results: Path) -> int:
    """Make it; the exit status. UserError."""
    given = _parser().parse_args(arguments)
    seeds, modules = (3, MODULES[::4]) if given.quick else (given.seeds, MODULES)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1")
    cases = [Case(*facts) for facts in itertools.product(NETWORKS, modules, range(seeds))]
    out = (given.out or results) / NAME
    described = {name: load_topology(name, topologies) for name in NETWORKS}
    if given.again:
        clear(out)
    store = Store(out, {"experiment": NAME, "sources": sources()})
    with workers(given.dask) as each:
        documents = store.fill(cases, functools.partial(outcome, networks=described), each)
    outcomes = [Outcome(**found | {"case": case}) for case, found in zip(cases, documents, strict=True)]
    with writing(out):
        (out / "table.txt").write_text(text := in_words(outcomes), encoding="utf-8")
        _write_csv(outcomes, out / "outcomes.csv")
        figures.save(_figure(outcomes), out / "figure")
    print(text, end="")
    return 0


def _cells(outcomes: Sequence[Outcome]) -> dict[tuple[str, int], list[Outcome]]:
    found: dict[tuple[str, int], list[Outcome]] = {}
    for one in outcomes:
        found.setdefault((one.case.network, one.case.modules), []).append(one)
    return found


def accepted(outcomes: Sequence[Outcome], mechanism: str) -> tuple[float, float]:
    """The mean share of sessions that is accepted, and half of its 95 % interval. PURE."""
    return interval([one.accepted[mechanism] / one.offered for one in outcomes])


def gap(outcomes: Sequence[Outcome], accepted: Callable[[Outcome], int | None]) -> str:
    """By how much fewer sessions are `accepted` than by the planner, in percent of these; "" without one. PURE."""
    found = [(number, one.best) for one in outcomes if (number := accepted(one)) is not None and one.best is not None]
    if not found:
        return ""
    numbers, best = zip(*found, strict=True)
    return f"{100 * (1 - sum(numbers) / sum(best)):.1f} %"


def in_words(outcomes: Sequence[Outcome]) -> str:
    """The table. PURE."""
    rows = []
    for (network, modules), of in _cells(outcomes).items():
        cells = [accepted(of, mechanism) for mechanism in MECHANISMS]
        rows.append(
            (network, str(modules), *(f"{mean:.3f} ±{half:.3f}" for mean, half in cells),
             gap(of, lambda one: one.accepted[BOTH]), gap(of, lambda one: one.one_by_one),
             str(sum(sum(o.broken.values()) for o in of)))
        )  # fmt: skip
    head = ("network", "modules", *MECHANISMS.values(), "OB+TR behind planner", "one by one", "broken")
    crossover = crossover_db(shipped()[DEVICE], MEAN_DB)
    return (
        "Share of sessions accepted with so many QKD modules at each node: optical bypass (OB), trusted relays (TR),\n"
        "and both. Mean and 95 % interval. The planner knows all sessions beforehand. One by one: by how much another\n"
        "one is behind it, which takes each session that it can as it comes, and plans anew each time. Broken:\n"
        "sessions with a key error.\n\n"
        + table(head, rows)
        + f"\nA bypass of one node makes as much key a module as a relay does when it adds {crossover:.2f} dB to the"
        f" {MEAN_DB:g} dB\nof a fibre.\n"
    )


def _write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        planners = ["planner", "one_by_one"]
        writer.writerow(["network", "modules", "seed", "offered", *planners, "mechanism", "accepted", "broken"])
        for o in outcomes:
            planned = ["" if number is None else number for number in (o.best, o.one_by_one)]
            for mechanism in MECHANISMS:
                facts = (o.case.network, o.case.modules, o.case.seed, o.offered, *planned)
                writer.writerow([*facts, mechanism, o.accepted[mechanism], o.broken[mechanism]])


def _figure(outcomes: Sequence[Outcome]) -> Figure:
    """A panel a network: the share accepted against the number of modules, a line a mechanism."""
    panels: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for (network, modules), of in _cells(outcomes).items():
        curves = panels.setdefault(f"modules at each node of {network}", {})
        for mechanism, label in MECHANISMS.items():
            curves.setdefault(label, []).append((modules, *accepted(of, mechanism)))
    return figures.curves(panels, "sessions accepted, share")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"run.py experiment {NAME}",
        description="Trusted relays, optical bypass or both, with few QKD modules and with many; in virtual time.",
    )
    parser.add_argument("--quick", action="store_true", help="two numbers of modules, three seeds")
    options.series(parser, SEEDS)
    return parser
