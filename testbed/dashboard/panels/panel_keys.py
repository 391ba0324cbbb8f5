"""Keys: how many, how fast, which came last; and what was refused or failed, with the reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from testbed.dashboard.panels.charts import distribution
from testbed.dashboard.views.selection import View
from testbed.dashboard.views.view_tables import durations_ms, failures, keys, refusals, times
from testbed.dashboard.widgets import Panel, Table, Tag


class KeysPanel:
    """Delivery times of the last minutes, and the latest keys."""

    def __init__(self, tell: Callable[[str], Any]) -> None:
        with Panel("keys", "Delivery times, last three minutes"):
            self._words = Tag("p", "", "figures")
            self._chart = ui.echart(distribution((), ()), renderer="svg").classes("chart distribution")
            self._drawn: object = None
            header = ("key ID", "time", "master → slave", "over", "took")
            self._table = Table("Latest keys", header, empty="No key was delivered yet.", on_row=tell)

    def show(self, view: View) -> None:
        """Bring figures, diagram and table up to date."""
        self._words.say(times(view.snapshot))
        single, multi = (durations_ms(view.snapshot, several_hops=s) for s in (False, True))
        options = distribution(single, multi)
        if options != self._drawn:
            self._drawn = options
            self._chart.options.update(options)
            self._chart.update()
        self._table.show(keys(view.plan, view.snapshot))


class TroublePanel:
    """Refused sessions and failed requests for keys."""

    def __init__(self) -> None:
        with Panel("trouble", "Refused and failed"):
            header = ("time", "master → slave", "why", "what helps")
            Tag("h3", "Key sessions that were refused")
            self._refusals = Table("Refused key sessions", header, empty="No key session was refused.")
            Tag("h3", "Requests for keys that failed")
            self._failures = Table("Failed requests for keys", header, empty="No request for keys failed.")

    def show(self, view: View) -> None:
        """Bring both tables up to date."""
        self._refusals.show(refusals(view.plan, view.snapshot))
        self._failures.show(failures(view.plan, view.snapshot))
