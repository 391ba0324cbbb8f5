"""The page: its parts, put together for each viewer and brought up to date twice a second."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from testbed.dashboard.panels.panel_tables import (
    KeysPanel,
    QcsPanel,
    SessionsPanel,
    StoryPanel,
    TroublePanel,
    TunnelsPanel,
)
from testbed.dashboard.panels.panel_timeline import TimelinePanel
from testbed.dashboard.views.selection import WHOLE, Selection, View, selected
from testbed.dashboard.views.view_map import MapView, draw, layout_of, selected_in, travels
from testbed.dashboard.views.view_tables import headline
from testbed.dashboard.widgets import Tag, tool
from testbed.planning.plan import Plan

_ASSETS = Path(__file__).parent / "assets"
_CSS = (_ASSETS / "page.css").read_text()
_SCRIPT = (_ASSETS / "page.js").read_text()
_REFRESH_S = 0.5
_RECONNECT_S = 20.0


def make_app(plan: Plan, request: Callable[..., Any], watch: Watch) -> FastAPI:
    """The web application; `request` does what viewers ask for."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @ui.page("/", title=f"{plan.topology.name}: live view", language="en-US")
    def page(look: str = "") -> None:
        _Page(plan, request, watch, selected(plan, look))

    # The time-out is also that of pings: on a busy machine a browser may take its time to answer one.
    ui.run_with(
        app, show_welcome_message=False, tailwind=False, reconnect_timeout=_RECONNECT_S, favicon="⚛",
        binding_refresh_interval=None,
    )  # fmt: skip
    return app


class _Page:
    """One viewer's page."""

    def __init__(self, plan: Plan, request: Callable[..., Any], watch: Watch, selection: Selection) -> None:
        self._plan = plan
        self._watch = watch
        self._selection = selection
        self._moment: float | None = None  # that the map shows; None: now
        self._shown: tuple[object, ...] = ()
        self._travelled = watch.latest.time
        ui.colors(primary="#0b4f8a", negative="#a3230f", positive="#1d6b2c")
        ui.add_css(_CSS)
        ui.add_body_html(f"<script>{_SCRIPT}</script>")
        with Tag("header", "", "top"):
            Tag("h1", f"{plan.topology.name} — live view")
            self._headline = Tag("p", "", "headline")
            with Tag("div", "", "tools"):
                tool("present", "Present", "Presentation: the map alone, in large type")
                tool("dark", "Dark", "Dark or light")
            said = Tag("p", "", "said", role="status", aria_live="polite")
            Tag("p", "", "lost", role="alert")
        operator = Operator(request, said)
        story = StoryPanel(operator)
        with Tag("main", "", "parts"):
            self._map = MapPanel(layout_of(plan), self._select)
            details = DetailsPanel(plan, operator, self._select, story.tell)
            self._timeline = TimelinePanel(watch.history, self._go, story.tell)
            self._parts: list[Any] = [
                details,
                QcsPanel(self._select),
                SettingsPanel(operator),
                SessionsPanel(plan, operator, self._select),
                KeysPanel(story.tell),
                TunnelsPanel(story.tell),
                TroublePanel(story.tell),
            ]
        self._refresh()
        ui.timer(_REFRESH_S, self._refresh)

    def _select(self, selection: Selection) -> None:
        self._selection = selection
        # So that it is still selected after a reload, and that one can point others at it.
        ui.navigate.history.replace(f"/?look={quote(selection.key)}" if selection != WHOLE else "/")
        self._refresh()

    def _go(self, moment: float | None) -> None:
        self._moment = moment
        self._refresh()

    def _refresh(self) -> None:
        snapshot = self._watch.latest
        now = snapshot.number, self._selection, self._moment
        if now == self._shown:
            return
        self._shown = now
        self._headline.say(headline(snapshot))
        view = View(self._plan, snapshot, self._selection)
        self._map.show(self._drawn(view))
        self._timeline.show(snapshot, self._moment)
        for part in self._parts:
            part.show(view)
        if self._moment is None and (ways := travels(self._plan, snapshot, self._travelled)):
            ui.run_javascript(f"qkd.travel({json.dumps(ways)})")
        self._travelled = max([self._travelled, *(float(key["time"]) for key in snapshot.figures.keys[-1:])])

    def _drawn(self, view: View) -> MapView:
        """The map as it is, or as it was at the moment that the viewer went back to."""
        past = None if self._moment is None else self._watch.history.at(self._moment)
        return draw(view.plan, view.snapshot, view.selection) if past is None else selected_in(past[1], view.selection)
