"""Tables of the page: keys that were delivered, QCs with curves, key sessions; and the story of a key."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from documents.paths import in_words, paths_of
from testbed.dashboard.operator import Operator
from testbed.dashboard.panels.charts import distribution
from testbed.dashboard.views.selection import LINK, SESSION, Selection, View
from testbed.dashboard.views.view_tables import (
    SPARK_HEIGHT,
    SPARK_WIDTH,
    QcRow,
    Spark,
    durations_ms,
    failures,
    keys,
    qcs,
    refusals,
    sessions,
    story_of,
    times,
    tunnels,
)
from testbed.dashboard.widgets import Panel, Table, Tag, button
from testbed.planning.plan import Plan


class KeysPanel:
    """Delivery times of the last minutes, and the latest keys."""

    def __init__(self, tell: Callable[[str], Any]) -> None:
        with Panel("keys", "Delivery times, last three minutes"):
            self._words = Tag("p", "", "figures")
            self._chart = ui.echart(distribution((), ()), renderer="svg").classes("chart distribution")
            self._drawn: object = None
            header = ("key ID", "time", "master → slave", "over", "took")
            self._table = Table("Latest keys", header, empty="No key was delivered yet.", presses={0: tell})

    def show(self, view: View) -> None:
        """Bring figures, diagram and table up to date."""
        self._words.say(times(view.snapshot))
        single, multi = (durations_ms(view.snapshot, several_hops=s) for s in (False, True))
        options = distribution(single, multi)
        if options != self._drawn:
            self._drawn = options
            self._chart.options.update(options)
            self._chart.update()
        self._table.show(keys(view.snapshot))


class TunnelsPanel:
    """Tunnels, which key each of their ends is under, and its story; not there while there are none."""

    def __init__(self, tell: Callable[[str], Any]) -> None:
        with Panel("tunnels", "Tunnels") as panel:
            self._panel = panel
            self._table = Table(
                "Ends of tunnels", ("from → to", "kind", "state", "key", "its age", "keys"), empty="There is none.",
                presses={3: lambda key: tell(key.rpartition(" ")[2])},
            )  # fmt: skip

    def show(self, view: View) -> None:
        """Bring the table up to date."""
        rows = tunnels(view.plan, view.snapshot)
        self._panel.element.set_visibility(bool(rows))
        self._table.show(rows)


class TroublePanel:
    """Refused sessions and failed requests for keys, with their stories."""

    def __init__(self, tell: Callable[[str], Any]) -> None:
        with Panel("trouble", "Refused and failed"):
            header = ("time", "master → slave", "why", "what helps", "")
            presses = {4: lambda key: tell(story_of(key))}
            Tag("h3", "Key sessions that were refused")
            self._refusals = Table(
                "Refused key sessions", header, empty="No key session was refused.", presses=presses
            )
            Tag("h3", "Requests for keys that failed")
            self._failures = Table(
                "Failed requests for keys", header, empty="No request for keys failed.", presses=presses
            )

    def show(self, view: View) -> None:
        """Bring both tables up to date."""
        self._refusals.show(refusals(view.snapshot))
        self._failures.show(failures(view.snapshot))


_HEADER = ("QC", "state", "error rate", "makes", "stock", "expires", "load")


class QcsPanel:
    """All QCs."""

    def __init__(self, select: Callable[[Selection], None]) -> None:
        self._select = select
        self._rows: dict[str, _Row] = {}
        with Panel("qcs", "Quantum channels, last two minutes"), Tag("table", "", "rows"):
            with Tag("thead"), Tag("tr"):
                for name in _HEADER:
                    Tag("th", name, scope="col")
            self._body = Tag("tbody")

    def show(self, view: View) -> None:
        """Bring all curves up to date."""
        rows = qcs(view.plan, view.snapshot)
        for dark in self._rows.keys() - {row.qc for row in rows}:
            self._rows.pop(dark).delete()
        for row in rows:
            if row.qc not in self._rows:
                with self._body:
                    self._rows[row.qc] = _Row(row, self._select)
            self._rows[row.qc].show(row, selected=bool(row.link) and view.selection == Selection(LINK, row.link))


class _Row:
    def __init__(self, row: QcRow, select: Callable[[Selection], None]) -> None:
        with Tag("tr") as self._row:
            with Tag("td"):
                if row.link:
                    Tag("button", row.qc, "link", type="button").on("click", lambda: select(Selection(LINK, row.link)))
                else:
                    Tag("span", f"{row.qc} {row.past}".strip())
            with Tag("td"):
                self._state = Tag("span")
            with Tag("td", "", "nowrap"):
                self._error_rate = Tag("span")
            self._sparks = [_Curve() for _ in row.sparks]

    def delete(self) -> None:
        """Show it no more."""
        self._row.delete()

    def show(self, row: QcRow, *, selected: bool) -> None:
        self._row.look("selected" if selected else "")
        self._state.say(row.state)
        self._error_rate.say(row.error_rate)
        for curve, spark in zip(self._sparks, row.sparks, strict=True):
            curve.show(spark)


class _Curve:
    def __init__(self) -> None:
        with Tag("td", "", "spark"):
            box = f"0 0 {SPARK_WIDTH} {SPARK_HEIGHT}"
            with Tag("svg", viewBox=box, preserveAspectRatio="none", aria_hidden="true"):
                Tag("line", "", "ground", x1=0, x2=SPARK_WIDTH, y1=SPARK_HEIGHT - 1, y2=SPARK_HEIGHT - 1)
                self._line = Tag("polyline")
            self._now = Tag("span")

    def show(self, spark: Spark) -> None:
        self._line.put({"points": spark.points})
        self._now.say(spark.now)


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
                presses={0: lambda ksid: select(Selection(SESSION, ksid))},
            )  # fmt: skip

    def show(self, view: View) -> None:
        """Bring the table up to date."""
        self._table.show(sessions(view.snapshot, view.selection))

    async def _open(self) -> None:
        master, slave = self._master.value, self._slave.value
        if master is None or slave is None:
            self._operator.say("✕ choose a master and a slave application first", bad=True)
            return
        opened = await self._operator.do(
            lambda: self._operator.request("open", master=master, slave=slave),
            lambda found: f"open: {master} → {slave}, path {in_words(paths_of(found), ' – ')}, KSID {found['ksid']}",
        )
        if opened is not None:
            self._select(Selection(SESSION, opened["ksid"]))


def _chooser(label: str, names: dict[str, str]) -> ui.select:
    return ui.select(names, label=label).props("outlined dense options-dense").classes("field wide")


class StoryPanel:
    """Told when it is asked for; not there before."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        with Panel("story", "Story") as panel:
            self._panel = panel
            button("Close the story", lambda: panel.element.set_visibility(False))
            self._content = Tag("div")
        panel.element.set_visibility(False)

    async def tell(self, ident: str) -> None:
        """Show the story of a key ID or a KSID."""
        story = await self._operator.do(
            lambda: self._operator.request("story", ident=ident), lambda found: str(found["title"])
        )
        if story is None:
            return
        self._panel.element.set_visibility(True)
        self._panel.title.say(f"Story: {story['title']}")
        self._content.clear()
        with self._content:
            _show(story)
        self._panel.element.run_method("scrollIntoView")


def _show(story: Mapping[str, Any]) -> None:
    # As an image: the picture has styles of its own, which are to stay in it.
    encoded = base64.b64encode(story["svg"].encode()).decode()
    Tag("img", "", "picture", src=f"data:image/svg+xml;base64,{encoded}", alt=f"{story['title']}: as text below")
    if story["learned"]:
        Tag("h3", "Who learned it")
        with Tag("ul"):
            for node in story["learned"]:
                Tag("li", f"{node['node']}: {node['what']} — {node['how']}")
    with Tag("details"):
        Tag("summary", "The story as text")
        Tag("pre", story["text"])
