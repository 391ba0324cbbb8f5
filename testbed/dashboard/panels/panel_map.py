"""The map: drawn once for a viewer, then brought up to date mark by mark, so that a focus stays where it is.

What moves, is zoomed or saved is the browser's affair (assets/page.js): it goes by the identifiers and the `data-do` of
the elements here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from testbed.dashboard.views.layout import HEIGHT, WIDTH, Layout
from testbed.dashboard.views.selection import Selection
from testbed.dashboard.views.view_map import Arc, LinkMark, MapView, NodeMark
from testbed.dashboard.widgets import Panel, Tag, pressable, tool

_BOX = f"0 0 {WIDTH} {HEIGHT}"
_WIDE_LETTER = 0.6  # of its size, in the widest of usual typefaces
_TITLE, _LINE, _LABEL, _MARGIN = 23, 16, 16, 18
_LEGEND = (
    ("up makes", "up; filled: key material in stock"), ("changed", "not shaped as planned"),
    ("noisy", "many errors"),
    ("no-key", "no new key"), ("short", "too little key"), ("down", "cut"), ("on-path", "path of the session"),
)  # fmt: skip


class MapPanel:
    """Nodes and links; a click, Enter or Space selects one."""

    def __init__(self, layout: Layout, select: Callable[[Selection], None]) -> None:
        self._layout = layout
        self._select = select
        self._nodes: dict[Selection, _Node] = {}
        self._links: dict[Selection, _Link] = {}
        self._arcs: dict[tuple[str, ...], Tag] = {}
        with Panel("map", "Network"):
            with Tag("div", "", "tools"):
                tool("zoom-in", "+", "Zoom in")
                tool("zoom-out", "−", "Zoom out")
                tool("zoom-all", "Whole map")
                tool("save-map", "Save as SVG", "Save the map as SVG")
            with Tag("div", "", "stage"):
                self._svg = Tag(
                    "svg", "", "network", id="map", viewBox=_BOX, role="group", aria_label="Map of the network",
                )  # fmt: skip
                self._svg.style(f"--s: {layout.scale}")
            with Tag("div", "", "legend", aria_label="Legend"):
                for kind, words in _LEGEND:
                    with Tag("span", "", "entry"):
                        with Tag("svg", "", f"link {kind}", viewBox="0 0 60 20", aria_hidden="true"):
                            _lines(4, 10, 56, 10, stock=0.5 if kind == "up makes" else 0.0)
                        Tag("span", words)
                with Tag("span", "", "entry"):
                    with Tag("svg", "", viewBox="0 0 60 20", aria_hidden="true"):
                        Tag("path", "", "tunnel", d="M4 16 Q30 -6 56 16")
                    Tag("span", "tunnel; dashed: under an old key; dotted: closed")
                with Tag("span", "", "entry"):
                    with Tag("svg", "", viewBox="0 0 60 20", aria_hidden="true"):
                        Tag("path", "", "light up", d="M4 4 Q30 26 56 4")
                    Tag("span", "QC on demand, lit; dotted: no new key")

    def show(self, drawn: MapView) -> None:
        """Bring the map up to date."""
        if not self._nodes:
            with self._svg:
                for link in drawn.links:
                    self._links[link.selection] = _Link(link, self._layout, self._select)
                self._under = Tag("g", "", "tunnels")
                Tag("g", "", "effects", id="effects", aria_hidden="true")  # keys on their way: the browser's own
                for node in drawn.nodes:
                    self._nodes[node.selection] = _Node(node, self._layout, self._select)
        for link in drawn.links:
            self._links[link.selection].show(link)
        for node in drawn.nodes:
            self._nodes[node.selection].show(node)
        self._show([*drawn.tunnels, *drawn.lights])

    def _show(self, arcs: Sequence[Arc]) -> None:
        for gone in self._arcs.keys() - {mark.key for mark in arcs}:
            self._arcs.pop(gone).delete()
        for mark in arcs:
            if mark.key not in self._arcs:
                with self._under:
                    self._arcs[mark.key] = Tag("path", "", role="img")
            self._arcs[mark.key].look(f"{mark.kind} {mark.state}")
            self._arcs[mark.key].put({"d": mark.curve, "aria_label": mark.words})


def _lines(x1: float, y1: float, x2: float, y2: float, *, stock: float = 0.0) -> Tag:
    """A fibre: what lies around it, its wall, what is in it; the line of its level, which is returned."""
    for part in ("halo", "body", "core"):
        Tag("line", "", part, x1=x1, y1=y1, x2=x2, y2=y2)
    level = Tag("line", "", "level", x1=x1, y1=y1, x2=x2, y2=y2, pathLength=100, stroke_dasharray=_dashes(stock))
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    for end in ((x1, y1), (x2, y2)):  # made in the middle, it comes out at both ends
        Tag("line", "", "flow", x1=x, y1=y, x2=end[0], y2=end[1])
    return level


def _dashes(share: float) -> str:
    return f"{100 * share:.0f} 100" if share else "0 100"


def _fitted(text: str, size: float, room: float) -> dict[str, Any]:
    """Attributes of a text that is not to be broader than `room`, whatever the typeface."""
    too_long = _WIDE_LETTER * size * len(text) > room
    return {"textLength": room if too_long else None, "lengthAdjust": "spacingAndGlyphs" if too_long else None}


class _Node:
    def __init__(self, mark: NodeMark, layout: Layout, select: Callable[[Selection], None]) -> None:
        width, height = layout.box
        self._room = width - _MARGIN
        place = f"translate({mark.x} {mark.y}) scale({layout.scale:.2f})"
        with pressable(Tag("g", "", "node", transform=place), lambda: select(mark.selection)) as self._group:
            Tag("rect", "", "box", x=-width / 2, y=-height / 2, width=width, height=height, rx=9)
            title = Tag("text", mark.title, "title", y=-3 if layout.roomy else 8)
            title.put(_fitted(mark.title, _TITLE, self._room))
            self._line = Tag("text", "", "line", y=21) if layout.roomy else None

    def show(self, mark: NodeMark) -> None:
        self._group.look(f"node {mark.state}{' selected' if mark.selected else ''}")
        self._group.put({"aria_label": mark.words, "aria_pressed": "true" if mark.selected else "false"})
        if self._line is not None:
            self._line.say(mark.line)
            self._line.put(_fitted(mark.line, _LINE, self._room))


class _Link:
    def __init__(self, mark: LinkMark, layout: Layout, select: Callable[[Selection], None]) -> None:
        x1, y1, x2, y2 = mark.ends
        width, height = layout.label
        self._room = width - _MARGIN
        with pressable(Tag("g", "", "link"), lambda: select(mark.selection)) as self._group:
            self._level = _lines(x1, y1, x2, y2)
            # A line is hard to hit: a broad one that nobody sees takes the clicks.
            Tag("line", "", "target", x1=x1, y1=y1, x2=x2, y2=y2)
            place = f"translate({mark.label_at[0]} {mark.label_at[1]}) scale({layout.scale:.2f})"
            with Tag("g", "", "label", transform=place) as self._label:
                Tag("rect", "", "paper", x=-width / 2, y=-height / 2, width=width, height=height, rx=6)
                self._text = Tag("text", "", "", y=6)

    def show(self, mark: LinkMark) -> None:
        marks = {"selected": mark.selected, "on-path": mark.on_path, "makes": mark.makes}
        self._group.look(" ".join(["link", mark.state, *(name for name, is_so in marks.items() if is_so)]))
        self._group.put({"aria_label": mark.words, "aria_pressed": "true" if mark.selected else "false"})
        self._label.put({"visibility": "visible" if mark.label else "hidden"})
        self._level.put({"stroke_dasharray": _dashes(mark.stock)})
        self._text.say(mark.label)
        self._text.put(_fitted(mark.label, _LABEL, self._room))
