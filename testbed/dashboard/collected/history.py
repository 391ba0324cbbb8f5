"""How the map looked in the last minutes, so that a viewer can go back: a picture a second, and one of each change."""

from __future__ import annotations

import bisect
import collections
from dataclasses import replace
from typing import TypeVar

from testbed.dashboard.collected.timeline import KEPT_S
from testbed.dashboard.views.view_map import LinkMark, MapView, NodeMark

_Mark = TypeVar("_Mark", NodeMark, LinkMark)
EVERY_S = 1.0


class History:
    """Pictures of the map by time. A mark that did not change is kept once."""

    def __init__(self) -> None:
        self._kept: collections.deque[tuple[float, MapView]] = collections.deque()

    def add(self, time: float, drawn: MapView, *, happened: bool = False) -> None:
        """The map as it is at that time. Not kept if a picture younger than EVERY_S shows the same states, unless
        something is said to have `happened` since: one that looks for it is to find a picture that is not older."""
        before = self._kept[-1][1] if self._kept else drawn
        if not happened and self._kept and time < self._kept[-1][0] + EVERY_S and _states(before) == _states(drawn):
            return
        while self._kept and self._kept[0][0] < time - KEPT_S:
            self._kept.popleft()
        nodes = tuple(_same(*two) for two in zip(before.nodes, drawn.nodes, strict=True))
        links = tuple(_same(*two) for two in zip(before.links, drawn.links, strict=True))
        self._kept.append((time, replace(drawn, nodes=nodes, links=links)))

    def at(self, time: float) -> tuple[float, MapView] | None:
        """The last picture that was taken by then, or else the oldest, with its time; None if there is none yet."""
        kept = list(self._kept)
        if not kept:
            return None
        return kept[max(0, bisect.bisect_right(kept, time, key=lambda picture: picture[0]) - 1)]

    def after(self, time: float) -> float:
        """When the first picture was taken that shows what came of something at that time; `time` if none was yet."""
        return next((taken for taken, _ in list(self._kept) if taken >= time), time)


def _states(drawn: MapView) -> list[str]:
    return [mark.state for marks in (drawn.nodes, drawn.links, drawn.tunnels) for mark in marks]


def _same(before: _Mark, now: _Mark) -> _Mark:
    return before if before == now else now
