"""What the viewer looks at, chosen on the map or from a list: facts, curves, and what can be done to it.

With buttons and fields for what a viewer can do to the network, a node, a link or a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from scenario.shape import MAX_DELAY_MS, Shape
from scenario.topology_description import Link, Qc
from testbed.dashboard.collected.snapshot import Sample, Snapshot, total
from testbed.dashboard.operator import Operator
from testbed.dashboard.panels.charts import qc_curves
from testbed.dashboard.views.selection import LINK, NODE, SESSION, Selection, View, choices, selected
from testbed.dashboard.views.view_details import details
from testbed.dashboard.widgets import Panel, Tag, button, number
from testbed.operation.words import rate_of
from testbed.planning import fault
from testbed.planning.fault import CONTROLLER, CUT, DATABASE
from testbed.planning.plan import Plan


def _of_network(operator: Operator) -> None:
    """Kill and restart what all nodes depend on; heal everything."""
    with Tag("div", "", "form"):
        button("Kill the controller", _break(operator, CONTROLLER))
        button("Start it again", _heal(operator, CONTROLLER)).props('aria-label="Start the controller again"')
    with Tag("div", "", "form"):
        button("Kill the shared database", _break(operator, DATABASE))
        button("Start it again", _heal(operator, DATABASE)).props('aria-label="Start the shared database again"')
    with Tag("div", "", "form"):
        button("Heal everything", _heal(operator))


def of_node(operator: Operator, node: str) -> None:
    """Kill it and start it again."""
    with Tag("div", "", "form"):
        button("Kill node", _break(operator, fault.NODE, node), strong=True)
        button("Start node again", _heal(operator, fault.NODE, node))


def _of_link(operator: Operator, link: Link) -> None:
    """Cut and heal it, shape it, set its QCs."""
    with Tag("div", "", "form"):
        button("Cut link", _break(operator, CUT, link.a, link.b), strong=True)
        button("Heal link", _heal(operator, CUT, link.a, link.b))
    _shape(operator, link)
    for qc in link.qcs:
        _qc(operator, qc)


def of_session(operator: Operator, ksid: str, tell: Callable[[str], Any]) -> None:
    """Tell how it was opened; close it."""
    desk = operator.desk
    with Tag("div", "", "form"):
        button(
            "Close session", lambda: operator.do(lambda: desk.close(ksid), lambda _: f"session {ksid} is closed"),
            strong=True,
        )  # fmt: skip
        button("Tell its story", lambda: tell(ksid))


def _break(operator: Operator, kind: str, *where: str) -> Callable[[], Any]:
    faults = operator.desk.faults
    return lambda: operator.do(lambda: faults.inject(kind, *where), lambda fault: f"broken: {fault.name}")


def _heal(operator: Operator, *what: str) -> Callable[[], Any]:
    faults = operator.desk.faults
    return lambda: operator.do(
        lambda: faults.heal(*what), lambda done: f"healed: {', '.join(f.name for f in done) or 'nothing was broken'}"
    )


def _shape(operator: Operator, link: Link) -> None:
    fibres = operator.desk.fibres
    now = fibres.get(link.name).a_to_b
    with Tag("div", "", "form"):
        delay = number("Delay in ms, one way", 0, MAX_DELAY_MS, step=0.001)
        jitter = number("Jitter in ms", 0, MAX_DELAY_MS, step=0.001)
        loss = number("Loss in percent", 0, 100, step=0.1)

        def fill(shape: Shape) -> None:
            delay.value, jitter.value, loss.value = shape.delay_ms, shape.jitter_ms, shape.loss_percent

        async def change() -> None:
            changes = {"delay_ms": delay.value, "jitter_ms": jitter.value, "loss_percent": loss.value}
            await operator.do(lambda: fibres.change(link.name, changes), lambda f: f"{f.name} is shaped anew")

        async def reset() -> None:
            done = await operator.do(lambda: fibres.reset(link.name), lambda f: f"{f.name} is shaped as planned")
            if done is not None:
                fill(done.a_to_b)

        fill(now)
        button("Set delay, jitter, loss", change)
        button("As planned", reset)


def _qc(operator: Operator, qc: Qc) -> None:
    desk = operator.desk
    with Tag("div", "", "form"):
        field = ui.input(
            f"Rate of {qc.name}, LOW-HIGH in bytes a second", value=f"{qc.low_bytes_per_slot}-{qc.high_bytes_per_slot}"
        )
        field.props("outlined dense").classes("field wide")

        def set_rate() -> str:
            return desk.set_rate(qc.name, *rate_of(field.value))

        button("Set rate", lambda: operator.do(set_rate, str))
    with Tag("div", "", "form"):
        button("Stop generating", lambda: _generate(operator, qc.name, enabled=False))
        button("Generate", lambda: _generate(operator, qc.name, enabled=True))


async def _generate(operator: Operator, qc: str, *, enabled: bool) -> None:
    await operator.do(lambda: operator.desk.set_generation(qc, enabled=enabled), str)


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
                _of_link(self._operator, link)
                self._curves = _Curves([qc.name for qc in link.qcs])
            elif selection.kind == NODE:
                of_node(self._operator, selection.name)
            elif selection.kind == SESSION:
                of_session(self._operator, selection.name, self._tell)
            else:
                _of_network(self._operator)
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
