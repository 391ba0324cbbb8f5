"""A sweep over anything: one load, all combinations of the values asked for. PURE but for the user's policies."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure

from decisions import user_policies
from decisions.parameters import ADMISSION, KEYS_AHEAD, MECHANISM, MODE, PATH_POLICY, TTL, parse_rate
from decisions.rekey import PACES, POLICIES
from documents import plugged
from documents.checks import Malformed
from documents.plugged import PlugError
from scenario.workload import Distribution, Workload
from testbed.errors import UserError
from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, groups, over_repeats, together
from testbed.experiments.series import Phase, Run

NAME = "sweep"
MEASURES: dict[str, tuple[str, Callable[[Seen], Sequence[float]]]] = {
    "key delivery time, one hop": ("ms", lambda one: [d.ms for d in one.deliveries if d.hops == 1]),
    "key delivery time, several hops": ("ms", lambda one: [d.ms for d in one.deliveries if d.hops > 1]),
    "whole initialisation of a session": ("ms", lambda one: [i.whole for i in one.initialisations]),
    "applications refused": ("%", lambda one: one.load.refusals),
    "connections with an error": ("%", lambda one: one.load.connections_with_errors),
    "key requests failed": ("%", lambda one: one.load.requests_without_key),
}
_QUICK = Quick(applications=26, cut_s=4.0)
_MOST_POINTS = 500


@dataclass(frozen=True, slots=True)
class _Point:
    """One combination: its labels, and what it changes of parameters, load and network.

    `policies`: those of the user's own, FILE.py:NAME by parameter.
    """

    labels: Mapping[str, str]
    parameters: Mapping[str, Any]
    workload: Workload
    delay_ms: float | None
    qc_rate: tuple[int, int] | None
    policies: Mapping[str, str]


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UserError(f"expected a number from {low:g} to {high:g}")
    return value


def _whole(text: str, low: int, high: int) -> int:
    value = _number(text, low, high)
    if value != int(value):
        raise UserError("expected a whole number")
    return int(value)


def _one_of(text: str, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise UserError(f"expected one of {', '.join(allowed)}")
    return text


def _as(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read`, for a user."""

    def parse(text: str) -> Any:
        try:
            return read(text)
        except Malformed as error:
            raise UserError(f"expected {error.expected}") from None

    return parse


def _mean(name: str) -> Callable[[Workload, str], Workload]:
    """Changes the mean of a distribution; its kind and its cut stay."""

    def change(workload: Workload, text: str) -> Workload:
        given: Distribution = getattr(workload, name)
        value = _number(text, 0.001, 86_400)
        scale = value / given.mean if given.mean else 0.0
        changes: dict[str, Any] = {name: replace(given, first=given.first * scale, second=given.second * scale)}
        return replace(workload, **changes)

    return change


_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "mode": (MODE.name, _as(MODE.parse)),
    "admission": (ADMISSION.name, _as(ADMISSION.parse)),
    "paths": (PATH_POLICY.name, _as(PATH_POLICY.parse)),
    "mechanism": (MECHANISM.name, _as(MECHANISM.parse)),
    "ttl": (TTL.name, _as(TTL.parse)),
    "keys-ahead": (KEYS_AHEAD.name, _as(KEYS_AHEAD.parse)),
}
_LOADS: dict[str, Callable[[Workload, str], Workload]] = {
    "gap": _mean("gap_s"),
    "length": _mean("length_s"),
    "interval": _mean("interval_s"),
    "key-size": _mean("key_size_bits"),
    "applications": lambda workload, text: replace(workload, applications=_whole(text, 1, 100_000)),
    "on-key-failure": lambda workload, text: replace(workload, on_key_failure=_one_of(text, POLICIES)),
    "pace": lambda workload, text: replace(workload, pace=_one_of(text, PACES)),
}
_NETWORKS: dict[str, Callable[[str], Any]] = {
    "delay": lambda text: _number(text, 0, 60_000),
    "qc-rate": _as(parse_rate),
}
NAMES = ("workload", *_PARAMETERS, *_LOADS, *_NETWORKS)
# As they are written at axes and in tables.
WORDS = {
    "ttl": "TTL, slots",
    "keys-ahead": "keys made ahead",
    "gap": "mean gap between arrivals, s",
    "length": "mean length of a session, s",
    "interval": "mean interval between keys, s",
    "key-size": "mean key size, bits",
    "on-key-failure": "on a key failure",
    "pace": "pace of requests",
    "delay": "one-way delay of a link, ms",
    "qc-rate": "rate of a QC, bytes a slot",
}


