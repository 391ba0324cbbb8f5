"""What a storm found, and how it is told. PURE."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from testbed.operation.tables import table


@dataclass(slots=True)
class Result:
    """What came of a number of gusts.

    `healed_ms`: by kind of fault, after how long the network was whole again (None: not at all). `refused`: by kind,
    how many the network did not do, so that there was no fault. `findings`: what was not so, in words. `exchanges`: how
    many of those of foreign clients had which outcome. `takeovers`: how often another controller led, and another host
    of the database took writes.
    """

    gusts: int = 0
    healed_ms: dict[str, list[float | None]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    exchanges: dict[str, int] = field(default_factory=dict)
    takeovers: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """How many faults there were."""
        return sum(map(len, self.healed_ms.values()))

    def add(self, other: Result) -> None:
        """Count in what came to another network."""
        self.gusts += other.gusts
        for kind, times in other.healed_ms.items():
            self.healed_ms.setdefault(kind, []).extend(times)
        self.findings += other.findings
        for mine, others in (
            (self.refused, other.refused), (self.exchanges, other.exchanges), (self.takeovers, other.takeovers),
        ):  # fmt: skip
            for name, number in others.items():
                mine[name] = mine.get(name, 0) + number

    def to_json(self) -> dict[str, Any]:
        """The document that `parse` reads."""
        return asdict(self)

    def for_people(self) -> str:
        """The closing table."""
        kinds = sorted(self.healed_ms.keys() | self.refused.keys())
        rows = [(kind, *_row(self.healed_ms.get(kind, [])), self.refused.get(kind, 0)) for kind in kinds]
        every = [ms for times in self.healed_ms.values() for ms in times]
        header = ("fault", "number", "healed ms median", "max", "not healed", "refused")
        common = sorted(self.exchanges.items(), key=lambda item: -item[1])
        takeovers = [table(("taken over by another one", "number"), sorted(self.takeovers.items()))]
        return "\n".join(
            [
                table(header, [*rows, ("all", *_row(every), sum(self.refused.values()))]),
                table(("exchange of foreign clients", "number"), common),
                *(takeovers if self.takeovers else ()),
                *(f"FINDING  {text}" for text in self.findings),
                f"{self.gusts} gusts, {self.faults} faults, {len(self.findings)} findings",
            ]
        )


def parse(document: Mapping[str, Any]) -> Result:
    """A result as `to_json` wrote it."""
    return Result(**document)


def _row(times: list[float | None]) -> tuple[int, float | None, float | None, int]:
    healed = [ms for ms in times if ms is not None]
    if not healed:
        return len(times), None, None, len(times)
    return len(times), round(statistics.median(healed)), round(max(healed)), len(times) - len(healed)
