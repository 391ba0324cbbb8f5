"""What is known of a running network at one moment. Frozen values, made by the watch, read by the view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scenario.shape import Shape
from testbed.dashboard.collected.curves import Sample
from testbed.dashboard.collected.tally import Figures, Tally
from testbed.network.faults import Fault

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """The last answer of a controller or node, None if there was none yet, and for how long it has been silent."""

    answer: Document | None = None
    silent_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FibreNow:
    """A fibre now: whether both its ends see light, and how its two directions are shaped, a to b first."""

    lit: bool
    shapes: tuple[Shape, Shape]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the page shows, as it was at `time` (wall clock). `controller` answers with all that it shows."""

    number: int = 0
    time: float = 0.0
    controller: Heard = field(default_factory=Heard)
    nodes: Mapping[str, Heard] = field(default_factory=dict)
    fibres: Mapping[str, FibreNow] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    figures: Figures = field(default_factory=lambda: Tally().figures())
    away: Mapping[str, str] = field(default_factory=dict)  # processes that do not serve, each with a word why

    def told(self, what: str) -> Any:
        """What the controller last told of `status`, `qcs`, `sessions` or `refusals`; empty if nothing yet."""
        return (self.controller.answer or {}).get(what) or ({} if what == "status" else [])

    @property
    def parameters(self) -> Document:
        """The network's parameters; empty if they are not known yet."""
        return dict(self.told("status").get("parameters", {}))
