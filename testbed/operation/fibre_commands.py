"""`qkd fibre ...`: words of a command line to requests, and answers to text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from testbed.errors import UserError
from testbed.operation.tables import table

Document = Mapping[str, Any]

_ARROW = "->"

_TIME = {"": 1.0, "us": 0.001, "ms": 1.0, "s": 1000.0}
# Word on the command line -> member of a shape, units with what they are worth in the member's own, an example.
_SETTINGS = {
    "delay": ("delay_ms", _TIME, "20ms"),
    "jitter": ("jitter_ms", _TIME, "2ms"),
    "loss": ("loss_percent", {"": 1.0, "%": 1.0}, "1%"),
    "bandwidth": ("bandwidth_mbit", {"": 1.0, "kbit": 0.001, "mbit": 1.0, "gbit": 1000.0}, "100mbit, or none"),
}
_VALUE = re.compile(r"(\d+\.?\d*|\.\d+)([a-z%]*)")


def obey(do: Callable[..., Any], words: Sequence[str]) -> str:
    """What to print for `qkd fibre` and these words behind it; `do` makes a request. UserError, in one line."""
    found, towards, rest = _which(do("fibres"), words)
    if not rest and towards is None:
        return _show(found)
    if len(found) > 1:
        names = ", ".join(fibre["name"] for fibre in found)
        ends = f"{found[0]['a']} and {found[0]['b']}"
        raise UserError(f"several fibres join {ends}: take one by its name, of {names}")
    name = found[0]["name"]
    if rest == ["measure"]:
        return _measured(do("measure_fibre", fibre=name, towards=towards))
    if rest == ["reset"] and towards is None:
        return _changed(do("reset_fibre", fibre=name))
    return _changed(do("change_fibre", fibre=name, shape=changes(rest), towards=towards))


def changes(words: Sequence[str]) -> dict[str, float | None]:
    """The members of a shape that `delay 20ms loss 1%` names, in their own units. UserError. PURE."""
    if not words:
        raise UserError(f"expected what to change: {', '.join(_SETTINGS)}")
    found: dict[str, float | None] = {}
    for word, value in zip(words[::2], [*words[1::2], ""], strict=False):
        if word not in _SETTINGS:
            raise UserError(f"unknown {word!r}: expected {', '.join(_SETTINGS)}, or measure or reset alone")
        member, units, example = _SETTINGS[word]
        if member in found:
            raise UserError(f"{word}: given twice")
        match = _VALUE.fullmatch(value.lower())
        if member == "bandwidth_mbit" and value == "none":
            found[member] = None
        elif match is None or match[2] not in units:
            raise UserError(f"{word}: expected a value such as {example}, got {value!r}")
        else:
            found[member] = float(match[1]) * units[match[2]]
    return found


def shapes(fibres: Iterable[Document]) -> str:
    """The shape of both directions, in one line where they are the same. PURE."""
    rows = []
    for fibre in fibres:
        there, back = fibre["directions"]
        if _shape(there) == _shape(back):
            rows.append((fibre["name"], "both ways", *_shape(there)))
        else:
            rows += [(fibre["name"], f"{d['from']} {_ARROW} {d['to']}", *_shape(d)) for d in (there, back)]
    return table(("fibre", "direction", "delay ms", "jitter ms", "loss %", "bandwidth Mbit/s"), rows)


def figures(rows: Iterable[tuple[Sequence[object], Document]], first: Sequence[str]) -> str:
    """Measurements, each as what stands in the columns `first` and a figure. PURE."""
    header = (*first, "quantity", "unit", "configured", "measured", "error", "error %", "95 % interval")
    return table(header, [(*row, *_cells(figure)) for row, figure in rows])


def _which(fibres: Sequence[Document], words: Sequence[str]) -> tuple[list[Document], str | None, list[str]]:
    """The fibres meant, the datacenter that the direction meant leads to (None: both directions), and what follows.

    A B, A -> B, NAME, or NAME -> B.
    """
    first, *rest = words
    nodes = {node for fibre in fibres for node in (fibre["a"], fibre["b"])}
    arrow = rest[:1] == [_ARROW]
    if arrow:
        rest = rest[1:]
        if not rest:
            raise UserError(f"expected a datacenter behind {_ARROW}")
    if first in nodes and rest:
        found, towards, rest = _between(fibres, nodes, first, rest[0]), rest[0], rest[1:]
    else:
        found, towards = [_named(fibres, first)], None
        if arrow:
            towards, rest = rest[0], rest[1:]
    return found, towards if arrow else None, rest


def _named(fibres: Sequence[Document], name: str) -> Document:
    for fibre in fibres:
        if fibre["name"] == name:
            return fibre
    raise UserError(f"no fibre {name!r}: there are {', '.join(fibre['name'] for fibre in fibres)}")


def _between(fibres: Sequence[Document], nodes: set[str], one: str, other: str) -> list[Document]:
    if other not in nodes:
        raise UserError(f"no datacenter {other!r}: there are {', '.join(sorted(nodes))}")
    found = [fibre for fibre in fibres if {fibre["a"], fibre["b"]} == {one, other}]
    if not found:
        raise UserError(f"no fibre between {one} and {other}")
    return found


def _show(found: Sequence[Document]) -> str:
    lit = [f"{fibre['name']} is {'up' if fibre['lit'] else 'down'}\n" for fibre in found]
    return shapes(found) + "".join(lit)


def _changed(fibre: Document) -> str:
    shown, link = shapes([fibre]), fibre["rtt"]
    if not fibre["lit"]:
        return f"{shown}{fibre['name']} is down\n"
    if link is None:
        return shown
    came = link["measured_ms"]
    measured = "no frame came back" if came is None else f"{came:.3f} ms measured now"
    return f"{shown}round trip {link['configured_ms']:.3f} ms configured, {measured}\n"


def _measured(found: Sequence[Document]) -> str:
    rows = (((f"{d['from']} {_ARROW} {d['to']}",), figure) for d in found for figure in d["figures"])
    return figures(rows, ("direction",))


def _shape(direction: Document) -> tuple[object, ...]:
    return tuple(direction[member] for member in ("delay_ms", "jitter_ms", "loss_percent", "bandwidth_mbit"))


def _cells(figure: Document) -> tuple[object, ...]:
    configured, measured, low, high = (figure[name] for name in ("configured", "measured", "low", "high"))
    error = None if measured is None else measured - configured
    percent = None if error is None or not configured else 100 * error / configured
    interval = "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return figure["quantity"], figure["unit"], configured, measured, error, percent, interval
