"""How results are drawn: bars and lines with their error bars, the paper's values beside them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from testbed.experiments.results import Results, Row

# Okabe and Ito's colours, which people who see colours differently can tell apart; hatches for greyscale.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
_MARKERS = "osD^vP*X"
_DPI = 150
# That surely find room at size "x-small".
_CHARACTERS_AN_INCH = 13


def bars(
    results: Results,
    *,
    groups: Sequence[str],
    series: Sequence[str],
    unit: str,
    marks: Mapping[str, str] | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Groups of bars. `groups` and `series` name labels ("measure" is the measure); `marks` are measures that are
    drawn as a line across the bar of another measure."""
    marks = marks or {}
    shown = [row for row in results.rows if row.measure not in marks]
    places = list(dict.fromkeys(_key(row, groups) for row in shown))
    kinds = list(dict.fromkeys(_key(row, series) for row in shown))
    figure = Figure(figsize=(max(6.0, 1.2 + 0.42 * len(places) * (len(kinds) + 1)), 4.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(kinds)
    seen_paper = seen_mark = False
    for number, kind in enumerate(kinds):
        for row in (r for r in shown if _key(r, series) == kind):
            x = places.index(_key(row, groups)) + (number - (len(kinds) - 1) / 2) * width
            label = " ".join(kind) if row is next(r for r in shown if _key(r, series) == kind) and series else None
            axes.bar(
                x, row.estimate.median, 0.92 * width, color=_COLOURS[number % 8], hatch=_HATCHES[number % 8],
                edgecolor="black", linewidth=0.6, label=label,
            )  # fmt: skip
            axes.errorbar(x, row.estimate.median, _error(row), fmt="none", ecolor="black", capsize=3, linewidth=1.2)
            if row.paper is not None:
                name = None if seen_paper else "the paper"
                axes.plot(x, row.paper, "D", color="white", markeredgecolor="black", markersize=7, label=name, zorder=5)
                seen_paper = True
            for mark in (m for m in results.rows if marks.get(m.measure) == row.measure and m.labels == row.labels):
                ends = [x - width / 2, x + width / 2]
                name = None if seen_mark else mark.measure
                axes.plot(ends, [mark.estimate.median] * 2, color="red", linewidth=2.5, label=name, zorder=4)
                seen_mark = True
    axes.set_xticks(range(len(places)), ["\n".join(place) for place in places])
    axes.set_ylabel(unit)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    if series or seen_paper:
        axes.legend(fontsize="small")
    _finish(figure, [axes], results)
    return figure


def lines(results: Results, *, x: str, panels: Sequence[str], dashed: str | None, x_title: str) -> Figure:
    """A panel a measure, against label `x`; a line for each combination of the other labels. Measures that begin with
    `dashed` are drawn dashed into the panel of the measure that they name."""
    shown = [p for p in panels if any(row.measure == p for row in results.rows)]
    columns = min(3, len(shown))
    deep = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(5.2 * columns + 0.4, 3.6 * deep + 0.8), layout="constrained")
    kinds = list(dict.fromkeys(_others(row, x) for row in results.rows))
    values = list(dict.fromkeys(row.labels[x] for row in results.rows))
    numeric = all(_is_number(value) for value in values)
    all_axes = []
    for place, panel in enumerate(shown, start=1):
        axes = figure.add_subplot(deep, columns, place)
        for kind in kinds:
            for measure, style in ((panel, "-"), (f"{dashed}{panel}", "--")):
                rows = [r for r in results.rows if r.measure == measure and _others(r, x) == kind]
                if not rows or (style == "--" and dashed is None):
                    continue
                at = [float(r.labels[x]) if numeric else values.index(r.labels[x]) for r in rows]
                axes.errorbar(
                    at, [r.estimate.median for r in rows],
                    [[_error(r)[side][0] for r in rows] for side in (0, 1)],
                    linestyle=style, marker=_MARKERS[kinds.index(kind) % 8] if style == "-" else None, capsize=3,
                    color=_COLOURS[kinds.index(kind) % 8],
                    label=" ".join([*kind, *(["floor"] if style == "--" else [])]) or None,
                )  # fmt: skip
        axes.set_title(panel)
        axes.set_xlabel(x_title)
        axes.set_ylabel(next(r.unit for r in results.rows if r.measure == panel))
        axes.set_ylim(bottom=0)
        if not numeric:
            axes.set_xticks(range(len(values)), values)
        if any(kinds):
            axes.legend(fontsize="x-small")
        all_axes.append(axes)
    _finish(figure, all_axes, results)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """As PNG and as SVG, the same bytes for the same results."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    FigureCanvasAgg(figure)
    figure.savefig(png, dpi=_DPI, metadata={"Software": None})
    FigureCanvasSVG(figure)
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def missing_values(results: Results) -> list[str]:
    """A remark on what cannot be compared."""
    if all(row.paper is not None for row in results.rows):
        return []
    return [
        "Where no value of the paper is drawn, the paper has none for that bar, or it is not known here: values are"
        " added in testbed/experiments/paper.yaml."
    ]


def _finish(figure: Figure, all_axes: Sequence[Axes], results: Results) -> None:
    for axes in all_axes:
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    quick = "QUICK LOOK, SMALL SAMPLES: " if results.quick else ""
    failed = f"; {len(results.failed)} failed phases left out" if results.failed else ""
    speed = results.settings.get("speed", 1)
    times = f"times divided by {speed}; " if speed != 1 else ""
    below = f"{quick}{times}{results.error_bars}; seed {results.seed}; links shaped by {results.shaper}{failed}"
    # Wrapped by hand: figures that lay themselves out clip what is too long.
    below = "\n".join(textwrap.wrap(below, int(_CHARACTERS_AN_INCH * figure.get_figwidth())))
    figure.suptitle(results.title)
    figure.supxlabel(below, fontsize="x-small", color="#a00000" if results.quick or results.failed else "black")


def _error(row: Row) -> list[list[float]]:
    found = row.estimate
    return [[found.median - found.low], [found.high - found.median]]


def _key(row: Row, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.measure if name == "measure" else row.labels.get(name, "") for name in names)


def _others(row: Row, x: str) -> tuple[str, ...]:
    return tuple(value for name, value in row.labels.items() if name != x)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
