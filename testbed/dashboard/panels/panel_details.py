"""What the viewer looks at, chosen on the map or from a list: facts, curves, and what can be done to it.

With buttons and fields for what a viewer can do to the network, a node, a link or a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from scenario.shape import MAX_DELAY_MS
from scenario.topology_description import Link, Qc
from testbed.dashboard.collected.snapshot import Document, Sample, Snapshot, total
from testbed.dashboard.operator import Operator
from testbed.dashboard.panels.charts import qc_curves
from testbed.dashboard.views.selection import LINK, NODE, SESSION, Selection, View, choices, selected
from testbed.dashboard.views.view_details import details
from testbed.dashboard.widgets import Panel, Tag, button, number, tool
from testbed.operation.words import rate_of
from testbed.planning import fault
from testbed.planning.fault import CONTROLLER, CUT, DATABASE, EVE
from testbed.planning.plan import Plan

Can = Callable[[Snapshot], bool]

_EVES_SHARE = "0.3"  # of the pulses: some key is left, and the errors are to be seen


class _Actions:
    """Buttons that can be pressed only while that makes sense; which is so is asked of each snapshot."""

    def __init__(self) -> None:
        self._buttons: list[tuple[ui.button, Can]] = []

    def add(self, text: str, step: Callable[[], Any], can: Can, *, called: str = "") -> None:
        """One more. `called`: what it is called for those who do not see what it stands beside."""
        made = button(text, step, strong=True)
        if called:
            made.props(f'aria-label="{called}"')
        self._buttons.append((made, can))

    def show(self, snapshot: Snapshot) -> None:
        """Bring it up to date."""
        for made, can in self._buttons:
            if made.enabled != (now := can(snapshot)):
                made.set_enabled(now)


def _is_broken(kind: str, *where: str) -> Can:
    """Whether somebody has broken that; the order of two datacenters says nothing. With no place: anywhere."""
    return lambda snapshot: any(f.kind == kind and set(where) in (set(), set(f.where)) for f in snapshot.faults)


def _has_broken(kind: str) -> Can:
    """Whether somebody has broken something of that kind."""
    return lambda snapshot: any(f.kind == kind for f in snapshot.faults)


def _not(can: Can) -> Can:
    return lambda snapshot: not can(snapshot)


def _of_network(operator: Operator, actions: _Actions) -> None:
    """Kill and restart what all nodes depend on; heal everything."""
    for kind, name in ((CONTROLLER, "controller"), (DATABASE, "shared database")):
        is_down = _has_broken(kind)
        with Tag("div", "", "form"):
            actions.add(f"Kill the {name}", _break(operator, kind), _not(is_down))
            actions.add("Start it again", _heal(operator, kind), is_down, called=f"Start the {name} again")
    with Tag("div", "", "form"):
        actions.add("Heal everything", _heal(operator), lambda snapshot: bool(snapshot.faults))


def of_node(operator: Operator, node: str, actions: _Actions) -> None:
    """Kill it and start it again."""
    is_down = _is_broken(fault.NODE, node)
    with Tag("div", "", "form"):
        actions.add("Kill node", _break(operator, fault.NODE, node), _not(is_down))
        actions.add("Start node again", _heal(operator, fault.NODE, node), is_down)


def _of_link(operator: Operator, link: Link, actions: _Actions) -> None:
    """Cut and heal it, have somebody listen, shape it, set its QCs."""
    is_cut = _is_broken(CUT, link.a, link.b)
    with Tag("div", "", "form"):
        actions.add("Cut link", _break(operator, CUT, link.a, link.b), _not(is_cut))
        actions.add("Heal link", _heal(operator, CUT, link.a, link.b), is_cut)
        listens = _is_broken(EVE, link.a, link.b)
        actions.add("Let Eve listen", _break(operator, EVE, link.a, link.b, _EVES_SHARE), _not(listens))
        actions.add("Send Eve away", _heal(operator, EVE, link.a, link.b), listens)
    _shape(operator, link)
    for qc in link.qcs:
        _qc(operator, qc, actions)


def of_session(operator: Operator, ksid: str, tell: Callable[[str], Any]) -> None:
    """Tell how it was opened; close it."""
    def close() -> str:
        operator.request("close", ksid=ksid)
        return f"session {ksid} is closed"

    with Tag("div", "", "form"):
        button("Close session", lambda: operator.do(close, str), strong=True)
        button("Tell its story", lambda: tell(ksid))


def _break(operator: Operator, kind: str, *where: str) -> Callable[[], Any]:
    return lambda: operator.do(
        lambda: operator.request("break", kind=kind, where=list(where)), lambda found: f"broken: {found['name']}"
    )


def _heal(operator: Operator, kind: str | None = None, *where: str) -> Callable[[], Any]:
    return lambda: operator.do(
        lambda: operator.request("heal", kind=kind, where=list(where)),
        lambda found: f"healed: {', '.join(fault['name'] for fault in found) or 'nothing was broken'}",
    )


def _shape(operator: Operator, link: Link) -> None:
    now = next(fibre for fibre in operator.request("fibres") if fibre["name"] == link.name)
    with Tag("div", "", "form"):
        delay = number("Delay in ms, one way", 0, MAX_DELAY_MS, step=0.001)
        jitter = number("Jitter in ms", 0, MAX_DELAY_MS, step=0.001)
        loss = number("Loss in percent", 0, 100, step=0.1)

        def fill(fibre: Document) -> None:
            there, _ = fibre["directions"]
            delay.value, jitter.value, loss.value = (there[n] for n in ("delay_ms", "jitter_ms", "loss_percent"))

        async def change() -> None:
            shape = {"delay_ms": delay.value, "jitter_ms": jitter.value, "loss_percent": loss.value}
            await operator.do(
                lambda: operator.request("change_fibre", fibre=link.name, shape=shape),
                lambda found: f"{found['name']} is shaped anew",
            )

        async def reset() -> None:
            done = await operator.do(
                lambda: operator.request("reset_fibre", fibre=link.name),
                lambda found: f"{found['name']} is shaped as planned",
            )
            if done is not None:
                fill(done)

        fill(now)
        button("Set delay, jitter, loss", change)
        button("As planned", reset)


def _qc(operator: Operator, qc: Qc, actions: _Actions) -> None:
    with Tag("div", "", "form"):
        field = ui.input(
            f"Rate of {qc.name}, LOW-HIGH in bytes a second", value=f"{qc.low_bytes_per_slot}-{qc.high_bytes_per_slot}"
        )
        field.props("outlined dense").classes("field wide")

        def set_rate() -> str:
            low, high = rate_of(field.value)
            return str(operator.request("set_rate", qc=qc.name, low=low, high=high)["said"])

        button("Set rate", lambda: operator.do(set_rate, str))
    with Tag("div", "", "form"):
        actions.add(
            "Stop generating", lambda: _generate(operator, qc.name, enabled=False), _is_switched(qc.name, on=True)
        )
        actions.add("Generate", lambda: _generate(operator, qc.name, enabled=True), _is_switched(qc.name, on=False))


def _is_switched(qc: str, *, on: bool) -> Can:
    """Whether a QC is switched on, or off; what nobody has said counts as both."""

    def can(snapshot: Snapshot) -> bool:
        found = next((q for q in snapshot.told("qcs") if q["qc"] == qc), None)
        return found is None or bool(found["enabled"]) == on

    return can


async def _generate(operator: Operator, qc: str, *, enabled: bool) -> None:
    await operator.do(
        lambda: operator.request("set_generation", qc=qc, enabled=enabled), lambda found: found["said"]
    )


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
        self._acts = _Actions()
        with Panel("details", "Details") as panel:
            self._title = panel.title
            self._chooser = ui.select({}, label="Look at", on_change=self._chosen)
            self._chooser.props("outlined dense options-dense").classes("field wide")
            with Tag("div", "", "columns"):
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
        self._acts.show(view.snapshot)
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
        self._curves, self._acts = None, _Actions()
        with self._actions:
            if selection.kind == LINK:
                link = next(p for p in self._plan.topology.links if p.name == selection.name)
                _of_link(self._operator, link, self._acts)
                self._curves = _Curves([qc.name for qc in link.qcs])
            elif selection.kind == NODE:
                of_node(self._operator, selection.name, self._acts)
            elif selection.kind == SESSION:
                of_session(self._operator, selection.name, self._tell)
            else:
                _of_network(self._operator, self._acts)
                self._curves = _Curves([qc.name for link in self._plan.topology.links for qc in link.qcs], summed=True)


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
        tool("save-curves", "Save as SVG", "Save the curves as SVG")
        self._shown: tuple[Sample, ...] = ()

    def show(self, snapshot: Snapshot) -> None:
        samples = total(snapshot.curves.get(qc, ()) for qc in self._qcs)
        if samples != self._shown:
            self._shown = samples
            self._chart.options.update(qc_curves(samples))
            self._chart.update()

    def _choose(self, event: ValueChangeEventArguments[str]) -> None:
        self._qcs = [event.value]
