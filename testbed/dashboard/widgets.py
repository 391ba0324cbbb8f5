"""What the panels are made of: plain elements that are sent to browsers only when they have changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from testbed.dashboard.views.view_tables import Row


class Tag(TextElement):
    """An HTML or SVG element with a text, classes and attributes."""

    def __init__(self, tag: str, text: str = "", classes: str = "", /, **attributes: Any) -> None:
        super().__init__(tag=tag, text=text)
        self.classes(classes)
        self.put(attributes)

    def put(self, attributes: Mapping[str, Any]) -> Tag:
        """Set attributes; `_` stands for `-` in their names, None takes one away."""
        for name, value in attributes.items():
            key = name.replace("_", "-")
            if self.props.get(key) != value:
                self.props.set_optional(key, value)
        return self

    def say(self, text: str) -> None:
        """Set the text."""
        if self.text != text:
            self.text = text

    def look(self, classes: str) -> None:
        """Set the classes."""
        if list(self.classes) != classes.split():
            self.classes(replace=classes)


def pressable(tag: Tag, step: Callable[[], Any]) -> Tag:
    """Make an element do `step` when it is clicked, or when it has the focus and Enter or Space is pressed."""
    tag.put({"tabindex": "0", "role": "button"})
    tag.on("click", step).on("keydown.enter", step).on("keydown.space.prevent", step)
    return tag


def tool(do: str, text: str, meaning: str = "") -> Tag:
    """A button for what the browser does alone (assets/page.js)."""
    return Tag("button", text, "tool", type="button", data_do=do, aria_label=meaning or None)


class Panel:
    """A part of the page with a heading, to be used with `with`."""

    def __init__(self, name: str, title: str) -> None:
        self.element = Tag("section", "", f"panel {name}", aria_label=title)
        with self.element:
            self.title = Tag("h2", title)

    def __enter__(self) -> Panel:
        self.element.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.element.__exit__(*error)


class Table:
    """Rows under a header. Cells of the columns in `presses` are buttons, which call it with the row's key."""

    def __init__(
        self,
        caption: str,
        header: Sequence[str],
        *,
        empty: str,
        presses: Mapping[int, Callable[[str], Any]] | None = None,
    ) -> None:
        self._presses = presses or {}
        self._rows: dict[str, tuple[Tag, list[Tag]]] = {}
        self._empty = Tag("p", empty, "quiet")
        self._table = Tag("table", "", "rows")
        with self._table:
            Tag("caption", caption, "sr-only")
            with Tag("thead"), Tag("tr"):
                for name in header:
                    Tag("th", name, scope="col")
            self._body = Tag("tbody")

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows in this order, and no others."""
        self._empty.set_visibility(not rows)
        self._table.set_visibility(bool(rows))
        for key in self._rows.keys() - {row.key for row in rows}:
            self._rows.pop(key)[0].delete()
        for i, row in enumerate(rows):
            if row.key not in self._rows:
                self._add(row, i)
            element, cells = self._rows[row.key]
            element.look("selected" if row.selected else "")
            for column, (cell, text) in enumerate(zip(cells, row.cells, strict=True)):
                cell.say(text)
                if column in self._presses:
                    cell.set_visibility(bool(text))

    def _add(self, row: Row, index: int) -> None:
        with self._body:
            element = Tag("tr")
        element.move(self._body, index)
        cells = []
        with element:
            for i, text in enumerate(row.cells):
                with Tag("td"):
                    if (press := self._presses.get(i)) is None:
                        cells.append(Tag("span", text))
                    else:
                        cells.append(Tag("button", text, "link", type="button"))
                        cells[-1].on("click", functools.partial(press, row.key))
        self._rows[row.key] = element, cells


def number(label: str, low: float, high: float, *, step: float = 1) -> ui.number:
    """A field for a number."""
    return ui.number(label, min=low, max=high, step=step).props("outlined dense").classes("field")


def button(text: str, step: Callable[[], Any], *, strong: bool = False) -> ui.button:
    """A button; a strong one is dark."""
    made = ui.button(text, on_click=step).props("no-caps unelevated" if strong else "no-caps outline")
    return made.classes("act")
