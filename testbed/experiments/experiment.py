"""What all experiments have in common: their settings, what they have seen, and how runs are put together. PURE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from matplotlib.figure import Figure

from decisions.parameters import KEYS_AHEAD, TTL
from scenario.topology_description import Topology
from scenario.workload import Workload
from testbed.experiments.evaluation import outcome, results
from testbed.experiments.evaluation.results import Results, Row, row
from testbed.experiments.series import Phase, Run
from testbed.planning.databases import HA, SINGLE
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan

_SEEDS_A_REPEAT = 1000


@dataclass(frozen=True, slots=True)
class Quick:
    """What a quick look has of a load: at most so many applications, for at most so many seconds each.

    `rush`: by how much more they arrive faster than all else is, to overload a network in that little time.
    """

    applications: int
    cut_s: float
    rush: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked of an experiment. `over`: what a sweep goes over, values as they were written.
    `usual_ttl`: in slots of speed 1. `virtual`: in virtual time, where nothing takes any. `topology_said`: a name, or
    the path of a file.

    `database`, `controller`: whether these are there twice, as `testbed.options.failing_over` has it.
    `speed` divides all times of a load and multiplies the rates of the QCs: the load is the same, in coarser slots.
    """

    seed: int
    repeats: int
    quick: bool
    speed: int
    topology: Topology
    workloads: Mapping[str, Workload]  # those that ship, and the user's under its own name
    workload: str | None = None  # the user's choice
    over: Mapping[str, Sequence[str]] = field(default_factory=dict)
    usual_ttl: int = TTL.default
    virtual: bool = False
    topology_said: str = "poliqi"
    database: str = SINGLE
    controller: str = SINGLE

    def plan(self, run: Run) -> Plan:
        """The network of that run; UserError."""
        return make_plan(run.network(self.topology), self.database, standby=self.controller == HA)

    def load(self, default: str, quick: Quick, change: Callable[[Workload], Workload] = lambda w: w) -> Workload:
        """The workload chosen, or `default`, changed and at speed; for a quick look with fewer and shorter sessions."""
        fast = change(self.workloads[self.workload or default]).faster(self.speed)
        if not self.quick:
            return fast
        length_s = replace(fast.length_s, at_most=min(fast.length_s.at_most, quick.cut_s))
        applications = min(fast.applications, quick.applications)
        return replace(fast, applications=applications, length_s=length_s, gap_s=fast.gap_s.divided(quick.rush))

    def slots(self, ttl_slots: int) -> int:
        """As many as are as long against the load's times at this speed."""
        return max(1, round(ttl_slots / self.speed))

    def qc_rate(self) -> tuple[int, int] | None:
        """Of every QC, bytes a slot; None as the topology says."""
        if self.speed == 1:
            return None
        qcs = [qc for link in self.topology.links for qc in link.qcs]
        low, high = min(qc.low_bytes_per_slot for qc in qcs), max(qc.high_bytes_per_slot for qc in qcs)
        return low * self.speed, high * self.speed

    @property
    def ttl_slots(self) -> int:
        """The usual TTL, at speed."""
        return self.slots(self.usual_ttl)

    def parameters(self, mode: str, admission: str = "none") -> dict[str, Any]:
        """Of the controller."""
        return {"mode": mode, "admission": admission, "ttl_slots": self.ttl_slots, "keys_ahead": KEYS_AHEAD.default}

    def phase_seed(self, repeat: int) -> int:
        """The same in all phases of a repeat, so that they are offered the same sessions."""
        return self.seed * _SEEDS_A_REPEAT + repeat

    @property
    def twice(self) -> dict[str, str]:
        """Of database and controller those of which there is not a single one, by name."""
        found = {"database": self.database, "controller": self.controller}
        return {name: kind for name, kind in found.items() if kind != SINGLE}

    def to_json(self) -> dict[str, Any]:
        """What a series is begun with."""
        return {
            "seed": self.seed,
            "repeats": self.repeats,
            "quick": self.quick,
            "speed": self.speed,
            "topology": self.topology.name,
            "workload": self.workload,
            "over": {k: list(v) for k, v in self.over.items()},
            **({"virtual": True} if self.virtual else {}),
            **self.twice,
        }


class Seen:
    """What one phase showed, from its document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.labels: Mapping[str, str] = document["labels"]
        self.mode = str(document["parameters"]["mode"])
        self._rtts = {frozenset((a, b)): float(ms) for a, b, ms in document["rtts_ms"]}

    @cached_property
    def deliveries(self) -> list[outcome.Delivery]:
        """Keys handed out to masters."""
        return outcome.deliveries(self.document["events"])

    @cached_property
    def allocations(self) -> list[outcome.Made]:
        """What keys were made of."""
        return outcome.allocations(self.document["events"])

    @cached_property
    def initialisations(self) -> list[outcome.Initialisation]:
        """Sessions that came to be."""
        return outcome.initialisations(self.document["events"])

    @cached_property
    def load(self) -> outcome.Load:
        """What became of the load."""
        return outcome.load(self.document["events"])

    @cached_property
    def paths(self) -> Mapping[str, Sequence[str]]:
        """Of the sessions, by KSID."""
        return outcome.paths(self.document["events"])

    def rtt(self, a: str, b: str) -> float:
        """The round-trip time between two hosts as measured in this run, ms."""
        return 0.0 if a == b else self._rtts[frozenset((a, b))]


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment: its runs, the figures made of what they showed, and the picture of those."""

    name: str
    title: str
    text: str  # for the report: what was done, in a sentence or two
    runs: Callable[[Settings], list[Run]]
    rows: Callable[[Sequence[Seen], Settings], list[Row]]
    draw: Callable[[Results], Figure] | None  # None of what is a table
    remarks: Callable[[Results], list[str]]  # for the report: what differs from the paper, and why
    words: Mapping[str, str] = field(default_factory=dict)  # what labels are called in tables, with their units
    repeats: int = 6
    quick_repeats: int = 2
    virtual: bool = False  # whether it shows anything where nothing takes time
    topology: str = "poliqi"  # where it is made, unless the user says otherwise


def together(repeat: int, phases: Iterable[Phase], **network: Any) -> list[Run]:
    """All phases in one network, one after another."""
    return [Run(repeat, tuple(phases), **network)]


def apart(repeat: int, phases: Iterable[Phase], **network: Any) -> list[Run]:
    """A network for each phase."""
    return [Run(repeat, (phase,), **network) for phase in phases]


def groups(seen: Sequence[Seen]) -> list[tuple[dict[str, str], list[Seen]]]:
    """What was seen under the same labels, in the order in which labels come up first."""
    found: dict[tuple[tuple[str, str], ...], list[Seen]] = {}
    for one in seen:
        found.setdefault(tuple(one.labels.items()), []).append(one)
    return [(dict(labels), group) for labels, group in found.items()]


def over_repeats(
    experiment: str,
    measure: str,
    unit: str,
    labels: Mapping[str, str],
    group: Sequence[Seen],
    *,
    observe: Callable[[Seen], Sequence[float]],
    summarise: Callable[[Sequence[float]], float],
) -> list[Row]:
    """A row: in each repeat that has any observations, they are summed up; then the median over the repeats."""
    observed = [values for values in map(observe, group) if values]
    return row(
        measure, unit, labels, [summarise(values) for values in observed],
        samples=len(list(itertools.chain.from_iterable(observed))), paper=results.value(experiment, measure, labels),
        software=results.value(experiment, measure, labels, results.SOFTWARE),
    )  # fmt: skip
