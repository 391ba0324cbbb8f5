"""What the viewer looks at, chosen on the map or from a list: facts, curves, and what can be done to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from testbed.dashboard.collected.curves import Sample, total
from testbed.dashboard.collected.snapshot import Snapshot
from testbed.dashboard.operator import Operator
from testbed.dashboard.panels import actions
from testbed.dashboard.panels.charts import qc_curves
from testbed.dashboard.views.selection import LINK, NODE, SESSION, Selection, View, choices, selected
from testbed.dashboard.views.view_details import details
from testbed.dashboard.widgets import Panel, Tag
from testbed.planning.plan import Plan


class DetailsPanel:
    """The details of one thing."""

    def __init__(
        self, plan: Plan, operator: Operator, select: Callable[[Selection], None], tell: Callable[[str], Any]
    ) -> None:
        self._tell = tell
        self._plan = plan
        self._operator = operator
        self._select = select
        self._selection: Selection | None = None
        self._curves: _Curves | None = None
        with Panel("details", "Details") as panel:
            self._title = panel.title
            self._chooser = ui.select({}, label="Look at", on_change=self._chosen)
            self._chooser.props("outlined dense options-dense").classes("field wide")
            self._facts = _Facts()
            self._actions = Tag("div", "", "actions")

    def show(self, view: View) -> None:
        """Show the facts of what is selected."""
        if view.selection != self._selection:
            self._selection = view.selection
            self._rebuild(view.selection)
        self._offer(view.snapshot, view.selection)
        title, facts = details(view.plan, view.snapshot, view.selection)
        self._title.say(title)
        self._facts.show(facts)
        if self._curves is not None:
            self._curves.show(view.snapshot)

    def _offer(self, snapshot: Snapshot, selection: Selection) -> None:
        names = {s.key: words for s, words in choices(self._plan, snapshot).items()}
        names.setdefault(selection.key, f"session {selection.name[:8]} (ended)")
        if names != self._chooser.options or self._chooser.value != selection.key:
            self._chooser.set_options(names, value=selection.key)

    def _chosen(self) -> None:
        wanted = selected(self._plan, str(self._chooser.value))
        if self._selection is not None and wanted != self._selection:
            self._select(wanted)

    def _rebuild(self, selection: Selection) -> None:
        self._actions.clear()
        self._curves = None
        with self._actions:
            if selection.kind == LINK:
                link = next(p for p in self._plan.topology.links if p.name == selection.name)
                actions.of_link(self._operator, link)
                self._curves = _Curves([qc.name for qc in link.qcs])
            elif selection.kind == NODE:
                actions.of_node(self._operator, selection.name)
            elif selection.kind == SESSION:
                actions.of_session(self._operator, selection.name, self._tell)
            else:
                actions.of_network(self._operator)
                self._curves = _Curves(self._operator.desk.qc_names(), summed=True)


class _Facts:
    """Names and values; rows stay as long as their names do."""

    def __init__(self) -> None:
        self._list = Tag("dl", "", "facts")
        self._names: list[str] = []
        self._values: list[Tag] = []

    def show(self, facts: list[tuple[str, str]]) -> None:
        names = [name for name, _ in facts]
        if names != self._names:
            self._names = names
            self._list.clear()
            with self._list:
                self._values = [self._row(name) for name in names]
        for value, (_, text) in zip(self._values, facts, strict=True):
            value.say(text)

    @staticmethod
    def _row(name: str) -> Tag:
        Tag("dt", name)
        return Tag("dd")


class _Curves:
    """The curves of a QC, chosen of several, or the sum of all."""

    def __init__(self, qcs: Sequence[str], *, summed: bool = False) -> None:
        self._qcs = list(qcs) if summed else list(qcs[:1])
        if len(qcs) > 1 and not summed:
            ui.toggle(list(qcs), value=qcs[0], on_change=self._choose).props("no-caps")
        Tag("h3", "All QCs together" if summed else f"QC {qcs[0]}" if len(qcs) == 1 else "QC")
        self._chart = ui.echart(qc_curves(()), renderer="svg").classes("chart curves")
        self._shown: tuple[Sample, ...] = ()

    def show(self, snapshot: Snapshot) -> None:
        samples = total(snapshot.curves.get(qc, ()) for qc in self._qcs)
        if samples != self._shown:
            self._shown = samples
            self._chart.options.update(qc_curves(samples))
            self._chart.update()

    def _choose(self, event: ValueChangeEventArguments[str]) -> None:
        self._qcs = [event.value]
