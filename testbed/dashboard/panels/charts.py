"""Curves of a QC and the distribution of delivery times, as options of the chart library. PURE.

Series differ by line and by pattern, colours only help.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from testbed.dashboard.collected.snapshot import KEPT_SLOTS, Sample
from testbed.dashboard.views.view_tables import smoothed

_INK, _BLUE, _RED, _PAPER = "#111111", "#0b4f8a", "#a3230f", "#ffffff"
_FONT = {"fontSize": 15, "color": _INK}
# Upper ends of the classes in ms; the last one has none.
BINS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def qc_curves(samples: Sequence[Sample]) -> dict[str, Any]:
    """Two diagrams over the last minutes: bytes a second that were made, used and expired; bytes in stock.

    Keys are asked for in bursts, and bytes expire where they were not used. So these two are means over SMOOTHED_SLOTS.
    """
    newest = samples[-1].slot if samples else 0
    ages = [s.slot - newest for s in samples]
    rates = [
        _line("made", ages, [s.made for s in samples], colour=_INK, kind="solid"),
        _line("used", ages, smoothed([s.used for s in samples]), colour=_BLUE, kind="dashed"),
        _line("expired", ages, smoothed([s.expired for s in samples]), colour=_RED, kind="dotted"),
    ]
    stock = _line("stock", ages, [s.stored for s in samples], colour=_INK, kind="solid")
    stock |= {"xAxisIndex": 1, "yAxisIndex": 1, "areaStyle": {"color": "#c9d3dc"}}
    return {
        "animation": False,
        "textStyle": _FONT,
        "legend": {"top": 0, "data": [r["name"] for r in rates], "textStyle": _FONT, "itemWidth": 44},
        "grid": [
            {"left": 64, "right": 20, "top": 52, "height": 120},
            {"left": 64, "right": 20, "top": 222, "height": 80},
        ],
        "xAxis": [_time_axis(0, show=False), _time_axis(1, show=True)],
        "yAxis": [_axis(0, "bytes a second (used and expired: means of 15 s)"), _axis(1, "bytes in stock")],
        "series": [*rates, stock],
    }


def distribution(single_ms: Sequence[float], multi_ms: Sequence[float]) -> dict[str, Any]:
    """How many deliveries took how long, over one hop and over several."""
    names = [f"≤{b}" for b in BINS_MS] + [f">{BINS_MS[-1]}"]
    hatch = {"symbol": "rect", "color": _INK, "dashArrayX": [1, 0], "dashArrayY": [2, 5], "rotation": 0.8}
    return {
        "animation": False,
        "textStyle": _FONT,
        "legend": {"top": 0, "textStyle": _FONT, "itemWidth": 34},
        "grid": {"left": 56, "right": 16, "top": 40, "bottom": 52},
        "xAxis": {
            "type": "category", "data": names, "name": "delivery time in ms", "nameLocation": "middle", "nameGap": 32,
            "nameTextStyle": _FONT, "axisLabel": {**_FONT, "interval": 0, "fontSize": 13},
        },
        "yAxis": {"type": "value", "minInterval": 1, "axisLabel": _FONT},
        "series": [
            {"type": "bar", "name": "one hop", "data": counts(single_ms), "itemStyle": {"color": _INK}},
            {
                "type": "bar", "name": "several hops", "data": counts(multi_ms),
                "itemStyle": {"color": _PAPER, "borderColor": _INK, "borderWidth": 1.5, "decal": hatch},
            },
        ],
    }  # fmt: skip


def counts(values_ms: Sequence[float]) -> list[int]:
    """How many of the values lie in each class of BINS_MS."""
    found = [0] * (len(BINS_MS) + 1)
    for value in values_ms:
        found[bisect.bisect_left(BINS_MS, value)] += 1
    return found


def _line(name: str, ages: Sequence[int], values: Sequence[float], *, colour: str, kind: str) -> dict[str, Any]:
    points = [[age, round(value, 1)] for age, value in zip(ages, values, strict=True)]
    style = {"color": colour, "type": kind, "width": 3}
    return {
        "type": "line", "name": name, "data": points, "showSymbol": False, "lineStyle": style,
        "itemStyle": {"color": colour},
    }  # fmt: skip


def _time_axis(grid: int, *, show: bool) -> dict[str, Any]:
    return {
        "type": "value", "gridIndex": grid, "min": -KEPT_SLOTS, "max": 0, "interval": 30,
        "axisLabel": {**_FONT, "show": show}, "axisLine": {"onZero": False},
        "name": "seconds ago" if show else "", "nameLocation": "middle",
        "nameGap": 30, "nameTextStyle": _FONT,
    }  # fmt: skip


def _axis(grid: int, name: str) -> dict[str, Any]:
    return {
        "type": "value", "gridIndex": grid, "min": 0, "name": name, "nameTextStyle": {**_FONT, "align": "left"},
        "axisLabel": _FONT, "axisLine": {"onZero": False}, "splitNumber": 3,
    }  # fmt: skip
