"""`qkd fibre ...`: words of a command line to calls of `testbed.fibres.fibres`, and answers to text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from scenario.shape import Shape
from testbed.fibres.fibres import Fibre, FibreError, Fibres
from testbed.fibres.measurement import Figure
from testbed.operation.tables import table

_ARROW = "->"
# Longer round trips are not measured right after a change: one would wait for many of them.
_LONGEST_RTT_MS = 1000.0

_TIME = {"": 1.0, "us": 0.001, "ms": 1.0, "s": 1000.0}
# Word on the command line -> member of a shape, units with what they are worth in the member's own, an example.
_SETTINGS = {
    "delay": ("delay_ms", _TIME, "20ms"),
    "jitter": ("jitter_ms", _TIME, "2ms"),
    "loss": ("loss_percent", {"": 1.0, "%": 1.0}, "1%"),
    "bandwidth": ("bandwidth_mbit", {"": 1.0, "kbit": 0.001, "mbit": 1.0, "gbit": 1000.0}, "100mbit, or none"),
}
_VALUE = re.compile(r"(\d+\.?\d*|\.\d+)([a-z%]*)")


def obey(fibres: Fibres, words: Sequence[str]) -> str:
    """What to print for `qkd fibre` and these words behind it. FibreError says what is wrong, in one line."""
    found, towards, rest = _which(fibres, words)
    if not rest and towards is None:
        return _show(fibres, found)
    if len(found) > 1:
        names = ", ".join(fibre.name for fibre in found)
        raise FibreError(f"several fibres join {found[0].a} and {found[0].b}: take one by its name, of {names}")
    name = found[0].name
    if rest == ["measure"]:
        return _measured(fibres.measure(name, towards=towards))
    if rest == ["reset"] and towards is None:
        return _changed(fibres, fibres.reset(name))
    return _changed(fibres, fibres.change(name, changes(rest), towards=towards))


def changes(words: Sequence[str]) -> dict[str, float | None]:
    """The members of a shape that `delay 20ms loss 1%` names, in their own units. FibreError. PURE."""
    if not words:
        raise FibreError(f"expected what to change: {', '.join(_SETTINGS)}")
    found: dict[str, float | None] = {}
    for word, value in zip(words[::2], [*words[1::2], ""], strict=False):
        if word not in _SETTINGS:
            raise FibreError(f"unknown {word!r}: expected {', '.join(_SETTINGS)}, or measure or reset alone")
        member, units, example = _SETTINGS[word]
        if member in found:
            raise FibreError(f"{word}: given twice")
        match = _VALUE.fullmatch(value.lower())
        if member == "bandwidth_mbit" and value == "none":
            found[member] = None
        elif match is None or match[2] not in units:
            raise FibreError(f"{word}: expected a value such as {example}, got {value!r}")
        else:
            found[member] = float(match[1]) * units[match[2]]
    return found


def shapes(fibres: Iterable[Fibre]) -> str:
    """The shape of both directions, in one line where they are the same. PURE."""
    rows = []
    for fibre in fibres:
        if fibre.a_to_b == fibre.b_to_a:
            rows.append(_row(fibre.name, "both ways", fibre.a_to_b))
        else:
            rows += [_row(fibre.name, f"{a} {_ARROW} {b}", shape) for a, b, shape in fibre.directions]
    return table(("fibre", "direction", "delay ms", "jitter ms", "loss %", "bandwidth Mbit/s"), rows)


def figures(rows: Iterable[tuple[object, ...]], first: Sequence[str]) -> str:
    """Measurements as rows of `first` columns and a Figure. PURE."""
    header = (*first, "quantity", "unit", "configured", "measured", "error", "error %", "95 % interval")
    return table(header, [(*row[:-1], *_cells(row[-1])) for row in rows if isinstance(row[-1], Figure)])


def _which(fibres: Fibres, words: Sequence[str]) -> tuple[list[Fibre], str | None, list[str]]:
    """The fibres meant, the datacenter that the direction meant leads to (None: both directions), and what follows.

    A B, A -> B, NAME, or NAME -> B.
    """
    first, *rest = words
    nodes = {node for fibre in fibres.all() for node in (fibre.a, fibre.b)}
    arrow = rest[:1] == [_ARROW]
    if arrow:
        rest = rest[1:]
        if not rest:
            raise FibreError(f"expected a datacenter behind {_ARROW}")
    if first in nodes and rest:
        found, towards, rest = fibres.between(first, rest[0]), rest[0], rest[1:]
    else:
        found, towards = [fibres.get(first)], None
        if arrow:
            towards, rest = rest[0], rest[1:]
    return found, towards if arrow else None, rest


def _show(fibres: Fibres, found: list[Fibre]) -> str:
    lit = [f"{fibre.name} is {'up' if fibres.is_lit(fibre.name) else 'down'}\n" for fibre in found]
    return shapes(found) + "".join(lit)


def _changed(fibres: Fibres, fibre: Fibre) -> str:
    shown = shapes([fibre])
    if not fibres.is_lit(fibre.name):
        return f"{shown}{fibre.name} is down\n"
    if fibre.rtt_ms > _LONGEST_RTT_MS:
        return shown
    link = fibres.rtt(fibre.name)
    measured = "no frame came back" if link.measured_rtt_ms is None else f"{link.measured_rtt_ms:.3f} ms measured now"
    return f"{shown}round trip {link.configured_rtt_ms:.3f} ms configured, {measured}\n"


def _measured(found: list[tuple[str, str, list[Figure]]]) -> str:
    return figures(((f"{a} {_ARROW} {b}", figure) for a, b, several in found for figure in several), ("direction",))


def _row(name: str, direction: str, shape: Shape) -> tuple[object, ...]:
    return name, direction, shape.delay_ms, shape.jitter_ms, shape.loss_percent, shape.bandwidth_mbit


def _cells(figure: Figure) -> tuple[object, ...]:
    interval = "-" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return (figure.quantity, figure.unit, figure.configured, figure.measured, figure.error, figure.error_percent,
            interval)  # fmt: skip
