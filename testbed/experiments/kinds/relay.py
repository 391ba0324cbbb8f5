"""What relays cost: delivery time, key material and who learned the key, in each mode, over one hop to six. PURE."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from decisions.exposure import SHARED_KEY, THE_KEY
from scenario.scenario import carried_modes
from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.experiment import Experiment, Quick, Seen, Settings, groups, over_repeats, together
from testbed.experiments.series import Phase, Run

NAME = "relay"
DELAYS_MS = (0, 20)
WORDS = {"hops": "hops", "delay ms": "one-way delay of a link, ms", "mode": "mode"}
DELIVERY, MATERIAL = "delivery", "material"
LEARNED = {f"relays that learned {what}": what for what in (THE_KEY, SHARED_KEY)}
_QUICK = Quick(applications=42, cut_s=3.9)


def runs(settings: Settings) -> list[Run]:
    """A network for each delay and repeat, with a phase for each mode; in virtual time there is no delay."""
    workload = settings.load("relay", _QUICK)
    found = []
    for repeat in range(1, settings.repeats + 1):
        for delay in DELAYS_MS[:1] if settings.virtual else DELAYS_MS:
            phases = [
                Phase({"delay ms": str(delay), "mode": mode.upper()}, settings.parameters(mode), workload,
                      settings.phase_seed(repeat), 1.0 if settings.quick else 4.0)
                for mode in carried_modes(settings.topology)
            ]  # fmt: skip
            found += together(repeat, phases, delay_ms=float(delay), qc_rate=settings.qc_rate())
    return found


def rows(seen: Sequence[Seen], settings: Settings) -> list[Row]:
    """By number of hops: medians of a repeat's keys that were made for their request; means over all keys made."""
    found: list[Row] = []
    most = max((made.hops for one in seen for made in one.allocations), default=0)
    for labels, group in groups(seen):
        for hops in range(1, most + 1):
            where = {**labels, "hops": str(hops)}
            found += over_repeats(
                NAME, DELIVERY, "ms", where, group, observe=functools.partial(_delivery, hops),
                summarise=statistics.median,
            )  # fmt: skip
            found += over_repeats(
                NAME, MATERIAL, "bytes", where, group, observe=functools.partial(_material, hops),
                summarise=statistics.fmean,
            )  # fmt: skip
            for measure, what in LEARNED.items():
                found += over_repeats(
                    NAME, measure, "nodes", where, group, observe=functools.partial(_learned, what, hops),
                    summarise=statistics.fmean,
                )  # fmt: skip
    return found if not settings.virtual else [row for row in found if row.measure != DELIVERY]


def _delivery(hops: int, one: Seen) -> list[float]:
    """Times of keys that were made for their request, ms."""
    return [d.ms for d in one.deliveries if d.hops == hops and d.source != "pool"]


def _material(hops: int, one: Seen) -> list[float]:
    """Bytes of all QCs together that each key took."""
    return [made.n_bytes / made.keys for made in one.allocations if made.hops == hops for _ in range(made.keys)]


def _learned(what: str, hops: int, one: Seen) -> list[float]:
    """How many relays learned that of each key."""
    return [float(made.learned[what]) for made in one.allocations if made.hops == hops for _ in range(made.keys)]


def draw(results: Results) -> Figure:
    """Lines against the number of hops."""
    panels = {
        DELIVERY: "key delivery time, ms", MATERIAL: "key material of all QCs, bytes a key",
        **{measure: f"{measure}, a key" for measure in LEARNED},
    }  # fmt: skip
    return figures.lines(results, figures.Lines("hops", panels, WORDS))


def remarks(_results: Results) -> list[str]:
    """What to know when reading it."""
    return [
        "Keys of 128 bits in seven columns of nodes, an application in each, which asks for keys with each other one."
        " Delivery is that of keys made for their request; a key from a pool crosses no link.",
        "A relay learned what was in its memory. In PARALLEL it has pads only; what is under them crosses the network"
        " inside TLS. Over several paths a relay cannot know the key, whatever it has: it could know one part of it.",
        "Over several paths hops are those of the longest one. Neighbours have a path of one hop, and others of three:"
        " so three hops stand for four links or for six in PATHS-2, for seven or for nine over three paths.",
    ]


EXPERIMENT = Experiment(
    NAME, "What relays cost", "A low load in seven columns of nodes, in each mode.", runs, rows, draw, remarks,
    words=WORDS, virtual=True, topology="trellis",
)  # fmt: skip
