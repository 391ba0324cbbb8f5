"""The delay line's configuration, read and checked. Delays are one way; only `delay_ms` has no default.

    {"lines": [{"name": "a-b", "a": "dl0a", "b": "dl0b",
                "a_to_b": {"delay_ms": 5, "jitter_ms": 0, "loss_percent": 0, "bandwidth_mbit": null},
                "b_to_a": {"delay_ms": 5}}],
     "seed": 1, "stats": "stats.json", "answer": "answer.json"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from documents.checks import integer, mapping, sequence, text
from documents.errors import Malformed
from scenario.shape import Shape, parse_shape

# IFNAMSIZ, less the zero at the end.
_LONGEST_INTERFACE = 15


@dataclass(frozen=True, slots=True)
class Line:
    """A link: the interfaces at its two ends, and the shape of each direction."""

    name: str
    a: str
    b: str
    a_to_b: Shape
    b_to_a: Shape


@dataclass(frozen=True, slots=True)
class Config:
    """Lines, seed of losses and jitter, and where the statistics and the answer to a change go, if anywhere."""

    lines: tuple[Line, ...]
    seed: int
    stats: Path | None
    answer: Path | None


def load(path: Path) -> Config:
    """The configuration in `path`. OSError, or ValueError that names the member and what was expected."""
    try:
        document = json.loads(path.read_text())
    except RecursionError:
        raise Malformed("configuration", "an object, not so deeply nested") from None
    return parse(document)


def parse(document: Any) -> Config:
    """The configuration in a JSON document. Malformed names the member and what was expected. PURE."""
    given = _object(document, "configuration", ("lines", "seed", "stats", "answer"))
    lines = []
    taken: set[tuple[str, str]] = set()
    for i, entry in enumerate(sequence(given.get("lines"), "lines", longest=4096)):
        line = _line(entry, f"lines[{i}]")
        for member, value in (("name", line.name), ("a", line.a), ("b", line.b)):
            kind = "line" if member == "name" else "interface"
            if (kind, value) in taken:
                raise Malformed(f"lines[{i}].{member}", f"a name of its own, {value!r} is taken")
            taken.add((kind, value))
        lines.append(line)
    return Config(
        tuple(lines),
        integer(given.get("seed", 0), "seed", low=0, high=1 << 62),
        *(None if given.get(m) is None else Path(text(given[m], m, longest=4096)) for m in ("stats", "answer")),
    )


def _line(value: Any, field: str) -> Line:
    line = _object(value, field, ("name", "a", "b", "a_to_b", "b_to_a"))
    name = text(line.get("name"), f"{field}.name")
    a, b = (text(line.get(m), f"{field}.{m}", longest=_LONGEST_INTERFACE) for m in "ab")
    there, back = (parse_shape(line.get(m), f"{field}.{m}") for m in ("a_to_b", "b_to_a"))
    return Line(name, a, b, there, back)


def _object(value: Any, field: str, members: tuple[str, ...]) -> Mapping[str, Any]:
    given = mapping(value, field)
    for member in given:
        if member not in members:
            # A stranger may hold anything, and the message is to be one line.
            shown = member if member.isidentifier() else repr(member)
            raise Malformed(f"{field}.{shown}", f"only the members {', '.join(members)}")
    return given
