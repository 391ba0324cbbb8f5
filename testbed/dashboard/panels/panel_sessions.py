"""The key sessions, and a form to open one."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from testbed.dashboard.operator import Operator
from testbed.dashboard.views.selection import SESSION, Selection, View
from testbed.dashboard.views.view_tables import sessions
from testbed.dashboard.widgets import Panel, Table, button
from testbed.planning.plan import Plan


class SessionsPanel:
    """Who shares keys with whom."""

    def __init__(self, plan: Plan, operator: Operator, select: Callable[[Selection], None]) -> None:
        self._operator = operator
        self._select = select
        titles = {n.name: n.title for n in plan.topology.nodes}
        names = {s.name: f"{s.name} ({titles[s.node]})" for s in plan.applications}
        with Panel("sessions", "Key sessions"):
            with ui.element("div").classes("form"):
                self._master = _chooser("Master application", names)
                self._slave = _chooser("Slave application", names)
                button("Open session", self._open, strong=True)
            self._table = Table(
                "Key sessions", ("master → slave", "state", "path", "mode", "KSID", "keys", "failed"),
                empty="No key session is open: choose two applications at different nodes.",
                on_row=lambda ksid: select(Selection(SESSION, ksid)),
            )  # fmt: skip

    def show(self, view: View) -> None:
        """Bring the table up to date."""
        self._table.show(sessions(view.plan, view.snapshot, view.selection))

    async def _open(self) -> None:
        master, slave = self._master.value, self._slave.value
        if master is None or slave is None:
            self._operator.say("✕ choose a master and a slave application first", bad=True)
            return
        opened = await self._operator.do(
            lambda: self._operator.desk.open(master, slave),
            lambda found: f"open: {master} → {slave}, path {' – '.join(found.path)}, KSID {found.ksid}",
        )
        if opened is not None:
            self._select(Selection(SESSION, opened.ksid))


def _chooser(label: str, names: dict[str, str]) -> ui.select:
    return ui.select(names, label=label).props("outlined dense options-dense").classes("field wide")
