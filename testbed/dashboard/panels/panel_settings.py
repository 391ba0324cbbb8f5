"""What can be set for the whole network; follows what others set, the command line for one."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from decisions.modes import MODES
from testbed.dashboard.collected.snapshot import Document
from testbed.dashboard.operator import Operator
from testbed.dashboard.views.selection import View
from testbed.dashboard.widgets import Panel, Tag, button, number
from testbed.operation.desk import ADMISSION_POLICIES


class SettingsPanel:
    """Mode, admission policy, TTL, keys ahead."""

    def __init__(self, operator: Operator) -> None:
        with Panel("settings", "Settings"):
            self._controls: list[_Choice | _Number] = [
                _Choice(operator, "mode", "Mode", sorted(MODES)),
                _Choice(operator, "admission", "Admission policy", list(ADMISSION_POLICIES)),
                _Number(operator, "ttl_slots", "TTL in slots", 86_400),
                _Number(operator, "keys_ahead", "Keys ahead (qkp)", 64),
            ]

    def show(self, view: View) -> None:
        """Show what is set now."""
        for control in self._controls:
            control.show(view.snapshot.parameters)


class _Choice:
    def __init__(self, operator: Operator, name: str, title: str, options: list[str]) -> None:
        self._operator = operator
        self._name = name
        self._known: Any = None
        with Tag("div", "", "setting", role="group", aria_label=title):
            Tag("span", title, "label")
            self._toggle = ui.toggle(options, on_change=self._chosen).props("no-caps unelevated")

    def show(self, parameters: Document) -> None:
        now = parameters.get(self._name)
        if now != self._known:
            self._known = now
            self._toggle.value = now

    async def _chosen(self) -> None:
        wanted = self._toggle.value
        if wanted == self._known or wanted is None:
            return
        desk, name = self._operator.desk, self._name
        done = await self._operator.do(lambda: desk.set_parameter(name, wanted), str)
        if done is None:
            self._toggle.value = self._known
        else:
            self._known = wanted


class _Number:
    def __init__(self, operator: Operator, name: str, title: str, high: int) -> None:
        self._operator = operator
        self._name = name
        self._known: Any = None
        with Tag("div", "", "setting"):
            self._field = number(title, 1, high).on("keydown.enter", self._set)
            button("Set", self._set).props(f'aria-label="Set {title}"')

    def show(self, parameters: Document) -> None:
        now = parameters.get(self._name)
        if now != self._known:
            self._known = now
            self._field.value = now

    async def _set(self) -> None:
        wanted = self._field.value
        if wanted is None or wanted != int(wanted):
            self._operator.say(f"✕ {self._name}: expected a whole number", bad=True)
            return
        desk, name = self._operator.desk, self._name
        await self._operator.do(lambda: desk.set_parameter(name, int(wanted)), str)
