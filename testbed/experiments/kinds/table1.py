"""Table I: how long the steps of a key session's initialisation take at very low load. PURE."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from testbed.experiments.evaluation.outcome import Initialisation
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, groups, over_repeats, together
from testbed.experiments.series import Phase, Run

NAME = "table1"
# The paper's, then ours. Each with what it is.
STEPS: dict[str, tuple[str, Callable[[Initialisation], float]]] = {
    "t1": ("open_key_session of the slave at its node, until that answers", lambda i: i.t1),
    "t2": ("within t1: new_app of that node to the controller, until it is acknowledged", lambda i: i.t2),
    "t3": ("open_key_session of the master at its node, until that answers with the KSID", lambda i: i.t3),
    "t4": ("within t3: new_app of that node to the controller, until the KSID is there", lambda i: i.t4),
    "ask_connection": ("ours: the master calls the slave, until that has registered (t1) and answered",
                       lambda i: i.ask_connection),
    "whole": ("ours: what the master waits in all, ask_connection and t3", lambda i: i.whole),
}  # fmt: skip
# As the paper arranges them: its rows, and the times in its columns "QC Node" and "Controller".
ARRANGED = {"Slave SAE": ("t1", "t2"), "Master SAE": ("t3", "t4")}
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
    """The mean of a repeat's sessions, as the paper has it."""
    return [
        found
        for _, group in groups(seen)
        for step, (_, took) in STEPS.items()
        for found in over_repeats(
            NAME, "initialisation", "ms", {"step": step}, group,
            observe=lambda one, took=took: [took(i) for i in one.initialisations],  # type: ignore[misc]
            summarise=statistics.fmean,
        )
    ]  # fmt: skip


def remarks(results: Results) -> list[str]:
    """What to know when reading it."""
    del results
    return [
        *(f"{step}: {text}." for step, (text, _) in STEPS.items()),
        "All calls go by mutual TLS, over connections that are open already: before anything is measured each pair of"
        " applications has had a session.",
        "The paper's prototype has no TLS between its parts, and ran as threads of one process on a laptop of another"
        " year; here each part is a process of its own on a network with delays of tenths of a millisecond. What can be"
        " compared: t3 is longer than t1, because the controller checks the path and informs its nodes within t4.",
    ]


EXPERIMENT = Experiment(
    NAME, "Table I: initialisation of key sessions", "Key sessions are opened one after another, at very low load.",
    runs, rows, None, remarks,
)  # fmt: skip
