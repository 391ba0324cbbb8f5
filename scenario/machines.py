"""Where the datacenters of a network are, if not all on one machine. Frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HOME = "home"  # the machine on which a run is started; it holds whatever no other one does


@dataclass(frozen=True, slots=True)
class Machine:
    """A worker: a machine that holds some datacenters of a network, reached as `ssh` reaches that destination.

    `root`: the folder of the testbed there; None: the same as at home. `address`: where its WireGuard is reached by
    the other machines; None: where its SSH server is.
    """

    name: str
    ssh: str
    datacenters: tuple[str, ...]
    root: str | None = None
    address: str | None = None


def places(machines: Iterable[Machine], datacenters: Iterable[str]) -> Mapping[str, str]:
    """The machine of each datacenter. PURE."""
    there = {name: machine.name for machine in machines for name in machine.datacenters}
    return {name: there.get(name, HOME) for name in datacenters}
