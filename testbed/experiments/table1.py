"""Table I: how long the steps of a key session's initialisation take at very low load. PURE."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from testbed.experiments import figures
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, groups, over_repeats, together
from testbed.experiments.results import Results, Row
from testbed.experiments.series import Phase, Run

NAME = "table1"
STEPS = {
    "t1": "ask_connection: the master calls the slave until that has registered and answered",
    "t2": "new_app: from the master's node to the controller",
    "t3": "both have registered until path, agents and KSID are settled, at the controller",
    "t4": "all of it, until the master knows its KSID",
}
_QUICK = Quick(applications=10, cut_s=1.0)


def runs(settings: Settings) -> list[Run]:
    """A network a repeat, in which sessions are opened one after another."""
    workload = settings.load("initialisation", _QUICK)
    return [
        run
        for repeat in range(1, settings.repeats + 1)
        for run in together(
            repeat,
            [Phase({"load": "very low"}, settings.parameters("basic"), workload, settings.phase_seed(repeat), 1.0)],
            qc_rate=settings.qc_rate(), measure_rtts=True,
        )
    ]  # fmt: skip


def rows(seen: Sequence[Seen], _settings: Settings) -> list[Row]:
    """t1 to t4: the mean of a repeat's sessions, as the paper has it."""
    return [
        found
        for _, group in groups(seen)
        for step in STEPS
        for found in over_repeats(
            NAME, "initialisation", "ms", {"step": step}, group,
            observe=lambda one, step=step: [getattr(i, step) for i in one.initialisations],  # type: ignore[misc]
            summarise=statistics.fmean,
        )
    ]  # fmt: skip


def draw(results: Results) -> Figure:
    """Bars, a step each."""
    return figures.bars(results, groups=("step",), series=(), unit="ms")


def remarks(results: Results) -> list[str]:
    """What to know when reading it."""
    return [
        *(f"{step}: {text}." for step, text in STEPS.items()),
        "All steps are over mutual TLS, over connections that are open already: before anything is measured each pair"
        " of applications has had a session.",
        *figures.missing_values(results),
    ]


EXPERIMENT = Experiment(
    NAME, "Table I: initialisation of key sessions", "Key sessions are opened one after another, at very low load.",
    runs, rows, draw, remarks,
)  # fmt: skip
