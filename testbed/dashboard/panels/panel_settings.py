"""What can be set for the whole network; follows what others set, the command line for one."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from decisions.parameters import ADMISSION, KEYS_AHEAD, MODE, TTL, Choice, Whole
from testbed.dashboard.collected.snapshot import Document
from testbed.dashboard.operator import Operator
from testbed.dashboard.views.selection import View
from testbed.dashboard.widgets import Panel, Tag, button, number


class SettingsPanel:
    """Mode, admission policy, TTL, keys ahead."""

    def __init__(self, operator: Operator) -> None:
        with Panel("settings", "Settings"):
            self._controls: list[_Choice | _Number] = [
                _Choice(operator, MODE, "Mode"),
                _Choice(operator, ADMISSION, "Admission policy"),
                _Number(operator, TTL, "TTL in slots"),
                _Number(operator, KEYS_AHEAD, "Keys ahead (qkp)"),
            ]

    def show(self, view: View) -> None:
        """Show what is set now."""
        for control in self._controls:
            control.show(view.snapshot.parameters)


class _Choice:
    def __init__(self, operator: Operator, parameter: Choice, title: str) -> None:
        self._operator = operator
        self._name = parameter.name
        self._known: Any = None
        with Tag("div", "", "setting", role="group", aria_label=title):
            Tag("span", title, "label")
            self._toggle = ui.toggle(list(parameter.values), on_change=self._chosen).props("no-caps unelevated")

    def show(self, parameters: Document) -> None:
        now = parameters.get(self._name)
        if now != self._known:
            self._known = now
            self._toggle.value = now

    async def _chosen(self) -> None:
        wanted = self._toggle.value
        if wanted == self._known or wanted is None:
            return
        done = await _set(self._operator, self._name, wanted)
        if done is None:
            self._toggle.value = self._known
        else:
            self._known = wanted


class _Number:
    def __init__(self, operator: Operator, parameter: Whole, title: str) -> None:
        self._operator = operator
        self._name = parameter.name
        self._known: Any = None
        self._is_written = False  # by somebody who has the focus there: what others set waits until he leaves it
        with Tag("div", "", "setting"):
            self._field = number(title, parameter.low, parameter.high).on("keydown.enter", self._set)
            self._field.on("focus", lambda: self._write(begins=True), [])
            self._field.on("blur", lambda: self._write(begins=False), [])
            button("Set", self._set).props(f'aria-label="Set {title}"')

    def show(self, parameters: Document) -> None:
        now = parameters.get(self._name)
        if now != self._known and not self._is_written:
            self._known = now
            self._field.value = now

    def _write(self, *, begins: bool) -> None:
        self._is_written = begins

    async def _set(self) -> None:
        wanted = self._field.value
        if wanted is None or wanted != int(wanted):
            self._operator.say(f"✕ {self._name}: expected a whole number", bad=True)
            return
        await _set(self._operator, self._name, str(int(wanted)))


async def _set(operator: Operator, name: str, value: str) -> Any:
    """What came of it; None if it was not set."""
    return await operator.do(lambda: operator.request("set", name=name, value=value), lambda found: found["said"])
