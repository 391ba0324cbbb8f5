"""Rows in columns, for people to read on a terminal; where they do not fit side by side, one below the other."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from contextvars import ContextVar

# How many characters fit into a line of whoever reads; None: as many as there are.
WIDTH: ContextVar[int | None] = ContextVar("width", default=None)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows in columns as wide as needed, numbers to the right; or each row as a group of lines, if WIDTH is too small.

    PURE but for WIDTH.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    most = WIDTH.get()
    if most is not None and cells and sum(widths) + 2 * (len(widths) - 1) > most:
        return _groups(header, cells, most)
    numeric = [bool(cells) and all(r[i].lstrip("-").replace(".", "", 1).isdigit() or r[i] == "-" for r in cells)
               for i in range(len(header))]  # fmt: skip

    def line(row: Sequence[str]) -> str:
        fitted = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        return "  ".join(fitted).rstrip()

    return "\n".join([line(list(header)), *(line(r) for r in cells)]) + "\n"


def _groups(header: Sequence[str], cells: Sequence[Sequence[str]], most: int) -> str:
    """A cell after the other, with what it is before it; the first one of each row stands out."""
    wide = max(map(len, header)) + 4
    groups = []
    for row in cells:
        (first, value), *rest = zip(header, row, strict=True)
        for what, found in ((first, value), *((f"  {what}", found) for what, found in rest)):
            lines = textwrap.wrap(found, max(1, most - wide), break_long_words=False, break_on_hyphens=False) or [""]
            groups += [f"{what:<{wide}}{lines[0]}".rstrip(), *(" " * wide + line for line in lines[1:])]
    return "\n".join(groups) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value)  # the sum makes 0.0 of -0.0
