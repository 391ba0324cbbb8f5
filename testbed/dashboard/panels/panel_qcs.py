"""The quantum channels: a row each, with its last two minutes as little curves."""

from __future__ import annotations

from collections.abc import Callable

from testbed.dashboard.views.selection import LINK, Selection, View
from testbed.dashboard.views.view_tables import SPARK_HEIGHT, SPARK_WIDTH, QcRow, Spark, qcs
from testbed.dashboard.widgets import Panel, Tag

_HEADER = ("QC", "state", "makes", "stock", "expires", "load")


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
        for row in qcs(view.plan, view.snapshot):
            if row.qc not in self._rows:
                with self._body:
                    self._rows[row.qc] = _Row(row, self._select)
            self._rows[row.qc].show(row, selected=view.selection == Selection(LINK, row.link))


class _Row:
    def __init__(self, row: QcRow, select: Callable[[Selection], None]) -> None:
        with Tag("tr") as self._row:
            with Tag("td"):
                Tag("button", row.qc, "link", type="button").on("click", lambda: select(Selection(LINK, row.link)))
            with Tag("td"):
                self._state = Tag("span")
            self._sparks = [_Curve() for _ in row.sparks]

    def show(self, row: QcRow, *, selected: bool) -> None:
        self._row.look("selected" if selected else "")
        self._state.say(row.state)
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
