"""How the shared database of a run is made to bear failures, and which hosts it has for that. PURE."""

from __future__ import annotations

from scenario.topology_description import Topology
from testbed.errors import UserError

# A single server, or one with a standby that takes over; commits wait for the standby (HA), or do not.
SINGLE, HA, HA_ASYNC = DATABASES = ("single", "ha", "ha-async")


def hosts_of(kind: str) -> list[str]:
    """Names of its hosts. The first two have a server, where there are so many; the third has a vote."""
    return ["db"] if kind == SINGLE else ["db", "db2", "db3"]


def places_of(topology: Topology, kind: str) -> dict[str, str]:
    """Its hosts and the datacenters that they hang at: different ones as far as there are.

    UserError if a datacenter has the name of one.
    """
    names = [node.name for node in topology.nodes]
    first = names.index(topology.database_at)
    places = {host: names[(first + i) % len(names)] for i, host in enumerate(hosts_of(kind))}
    if twice := sorted({*names} & places.keys()):
        raise UserError(f"--database {kind}: {twice[0]} is a host of the database: call the datacenter otherwise")
    return places
