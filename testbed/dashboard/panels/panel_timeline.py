"""What happened in the last ten minutes, on a strip of time on which one can go back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui.events import GenericEventArguments

from testbed.dashboard.collected.history import History
from testbed.dashboard.collected.snapshot import Snapshot
from testbed.dashboard.collected.timeline import KEPT_S
from testbed.dashboard.views.view_timeline import (
    SIGNS,
    STRIP_HEIGHT,
    STRIP_WIDTH,
    happening_of,
    marks,
    moment_in_words,
    rows,
    shift,
)
from testbed.dashboard.widgets import Panel, Table, Tag, button


class TimelinePanel:
    """The strip with its list. `go(moment)` has the map show that time (wall clock, s), None what is now."""

    def __init__(self, history: History, go: Callable[[float | None], None], tell: Callable[[str], Any]) -> None:
        self._history = history
        self._go = go
        self._tell = tell
        self._snapshot = Snapshot()
        self._moment: float | None = None
        self._base = 0.0
        self._marks: dict[str, Tag] = {}
        with Panel("timeline", "What happened, last ten minutes"):
            with Tag("div", "", "form"):
                self._pause = button("Pause", self._pause_or_go_on)
                self._slider = Tag(
                    "input", "", "moment", type="range", min=-KEPT_S, max=0, step=1, value=0,
                    aria_label="Seconds ago that the map shows",
                )  # fmt: skip
                self._slider.on("input", self._slid, js_handler="(e) => emit(Number(e.target.value))")
                self._words = Tag("p", "", "moment-words", role="status")
            box = f"0 0 {STRIP_WIDTH} {STRIP_HEIGHT}"
            with Tag("svg", "", "strip", viewBox=box, preserveAspectRatio="none", aria_hidden="true"):
                self._group = Tag("g")
                self._cursor = Tag("line", "", "cursor", y1=0, y2=STRIP_HEIGHT)
            with Tag("div", "", "legend", aria_label="Signs"):
                for sign, _, words in SIGNS.values():
                    Tag("span", f"{sign} {words}", "entry")
            self._table = Table(
                "What happened", ("time", "what", ""), empty="Nothing happened.",
                presses={0: self._go_there, 2: self._tell_story},
            )  # fmt: skip

    def show(self, snapshot: Snapshot, moment: float | None) -> None:
        """Bring it up to date; the map shows `moment`."""
        self._snapshot, self._moment = snapshot, moment
        if not self._base:
            self._base = snapshot.time
        self._group.put({"transform": f"translate({shift(snapshot.time, self._base)} 0)"})
        found = {mark.key: mark for mark in marks(snapshot, self._base)}
        for key in self._marks.keys() - found.keys():
            self._marks.pop(key).delete()
        for key, mark in found.items():
            if key not in self._marks:
                with self._group:
                    self._marks[key] = Tag("text", mark.sign, f"sign {mark.kind}", x=mark.x, y=mark.y)
        ago = 0.0 if moment is None else max(-KEPT_S, moment - snapshot.time)
        x = (1 + ago / KEPT_S) * STRIP_WIDTH
        self._cursor.put({"x1": x, "x2": x})
        self._slider.put({"value": round(ago)})
        self._pause.set_text("Pause" if moment is None else "Back to now")
        self._words.say(moment_in_words(snapshot, moment))
        self._table.show(rows(snapshot, moment))

    def _pause_or_go_on(self) -> None:
        self._go(self._snapshot.time if self._moment is None else None)

    def _slid(self, event: GenericEventArguments) -> None:
        ago = event.args if isinstance(event.args, int | float) else 0.0
        self._go(None if ago > -1 else self._snapshot.time + max(-KEPT_S, ago))

    def _go_there(self, key: str) -> None:
        if (happening := happening_of(self._snapshot, key)) is not None:
            self._go(self._history.after(happening.time))

    async def _tell_story(self, key: str) -> None:
        if (happening := happening_of(self._snapshot, key)) is not None:
            await self._tell(happening.story)
