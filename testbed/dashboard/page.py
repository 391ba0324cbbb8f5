"""The page: its parts, put together for each viewer and brought up to date twice a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from nicegui import ui

from testbed.dashboard.collected.watch import Watch
from testbed.dashboard.operator import Operator
from testbed.dashboard.panels.panel_details import DetailsPanel
from testbed.dashboard.panels.panel_map import MapPanel
from testbed.dashboard.panels.panel_settings import SettingsPanel
from testbed.dashboard.panels.panel_tables import KeysPanel, QcsPanel, SessionsPanel, StoryPanel, TroublePanel
from testbed.dashboard.views.selection import WHOLE, Selection, View, selected
from testbed.dashboard.views.view_tables import headline
from testbed.dashboard.widgets import Tag
from testbed.operation.desk import Desk
from testbed.planning.plan import Plan

_CSS = (Path(__file__).parent / "assets" / "page.css").read_text()
_REFRESH_S = 0.5
_RECONNECT_S = 20.0


def make_app(plan: Plan, desk: Desk, watch: Watch, run: Path) -> FastAPI:
    """The web application; stories are told out of the run directory `run`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @ui.page("/", title=f"{plan.topology.name}: live view", language="en-US")
    def page(look: str = "") -> None:
        _Page(plan, desk, watch, run, selected(plan, look))

    # The time-out is also that of pings: on a busy machine a browser may take its time to answer one.
    ui.run_with(
        app, show_welcome_message=False, tailwind=False, reconnect_timeout=_RECONNECT_S, favicon="⚛",
        binding_refresh_interval=None,
    )  # fmt: skip
    return app


class _Page:
    """One viewer's page."""

    def __init__(self, plan: Plan, desk: Desk, watch: Watch, run: Path, selection: Selection) -> None:
        self._plan = plan
        self._watch = watch
        self._selection = selection
        self._shown: tuple[int, Selection] | None = None
        ui.colors(primary="#0b4f8a", negative="#a3230f", positive="#1d6b2c")
        ui.add_css(_CSS)
        with Tag("header", "", "top"):
            Tag("h1", f"{plan.topology.name} — live view")
            self._headline = Tag("p", "", "headline")
            said = Tag("p", "", "said", role="status", aria_live="polite")
        operator = Operator(desk, said)
        story = StoryPanel(operator, run)
        with Tag("main", "", "parts"):
            self._parts: list[Any] = [
                MapPanel(self._select),
                DetailsPanel(plan, operator, self._select, story.tell),
                QcsPanel(self._select),
                SettingsPanel(operator),
                SessionsPanel(plan, operator, self._select),
                KeysPanel(story.tell),
                TroublePanel(),
            ]
        self._refresh()
        ui.timer(_REFRESH_S, self._refresh)

    def _select(self, selection: Selection) -> None:
        self._selection = selection
        # So that it is still selected after a reload, and that one can point others at it.
        ui.navigate.history.replace(f"/?look={quote(selection.key)}" if selection != WHOLE else "/")
        self._refresh()

    def _refresh(self) -> None:
        snapshot = self._watch.latest
        now = snapshot.number, self._selection
        if now == self._shown:
            return
        self._shown = now
        self._headline.say(headline(snapshot))
        view = View(self._plan, snapshot, self._selection)
        for part in self._parts:
            part.show(view)
