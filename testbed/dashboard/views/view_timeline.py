"""What happened as marks on a strip of time, and as rows of words. PURE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.dashboard.collected.snapshot import Snapshot
from testbed.dashboard.collected.timeline import FAILED, FAULT, HEALED, KEPT_S, LOST, MOVED, REFUSED, SET, Happening
from testbed.dashboard.views.view_tables import Row, clock

STRIP_WIDTH, STRIP_HEIGHT = 1200, 48
_PIXELS_A_SECOND = STRIP_WIDTH / KEPT_S
_LISTED, _MOST_MARKS = 8, 150
_PLACE = 16  # pixels that a sign takes of its row
# A sign for each kind, its place from above, and its meaning: what helps stands below what harms.
SIGNS: Mapping[str, tuple[str, int, str]] = {
    FAULT: ("✕", 15, "broken"), LOST: ("▲", 15, "interrupted"), REFUSED: ("●", 30, "refused"),
    FAILED: ("■", 30, "no key"), MOVED: ("↷", 45, "moved"), HEALED: ("○", 45, "healed"), SET: ("◇", 45, "set"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """A sign on the strip, at `x` pixels behind the strip's beginning of time."""

    key: str
    x: int
    kind: str
    sign: str
    y: int


def shift(now: float, base: float) -> float:
    """By how much the strip, on which `base` is at 0, is to be moved so that `now` is at its right end, in pixels."""
    return round(STRIP_WIDTH - (now - base) * _PIXELS_A_SECOND, 1)


def marks(snapshot: Snapshot, base: float) -> list[Mark]:
    """The signs of what happened, the oldest first, in places side by side; in each place of a row the first one."""
    found: dict[str, Mark] = {}
    for happening in snapshot.happenings:
        sign, y, _ = SIGNS[happening.kind]
        place = math.floor((happening.time - base) * _PIXELS_A_SECOND / _PLACE)
        key = f"{y} {place}"
        found.setdefault(key, Mark(key, _PLACE * place, happening.kind, sign, y))
    return list(found.values())[-_MOST_MARKS:]


def rows(snapshot: Snapshot, until: float | None) -> list[Row]:
    """When and what, and whether there is a story; the newest first: the latest, or those until a moment."""
    there = [h for h in snapshot.happenings if until is None or h.time <= until]
    return [
        Row(_key(h), (clock(h.time), f"{SIGNS[h.kind][0]} {h.words}", "story" if h.story else ""))
        for h in there[: -_LISTED - 1 : -1]
    ]


def happening_of(snapshot: Snapshot, key: str) -> Happening | None:
    """What a row of that key tells of, if it is still kept."""
    return next((h for h in snapshot.happenings if _key(h) == key), None)


def _key(happening: Happening) -> str:
    return f"{happening.time} {happening.words}"


def moment_in_words(snapshot: Snapshot, moment: float | None) -> str:
    """Which time the map shows."""
    if moment is None:
        return "The map shows what is now."
    return f"The map shows {clock(moment)}, {snapshot.time - moment:.0f} s ago. All else is live."
