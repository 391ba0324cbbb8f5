"""Which faults there are, and what one is. What they do: `testbed.network.faults`. PURE."""

from __future__ import annotations

from dataclasses import dataclass

CUT, QC, DEVICE, EVE, NODE, PAUSE = "cut", "qc", "device", "eve", "node", "pause"
DATABASE, STANDBY, PARTITION, CONTROLLER, MACHINE = "database", "standby", "partition", "controller", "machine"
# How many datacenters each kind names. Of PARTITION it is a host of the database, and may be one of DATABASE where that
# fails over; of MACHINE it is a machine, and of CONTROLLER it may be one of several.
KINDS = {
    CUT: 2, QC: 2, DEVICE: 2, EVE: 2, NODE: 1, PAUSE: 1, DATABASE: 0, STANDBY: 0, PARTITION: 1, CONTROLLER: 0,
    MACHINE: 1,
}  # fmt: skip
# Which of two controllers: the one that leads, or the other one.
PRIMARY = "primary"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken: the kind, the datacenters, hosts or machine that it names, and since when (wall clock, s).

    Of several controllers it names the one.

    `fraction`: of an eavesdropper (EVE), the part of the pulses that she intercepts and sends again.
    """

    kind: str
    where: tuple[str, ...]
    since: float
    fraction: float = 1.0

    @property
    def name(self) -> str:
        """As one writes it at the command line: "cut a b"."""
        how = (f"{self.fraction:g}",) if self.kind == EVE else ()
        return " ".join((self.kind, *self.where, *how))
