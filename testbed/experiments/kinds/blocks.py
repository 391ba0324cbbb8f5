"""Figure 8 where devices hand over their key in blocks: the same load, and the same key material in the mean. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, apart, groups, together
from testbed.experiments.kinds.fig8 import MEASURES, PAPERS, SCENARIOS, shares
from testbed.experiments.series import Phase, Run

NAME = "blocks"
EVERY, TTL = "key material every, s", "TTL, slots"
USUAL = 15
# How often a QC brings key material, and the TTL: the usual one, and that of a network with such QCs, which the QC that
# brings some each slot is given once as well.
MATERIAL = ((1, USUAL), (30, USUAL), (133, USUAL), (30, 60), (133, 266), (1, 266))
_QUICK = ((1, USUAL), (30, USUAL), (30, 60))
_QUICK_LOAD = Quick(applications=52, cut_s=5.0, rush=2.0)


def runs(settings: Settings) -> list[Run]:
    """The paper's four scenarios with each material in each repeat, under the same sessions."""
    workload = settings.load("paper", _QUICK_LOAD)
    found = []
    for repeat in range(1, settings.repeats + 1):
        for every_s, usual_ttl in _QUICK if settings.quick else MATERIAL:
            ttl_slots = settings.slots(usual_ttl)
            phases = [
                Phase({EVERY: str(every_s), TTL: str(usual_ttl), "scenario": label},
                      settings.parameters(mode, admission) | {"ttl_slots": ttl_slots}, workload,
                      settings.phase_seed(repeat), ttl_slots + 1.0)
                for label, mode, admission in SCENARIOS[:PAPERS]
            ]  # fmt: skip
            blocks_s = None if every_s == 1 else every_s / settings.speed
            made = together if settings.quick else apart
            found += made(repeat, phases, qc_rate=settings.qc_rate(), blocks_s=blocks_s)
    return found


def rows(seen: Sequence[Seen], _settings: Settings) -> list[Row]:
    """Shares of applications and of requests in percent."""
    return [row for labels, group in groups(seen) for row in shares(NAME, labels, group)]


def draw(results: Results) -> Figure:
    """A panel for each share, a bar for each material."""
    materials = list(dict.fromkeys((row.labels[EVERY], row.labels[TTL]) for row in results.rows))
    series = {
        f"every {'slot' if every_s == '1' else f'{every_s} s'}, TTL {ttl}": {EVERY: every_s, TTL: ttl}
        for every_s, ttl in materials
    }
    return figures.bars(results, [
        figures.Panel(f"{measure}, %",
                      {label.replace("+", "\n+"): {"scenario": label, figures.MEASURE: measure}
                       for label, *_ in SCENARIOS[:PAPERS]}, series)
        for measure in MEASURES
    ])  # fmt: skip


def remarks(results: Results) -> list[str]:
    """What to know when reading it."""
    quick = "A quick look has blocks every 30 s alone, and sessions that are cut short and arrive twice as fast."
    return [
        *([quick] if results.quick else []),
        "A device that distils its key in blocks, for instance every 133 s, brings as much as one that brings some each"
        " second, but all at once. The unit of age is the block as it arrives. Under the TTL of 15 slots there is no"
        " key material for 118 of 133 s. Networks with such QCs have a TTL twice as long as a QC may bring nothing,"
        " unless somebody says another one.",
        "Devices begin at moments of their own. A longer TTL lets a QC have more in stock when the load begins: so the"
        " device that brings some each second is shown under the longest TTL, too.",
    ]


EXPERIMENT = Experiment(
    NAME, "Key material in blocks", "Figure 8's load, where QCs bring the same key material in blocks.",
    runs, rows, draw, remarks, virtual=True,
)  # fmt: skip
