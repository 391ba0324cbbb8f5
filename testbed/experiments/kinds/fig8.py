"""Figure 8: what an overloaded network refuses and what it breaks, in each mode, with and without admission. PURE."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from decisions.parameters import KEYS_AHEAD
from scenario.workload import arrivals, parse
from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.outcome import Load
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import (
    Experiment,
    Quick,
    Seen,
    Settings,
    apart,
    groups,
    over_repeats,
    together,
)
from testbed.experiments.planner.bounds import best_acceptance, offered
from testbed.experiments.series import Phase, Run
from testbed.planning.make import make_plan

NAME = "fig8"
# The paper's four, then ours: label, mode, admission.
SCENARIOS = (
    ("BASIC", "basic", "none"),
    ("QKP", "qkp", "none"),
    ("BASIC+REJ", "basic", "eq1"),
    ("QKP+REJ", "qkp", "eq1"),
    ("BASIC+RESERVE", "basic", "reserve"),
    ("OTP+REJ", "otp", "eq1"),
)
PAPERS = 4
MEASURES: dict[str, Callable[[Load], list[float]]] = {
    "applications refused": lambda load: load.refusals,
    "connections with an error": lambda load: load.connections_with_errors,
    "key requests failed": lambda load: load.requests_without_key,
}
FAILED = "applications failed otherwise"
BOUND = "refused by an all-knowing planner"
_QUICK = Quick(applications=52, cut_s=5.0, rush=2.0)
_LEFT_OUT = " and ".join(label for label, *_ in SCENARIOS[PAPERS:])
_QUICK_REMARK = (
    f"A quick look cuts sessions at {_QUICK.cut_s:g} s; so that they overload the network all the same, they arrive"
    f" twice as fast as the workload says. {_LEFT_OUT} are left out. Compare it with the paper by its shape only."
)
_QUICK_LIMIT_S = 10.0
_LIMIT_S = 60.0


def runs(settings: Settings) -> list[Run]:
    """Each scenario in each repeat, under the same sessions; a quick look has all of a repeat's in one network."""
    workload = settings.load("paper", _QUICK)
    found = []
    for repeat in range(1, settings.repeats + 1):
        phases = [
            Phase({"scenario": label}, settings.parameters(mode, admission), workload, settings.phase_seed(repeat),
                  settings.ttl_slots + 1.0)
            for label, mode, admission in (SCENARIOS[:PAPERS] if settings.quick else SCENARIOS)
        ]  # fmt: skip
        found += (together if settings.quick else apart)(repeat, phases, qc_rate=settings.qc_rate())
    return found


def rows(seen: Sequence[Seen], settings: Settings) -> list[Row]:
    """Shares of applications and of requests in percent; where sessions are refused, the planner's share, too.

    That applications fail for another reason than a refusal is not meant to happen. Where it does it is shown.
    """
    found: list[Row] = []
    for labels, group in groups(seen):
        found += shares(NAME, labels, group)
        if any(one.load.failed for one in group):
            found += over_repeats(
                NAME, FAILED, "%", labels, group,
                observe=lambda one: one.load.failures, summarise=statistics.fmean,
            )  # fmt: skip
        if group[0].document["parameters"]["admission"] != "none":
            found += over_repeats(
                NAME, BOUND, "%", labels, group,
                observe=lambda one: [_bound(one, settings)], summarise=statistics.fmean,
            )  # fmt: skip
    return found


def shares(experiment: str, labels: Mapping[str, str], group: Sequence[Seen]) -> list[Row]:
    """The three shares, in percent, of what was seen under these labels."""
    return [
        row
        for measure, share in MEASURES.items()
        for row in over_repeats(
            experiment, measure, "%", labels, group,
            observe=lambda one, share=share: share(one.load), summarise=statistics.fmean,  # type: ignore[misc]
        )
    ]  # fmt: skip


def _bound(one: Seen, settings: Settings) -> float:
    """The smallest share of this phase's sessions, in percent, that a planner would have had to refuse."""
    document = one.document
    arriving = arrivals(parse(document["workload"], "series"), make_plan(settings.topology).saes, document["seed"])
    load = offered(
        settings.topology, arriving, document["made"], mode=one.mode, keys_ahead=KEYS_AHEAD.default,
        ttl_slots=document["parameters"]["ttl_slots"],
    )  # fmt: skip
    return 100 - best_acceptance(load, time_limit_s=_QUICK_LIMIT_S if settings.quick else _LIMIT_S).percent


def draw(results: Results) -> Figure:
    """The paper's Figure 8 with its bars beside ours, a mark for the planner; our own scenarios apart."""
    groups = {
        text: {figures.MEASURE: measure}
        for text, measure in zip(
            ("REJECTION\n(applications\nrefused)", "CONN with ERR\n(connections\nwith an error)",
             "KEY ERR\n(key requests\nfailed)"),
            MEASURES, strict=True,
        )
    }
    shown = [SCENARIOS[:PAPERS]] if results.quick else [SCENARIOS[:PAPERS], SCENARIOS[PAPERS:]]
    quantity = "share, %"
    return figures.bars(results, [
        figures.Panel(quantity, groups, {label: {"scenario": label} for label, *_ in scenarios},
                      {BOUND: BOUND}, "applications refused")
        for scenarios in shown
    ])  # fmt: skip


def remarks(results: Results) -> list[str]:
    """What differs from the paper, and why."""
    return [
        *([_QUICK_REMARK] if results.quick else []),
        "The paper leaves open how applications arrive and end. Its authors' published software draws exponential gaps"
        " and exponential lengths of 60 s on average, cut at 120 s; the mean gap is a setting of that software which is"
        " not published with its results. The workload closest, at a TTL of 20 slots, comes closest to the paper's"
        " values of 640 that were tried; docs/experiments.md says how it was found, how close it comes, and what does"
        " not.",
        "One sentence of the paper (V-D) has 25.4 % fall to 4.4 % and 1.9 % to 0.1 % by QKP; the next one gives 25.4 %"
        " of connections and 4.4 % of keys to BASIC. Drawn is the reading in which both agree: 1.9 % and 0.1 % are of"
        " QKP.",
        "The authors' software differs from the text: an application asks once in 5 s for all of its sessions together"
        " and goes on after a failure (that load ships as the workload prototype); admission subtracts declared"
        " rates, two keys on the first QC even for one hop, from a window that spans 7.5 s. Here it is Equation 1 as"
        " the text has it; reserve is the policy that goes by declared rates.",
        f"{BOUND[0].upper()}{BOUND[1:]}: no policy could refuse fewer without breaking a session. It knows all sessions"
        " and all bytes beforehand, chooses among all paths, and is spared expiry in pools.",
    ]


EXPERIMENT = Experiment(
    NAME, "Figure 8: refusals and failures under load",
    "52 applications come and go and ask for a key of 128 bits every 5 s; the same sessions in each scenario.",
    runs, rows, draw, remarks, virtual=True,
)  # fmt: skip
