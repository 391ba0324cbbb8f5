"""Rows in columns, for people to read on a terminal. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows in columns as wide as needed, numbers to the right. PURE."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    numeric = [bool(cells) and all(r[i].lstrip("-").replace(".", "", 1).isdigit() or r[i] == "-" for r in cells)
               for i in range(len(header))]  # fmt: skip

    def line(row: Sequence[str]) -> str:
        fitted = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        return "  ".join(fitted).rstrip()

    return "\n".join([line(list(header)), *(line(r) for r in cells)]) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value)  # the sum makes 0.0 of -0.0
