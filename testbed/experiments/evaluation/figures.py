"""How results are drawn, fit to print: bars and lines with their error bars, the paper's values beside ours.

No title is inside a figure: that stands in the text around it. What must not be torn from it is inside: that it is a
quick look, or that times were divided, or that phases failed.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from testbed.experiments.evaluation.results import Results, Row
from testbed.experiments.evaluation.results import value as papers_value

# Okabe and Ito's colours, which people who see colours differently can tell apart; hatches for greyscale.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
_MARKERS = "osD^vP*X"
_STROKES = ("-", ":", "-.")
_DPI = 200
# That surely find room at size "x-small".
_CHARACTERS_AN_INCH = 13
# Letters stay letters: they can be searched, and set in the fonts of the text around them.
_STYLE = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "figure"}
_MISSING = "not measured"
MEASURE = "measure"


@dataclass(frozen=True, slots=True)
class Panel:
    """Groups of bars over one axis.

    `groups` and `series`: what is written there, and the labels of the rows that belong to it, the measure (as
    "measure") among them. There is a bar for each group and each series; one without a row is shown as missing.
    `marks`: what is written, and the measure that is drawn as a line across the bar of `mark_over`.
    """

    quantity: str  # and its unit
    groups: Mapping[str, Mapping[str, str]]
    series: Mapping[str, Mapping[str, str]]
    marks: Mapping[str, str] = field(default_factory=dict)
    mark_over: str = ""


def bars(results: Results, panels: Sequence[Panel]) -> Figure:
    """A figure of panels side by side. Where the paper has a value, it stands as a white bar to the left of ours."""
    pairs = [any(_papers(results, panel, g, s) is not None for g in panel.groups for s in panel.series)
             for panel in panels]  # fmt: skip
    # In inches: room for the bars of a group, and for what is written below it.
    widths = [
        len(p.groups) * max(0.17 * (len(p.series) * (1 + pair) + 1), 0.075 * max(map(_width, p.groups)))
        for p, pair in zip(panels, pairs, strict=True)
    ]
    figure = Figure(figsize=(sum(widths) + 0.9 * len(panels), 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
    looks: dict[str, int] = {}  # of a series, which looks the same in each panel
    for axes, panel, pair in zip(all_axes, panels, pairs, strict=True):
        _panel(axes, results, panel, 2 if pair else 1, looks)
    _finish(figure, all_axes, results)
    return figure


def _panel(axes: Axes, results: Results, panel: Panel, bars_a_series: int, looks: dict[str, int]) -> None:
    width = 0.86 / (len(panel.series) * bars_a_series)
    handles: list[Any] = []
    marks: dict[str, Any] = {}
    for number, kind in enumerate(panel.series):
        appearance = looks.setdefault(kind, len(looks))
        look: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6, "hatch": _HATCHES[appearance % 8]}
        colour = _COLOURS[appearance % 8]
        handles.append(Patch(facecolor=colour, label=kind, **look))
        for place, group in enumerate(panel.groups):
            x = place - 0.43 + width * (number * bars_a_series + bars_a_series - 0.5)
            row = _row(results, panel, group, kind)
            if row is None:
                axes.annotate(_MISSING, (x, 0), (0, 3), textcoords="offset points", rotation=90, ha="center",
                              va="bottom", fontsize="x-small", color="#a00000")  # fmt: skip
            else:
                axes.bar(x, row.estimate.median, 0.92 * width, color=colour, **look)
                axes.errorbar(x, row.estimate.median, _error(row), fmt="none", ecolor="black", capsize=2.5, linewidth=1)
            papers = _papers(results, panel, group, kind)
            if papers is not None:
                axes.bar(x - width, papers, 0.92 * width, color="white", **look)
                # A bar of no height is a line.
                axes.plot([x - 1.46 * width, x - 0.54 * width], [papers] * 2, color="black", linewidth=1.4)
            for mark, measure in panel.marks.items():
                found = _find(results, {**panel.groups[group], **panel.series[kind], MEASURE: measure})
                if panel.groups[group].get(MEASURE) == panel.mark_over and found is not None:
                    ends = [x - 0.46 * width, x + 0.46 * width]
                    (marks[mark],) = axes.plot(
                        ends, [found.estimate.median] * 2, color="black", linewidth=2.5, label=mark
                    )
    if bars_a_series == 2:
        handles.append(Patch(facecolor="white", edgecolor="black", linewidth=0.6, label="white: the paper"))
    handles += marks.values()
    axes.set_xticks(range(len(panel.groups)), list(panel.groups), fontsize="small")
    axes.set_ylabel(panel.quantity)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    if len(handles) > 1:
        axes.legend(handles=handles, fontsize="x-small", framealpha=0.9)


@dataclass(frozen=True, slots=True)
class Lines:
    """A panel a measure, against the label `x`: a line for each combination of the other labels.

    Where these are more than there are colours, the last label has the colour, and the others the stroke.

    `panels`: measures, and what is written at their axes, with the unit. Measures that begin with `dashed` are drawn
    dashed into the panel of the measure that they name. `words`: labels' names as they are written, with their units.
    Values of `x` that are no numbers are not joined.
    """

    x: str
    panels: Mapping[str, str]
    words: Mapping[str, str]
    dashed: str | None = None
    dashed_word: str = ""


def lines(results: Results, drawn: Lines) -> Figure:
    """The figure of `drawn`."""
    shown = [p for p in drawn.panels if any(row.measure == p for row in results.rows)]
    columns = min(3, len(shown))
    deep = math.ceil(len(shown) / columns)
    x, others = drawn.x, [name for name in results.rows[0].labels if name != drawn.x]
    kinds = list(dict.fromkeys(tuple(row.labels[name] for name in others) for row in results.rows))
    many = len(kinds) > len(_COLOURS)
    figure = Figure(figsize=(4.4 * columns + (2.4 if many else 0.4), 3.3 * deep + 0.4), layout="constrained")
    colours, strokes = (list(dict.fromkeys(kind[part] for kind in kinds)) for part in (slice(-1, None), slice(-1)))
    values = list(dict.fromkeys(row.labels[x] for row in results.rows))
    numeric = all(_is_number(value) for value in values)
    all_axes = []
    for place, panel in enumerate(shown, start=1):
        axes = figure.add_subplot(deep, columns, place)
        for number, kind in enumerate(kinds):
            colour, stroke = (colours.index(kind[-1:]), strokes.index(kind[:-1])) if many else (number, 0)
            for measure, dashed in ((panel, False), (f"{drawn.dashed}{panel}", True)):
                rows = [
                    r for r in results.rows
                    if r.measure == measure and tuple(r.labels[name] for name in others) == kind
                ]  # fmt: skip
                if not rows or (dashed and drawn.dashed is None):
                    continue
                # Beside one another, so that error bars of categories do not hide each other.
                aside = 0.0 if numeric else 0.5 * ((number + 0.5) / len(kinds) - 0.5)
                at = [float(r.labels[x]) if numeric else values.index(r.labels[x]) + aside for r in rows]
                axes.errorbar(
                    at, [r.estimate.median for r in rows],
                    None if dashed else [[_error(r)[side][0] for r in rows] for side in (0, 1)],
                    linestyle="--" if dashed else _STROKES[stroke % 3] if numeric else "none",
                    marker=None if dashed else _MARKERS[colour % 8], capsize=2.5, color=_COLOURS[colour % 8],
                    fillstyle="none" if stroke else "full",
                    label=", ".join([*kind, *([drawn.dashed_word] if dashed else [])]) or None,
                )  # fmt: skip
        axes.set_xlabel(drawn.words.get(x, x))
        axes.set_ylabel(drawn.panels[panel])
        axes.set_ylim(bottom=0)
        if not numeric:
            axes.set_xticks(range(len(values)), values)
            axes.set_xlim(-0.5, len(values) - 0.5)
        title = ", ".join(drawn.words.get(name, name) for name in others)
        if any(kinds) and not many:
            axes.legend(fontsize="x-small", title=title, title_fontsize="x-small")
        elif many and not figure.legends:
            figure.legend(
                *axes.get_legend_handles_labels(), loc="outside right upper", fontsize="x-small", title=title,
                title_fontsize="x-small",
            )  # fmt: skip
        all_axes.append(axes)
    _finish(figure, all_axes, results)
    return figure


def curves(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], quantity: str) -> Figure:
    """A panel for each quantity that `panels` names, with a line for each kind: points (x, mean, half of an interval).

    All panels have the same kinds, and the same axis of `quantity`.
    """
    figure = Figure(figsize=(2.8 * len(panels) + 1.8, 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (x, kinds) in zip(all_axes, panels.items(), strict=True):
        for number, (kind, points) in enumerate(kinds.items()):
            at, means, halves = zip(*sorted(points), strict=True)
            axes.errorbar(
                at, means, halves, color=_COLOURS[number % 8], linestyle="-" if number < 8 else "--",
                marker=_MARKERS[number % 8], markersize=4, linewidth=1, capsize=2, label=kind,
            )  # fmt: skip
        axes.set_xlabel(x)
    all_axes[0].set_ylabel(quantity)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="x-small")
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """As PNG, SVG and PDF, the same bytes for the same results."""
    found = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".pdf")]
    with mpl.rc_context(_STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(found[0], dpi=_DPI, metadata={"Software": None})
        FigureCanvasSVG(figure)
        figure.savefig(found[1], metadata={"Date": None, "Creator": None})
        FigureCanvasPdf(figure)
        figure.savefig(found[2], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return found


def _finish(figure: Figure, all_axes: Sequence[Axes], results: Results) -> None:
    for axes in all_axes:
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    told = results.warnings
    if told:
        # Wrapped by hand: figures that lay themselves out clip what is too long.
        below = textwrap.wrap("; ".join(told), int(_CHARACTERS_AN_INCH * figure.get_figwidth()))
        figure.supxlabel("\n".join(below), fontsize="x-small", color="#a00000")


def _row(results: Results, panel: Panel, group: str, kind: str) -> Row | None:
    return _find(results, {**panel.groups[group], **panel.series[kind]})


def _find(results: Results, wanted: Mapping[str, str]) -> Row | None:
    return next((r for r in results.rows if wanted.items() <= {MEASURE: r.measure, **r.labels}.items()), None)


def _papers(results: Results, panel: Panel, group: str, kind: str) -> float | None:
    labels = {**panel.groups[group], **panel.series[kind]}
    return papers_value(results.experiment, labels.pop(MEASURE), labels)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def _error(row: Row) -> list[list[float]]:
    found = row.estimate
    return [[found.median - found.low], [found.high - found.median]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