def points(settings: Settings) -> list[_Point]:
    """All combinations; UserError names what cannot be swept over, and why."""
    for name in settings.over:
        if name not in NAMES:
            raise UserError(f"--over {name}: expected one of {', '.join(NAMES)}")
        if settings.virtual and name == "delay":
            raise UserError("--over delay: expected no delays with --virtual, where nothing takes time")
    combinations = list(itertools.product(*settings.over.values()))
    if len(combinations) > _MOST_POINTS:
        raise UserError(f"--over: {len(combinations)} combinations are more than {_MOST_POINTS}")
    return [_point(settings, dict(zip(settings.over, values, strict=True))) for values in combinations]


def _point(settings: Settings, values: Mapping[str, str]) -> _Point:
    chosen = values.get("workload")
    if chosen is not None and chosen not in settings.workloads:
        raise UserError(f"--over workload={chosen}: expected one of {', '.join(sorted(settings.workloads))}")
    workload = settings.workloads[chosen or settings.workload or "paper"]
    parameters = settings.parameters("basic")
    network: dict[str, Any] = {"delay": None, "qc-rate": settings.qc_rate()}
    policies: dict[str, str] = {}
    for name, text in values.items():
        try:
            if name in _PARAMETERS:
                member, read = _PARAMETERS[name]
                if ":" in text:
                    policies[member] = plugged.absolute(text)
                    parameters |= user_policies.use({member: policies[member]})
                else:
                    parameters[member] = read(text)
            elif name in _LOADS:
                workload = _LOADS[name](workload, text)
            elif name in _NETWORKS:
                network[name] = _NETWORKS[name](text)
        except (UserError, PlugError) as error:
            raise UserError(f"--over {name}={text}: {error}") from None
    load = settings.load("paper", _QUICK, lambda _: workload)
    if "ttl" in values:
        parameters["ttl_slots"] = settings.slots(parameters["ttl_slots"])
    if "qc-rate" in values:
        network["qc-rate"] = tuple(settings.speed * rate for rate in network["qc-rate"])
    return _Point(values, parameters, load, network["delay"], network["qc-rate"], policies)


def runs(settings: Settings) -> list[Run]:
    """Points that need the same network and the same habits of applications share one in a quick look."""
    found, wanted = [], points(settings)
    for repeat in range(1, settings.repeats + 1):
        networks: dict[Any, list[Phase]] = {}
        for point in wanted:
            phase = Phase(point.labels, point.parameters, point.workload, settings.phase_seed(repeat),
                          point.parameters["ttl_slots"] + 1.0)  # fmt: skip
            habits = tuple(point.workload.habits.items())
            shared = None if settings.quick else tuple(point.labels.items())
            own = tuple(point.policies.items())
            networks.setdefault((point.delay_ms, point.qc_rate, own, habits, shared), []).append(phase)
        for (delay_ms, qc_rate, own, *_), phases in networks.items():
            found += together(repeat, phases, delay_ms=delay_ms, qc_rate=qc_rate, policies=dict(own))
    return found


def rows(seen: Sequence[Seen], settings: Settings) -> list[Row]:
    """Every measure at every point: means of a repeat. In virtual time there are no times to measure."""
    return [
        found
        for labels, group in groups(seen)
        for measure, (unit, observe) in MEASURES.items()
        if not (settings.virtual and unit == "ms")
        for found in over_repeats(NAME, measure, unit, labels, group, observe=observe, summarise=statistics.fmean)
    ]


def draw(results: Results) -> Figure:
    """A panel for each measure against what is swept over first, a line for each combination of the rest."""
    first = next(iter(results.settings["over"]))
    panels = {measure: f"{measure}, {unit}" for measure, (unit, _) in MEASURES.items()}
    return figures.lines(results, figures.Lines(first, panels, WORDS))


def remarks(results: Results) -> list[str]:
    """What to know when reading it."""
    over = "; ".join(f"{name} = {', '.join(values)}" for name, values in results.settings["over"].items())
    return [f"Swept over {over}."]


EXPERIMENT = Experiment(
    NAME, "A sweep", "One load under all combinations of the values asked for.", runs, rows, draw, remarks, words=WORDS,
    virtual=True,
)
