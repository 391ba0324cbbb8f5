"""Journals of a run in virtual time, in the form of those that real parts write, and the spans that stories go by."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LINES_AT_ONCE = 10_000


@dataclass(slots=True)
class Journal:
    """A file of events, one JSON object a line."""

    path: Path
    who: str
    lines: list[str] = field(default_factory=list)

    def event(self, at_s: float, name: str, **facts: Any) -> None:
        """One line."""
        common = {"time": round(at_s, 6), "mono": round(at_s, 6), "who": self.who, "event": name}
        self.lines.append(json.dumps(common | facts, separators=(",", ":")))
        if len(self.lines) >= _LINES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """All that was said is in the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self.lines)
        self.lines.clear()


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a trace, as a story has it, and what it is a part of."""

    trace: str
    span: str
    parent: str = ""

    @property
    def ids(self) -> dict[str, str]:
        """The same for a journal."""
        own = {"trace": self.trace, "span": self.span}
        return own | {"parent": self.parent} if self.parent else own
