"""The least that the network makes anything take: round trips that a protocol cannot avoid, by the fastest ping."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from decisions.modes import MODES
from testbed.errors import UserError
from testbed.network.emulation import Emulation

PINGS = 21
_AT_ONCE = 4  # few packets all the same
Trip = tuple[str, str]


class RoundTrips:
    """Round-trip times between the hosts of a running network, each measured once."""

    def __init__(self, emulation: Emulation, pings: int = PINGS) -> None:
        self._emulation = emulation
        self._pings = pings
        self._known: dict[Trip, float] = {}

    def ms(self, source: str, target: str) -> float:
        """The fastest ping's: nothing can be faster. 0 from a host to itself. UserError if no ping comes back."""
        if source == target:
            return 0.0
        trip = (min(source, target), max(source, target))
        if trip not in self._known:
            self._known[trip] = self._ping(source, target)
        return self._known[trip]

    def all(self) -> list[tuple[str, str, float]]:
        """Between all datacenters, and from each of them to the controller and to the shared database."""
        nodes = self._emulation.plan.nodes
        trips = [*itertools.combinations(nodes, 2), *((n, service) for n in nodes for service in ("ctl", "db"))]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [(a, b, ms) for (a, b), ms in zip(trips, pool.map(lambda t: self.ms(*t), trips), strict=True)]

    def _ping(self, source: str, target: str) -> float:
        address = self._emulation.plan.hosts[target].ip
        command = [*self._emulation.network.enter(source), "ping", "-n", "-c", str(self._pings), "-i", "0.02", address]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        times = [float(t) for t in re.findall(r"time=([\d.]+) ms", shown)]
        if not times:
            raise UserError(f"no ping from {source} to {target} came back")
        return min(times)


def delivery_ms(
    rtt: Callable[[str, str], float], mode: str, source: str, path: Sequence[str], *more: Sequence[str]
) -> float:
    """The sum of the round trips that a key over `path` cannot do without, in ms; nothing if it was made ahead.

    A key that is made needs the shared database; over several hops each node must have reached the next one, and
    where a new key follows under a shared one, the first node the last one. Where nodes relay at once, it is the
    longest of their ways: from the first node by way of a node between to the last one, and back. So it is where a key
    goes over `more` paths as well.
    """
    if source == "pool":
        return 0.0
    trips = [(path[0], "db")]
    first, *between, last = path
    between += [node for other in more for node in other[1:-1]]
    if between and MODES[mode].at_once:
        return rtt(first, "db") + max(rtt(first, node) + rtt(node, last) + rtt(first, last) for node in between) / 2
    if between:
        trips += itertools.pairwise(path)
        if MODES[mode].cipher is not None:
            trips.append((first, last))
    return sum(rtt(a, b) for a, b in trips)


def initialisation_ms(rtt: Callable[[str, str], float], path: Sequence[str]) -> float:
    """The same for a key session's initialisation, until the master knows its KSID.

    The master asks the slave, whose node asks the controller. Then the master's node asks the controller, which
    configures the slave's node, over several hops all nodes at once, before it assigns the KSID. Over several hops each
    node of the path learns its neighbours only, so that the first one asks every other for them, one after the other.
    """
    master, slave = path[0], path[-1]
    several = len(path) > 2
    told = max(rtt("ctl", node) for node in (path if several else [slave]))
    way = sum(rtt(master, node) for node in path[1:]) if several else 0.0
    return rtt(master, slave) + rtt(slave, "ctl") + rtt(master, "ctl") + told + way
