"""The map: drawn once for a viewer, then brought up to date mark by mark, so that a focus stays where it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from testbed.dashboard.views.selection import Selection, View
from testbed.dashboard.views.view_map import HEIGHT, LABEL_WIDTH, WIDTH, LinkMark, MapView, NodeMark, draw
from testbed.dashboard.widgets import Panel, Tag, pressable

_BOX_WIDTH, _BOX_HEIGHT = 206, 74
_LINE = 24
_LEGEND = (
    ("up", "up"), ("changed", "not shaped as planned"), ("no-key", "no new key"), ("down", "cut"),
    ("on-path", "path of the session"),
)  # fmt: skip


class MapPanel:
    """Nodes and links; a click, Enter or Space selects one."""

    def __init__(self, select: Callable[[Selection], None]) -> None:
        self._select = select
        self._nodes: dict[Selection, _Node] = {}
        self._links: dict[Selection, _Link] = {}
        with Panel("map", "Network"):
            self._svg = Tag("svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="group", aria_label="Map of the network")
            with Tag("div", "", "legend", aria_label="Legend"):
                for kind, words in _LEGEND:
                    with Tag("span", "", "entry"):
                        with Tag("svg", "", f"link {kind}", viewBox="0 0 60 20", aria_hidden="true"):
                            _lines({"x1": 4, "y1": 10, "x2": 56, "y2": 10})
                        Tag("span", words)

    def show(self, view: View) -> None:
        """Bring the map up to date."""
        marks = draw(view.plan, view.snapshot, view.selection)
        if not self._nodes:
            self._build(marks)
        for link in marks.links:
            self._links[link.selection].show(link)
        for node in marks.nodes:
            self._nodes[node.selection].show(node)

    def _build(self, marks: MapView) -> None:
        with self._svg:
            for link in marks.links:
                self._links[link.selection] = _Link(link, marks.scale, self._select)
            for node in marks.nodes:
                self._nodes[node.selection] = _Node(node, marks.scale, self._select)


def _lines(ends: dict[str, Any]) -> None:
    """A link's line: what lies around it, the line itself, and what lies in it."""
    for part in ("halo", "body", "core"):
        Tag("line", "", part, **ends)


class _Node:
    def __init__(self, mark: NodeMark, scale: float, select: Callable[[Selection], None]) -> None:
        with pressable(Tag("g", "", "node", transform=f"translate({mark.x} {mark.y}) scale({scale:.2f})"),
                       lambda: select(mark.selection)) as self._group:  # fmt: skip
            Tag("rect", "", "box", x=-_BOX_WIDTH / 2, y=-_BOX_HEIGHT / 2, width=_BOX_WIDTH, height=_BOX_HEIGHT, rx=10)
            Tag("text", mark.title, "title", y=-6)
            self._line = Tag("text", "", "line", y=24)

    def show(self, mark: NodeMark) -> None:
        self._group.look(f"node {mark.state}{' selected' if mark.selected else ''}")
        self._group.put({"aria_label": mark.words, "aria_pressed": "true" if mark.selected else "false"})
        self._line.say(mark.line)


class _Link:
    def __init__(self, mark: LinkMark, scale: float, select: Callable[[Selection], None]) -> None:
        x1, y1, x2, y2 = mark.ends
        with pressable(Tag("g", "", "link"), lambda: select(mark.selection)) as self._group:
            _lines({"x1": x1, "y1": y1, "x2": x2, "y2": y2})
            # A line is hard to hit: a broad one that nobody sees takes the clicks.
            Tag("line", "", "target", x1=x1, y1=y1, x2=x2, y2=y2)
            place = f"translate({mark.label_at[0]} {mark.label_at[1]}) scale({scale:.2f})"
            with Tag("g", "", "label", transform=place) as self._label:
                self._paper = Tag("rect", "", "paper")
                self._texts = [Tag("text"), Tag("text")]
                self._frame = Tag("rect", "", "gauge")
                self._level = Tag("rect", "", "level")

    def show(self, mark: LinkMark) -> None:
        classes = ["link", mark.state, *(["selected"] if mark.selected else []), *(["on-path"] if mark.on_path else [])]
        self._group.look(" ".join(classes))
        self._group.put({"aria_label": mark.words, "aria_pressed": "true" if mark.selected else "false"})
        self._label.put({"visibility": "visible" if mark.lines else "hidden"})
        height = _LINE * len(mark.lines) + 26
        self._paper.put({"x": -LABEL_WIDTH / 2, "y": -height / 2, "width": LABEL_WIDTH, "height": height, "rx": 6})
        for i, text in enumerate(self._texts):
            words = mark.lines[i] if i < len(mark.lines) else ""
            text.say(words)
            text.put({"y": -height / 2 + _LINE * (i + 1) - 1})
            text.look("state" if i == 0 and len(mark.lines) > 1 else "")
        gauge = {"x": -LABEL_WIDTH / 2 + 14, "y": height / 2 - 18, "height": 10, "width": LABEL_WIDTH - 28}
        self._frame.put(gauge)
        self._level.put(gauge | {"width": math.floor(gauge["width"] * mark.stock)})
