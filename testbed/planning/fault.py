"""Which faults there are, and what one is. What they do: `testbed.network.faults`. PURE."""

from __future__ import annotations

from dataclasses import dataclass

CUT, QC, DEVICE, NODE, PAUSE = "cut", "qc", "device", "node", "pause"
DATABASE, STANDBY, CONTROLLER = "database", "standby", "controller"
# How many datacenters each kind names.
KINDS = {CUT: 2, QC: 2, DEVICE: 2, NODE: 1, PAUSE: 1, DATABASE: 0, STANDBY: 0, CONTROLLER: 0}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken: the kind, the datacenters that it names, and since when (wall clock, s)."""

    kind: str
    where: tuple[str, ...]
    since: float

    @property
    def name(self) -> str:
        """As one writes it at the command line: "cut a b"."""
        return " ".join((self.kind, *self.where))
