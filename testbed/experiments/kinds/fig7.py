"""Figure 7: how long keys take, over one hop, several, and all as often as they occur; low load, no admission. PURE."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.outcome import Delivery
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, groups, over_repeats, together
from testbed.experiments.series import Phase, Run

NAME = "fig7"
MODES = ("basic", "qkp")
HOPS: dict[str, Callable[[Delivery], bool]] = {
    "one hop": lambda d: d.hops == 1,
    "several hops": lambda d: d.hops > 1,
    "all, as they occur": lambda _: True,
}
KINDS: dict[str, Callable[[Delivery], bool]] = {
    "all keys": lambda _: True,
    "refill": lambda d: d.source != "pool",
    "pool hit": lambda d: d.source == "pool",
}
_QUICK = Quick(applications=6, cut_s=5.0)


def runs(settings: Settings) -> list[Run]:
    """A network a repeat, with a phase for each mode."""
    workload = settings.load("low", _QUICK)
    found = []
    for repeat in range(1, settings.repeats + 1):
        phases = [
            Phase({"mode": mode.upper()}, settings.parameters(mode), workload, settings.phase_seed(repeat),
                  settings.ttl_slots + 1.0)
            for mode in MODES
        ]  # fmt: skip
        found += together(repeat, phases, qc_rate=settings.qc_rate(), measure_rtts=True)
    return found


def rows(seen: Sequence[Seen], _settings: Settings) -> list[Row]:
    """The mean of a repeat's keys, as the paper has it; where keys are made ahead, of refills and pool hits apart."""
    found: list[Row] = []
    for labels, group in groups(seen):
        made_ahead = any(d.source == "pool" for one in group for d in one.deliveries)
        for hops, over in HOPS.items():
            for kind, came in KINDS.items():
                if kind != "all keys" and not made_ahead:
                    continue
                found += over_repeats(
                    NAME, "delivery time", "ms", {**labels, "hops": hops, "keys": kind}, group,
                    observe=functools.partial(_times, over=over, came=came), summarise=statistics.fmean,
                )  # fmt: skip
    return found


def _times(one: Seen, over: Callable[[Delivery], bool], came: Callable[[Delivery], bool]) -> list[float]:
    return [d.ms for d in one.deliveries if over(d) and came(d)]


def draw(results: Results) -> Figure:
    """The paper's Figure 7 with its bars beside ours; refills and pool hits of QKP apart."""
    over = {
        "SH KEY TIME\n(one hop)": "one hop",
        "MH KEY TIME\n(several hops)": "several hops",
        "AVG TIME WEIGHTED\n(all, as they occur)": "all, as they occur",
    }
    measure = {figures.MEASURE: "delivery time"}
    papers = figures.Panel(
        "key delivery time, ms",
        {text: {"hops": hops, **measure} for text, hops in over.items()},
        {mode.upper(): {"mode": mode.upper(), "keys": "all keys"} for mode in MODES},
    )
    ours = figures.Panel(
        "key delivery time in QKP, ms",
        {text.replace(", as they", ",\nas they"): {"hops": text, **measure} for text in HOPS},
        {f"QKP, {kind}": {"mode": "QKP", "keys": kind} for kind in ("refill", "pool hit")},
    )
    return figures.bars(results, [papers, ours])


def remarks(results: Results) -> list[str]:
    """What differs from the paper, and why."""
    del results
    return [
        "The time runs from the arrival of a master's request at its node until the answer is ready, as in the paper"
        " (section V-C). The paper's value of QKP is the mean over refills and pool hits (in its authors' software one"
        " refill to four hits; here one refill makes four keys, one of which it delivers); both are shown apart, too.",
        "Links have the delays of the topology, tenths of a millisecond between sites of one city: what remains is work"
        " (TLS, durable commits at nodes and shared database, user-space switching where the kernel has no module).",
    ]


EXPERIMENT = Experiment(
    NAME, "Figure 7: delivery time of a key",
    "Applications share keys at low load, without admission, in BASIC and then in QKP.", runs, rows, draw, remarks,
    words={"hops": "path"},
)  # fmt: skip
