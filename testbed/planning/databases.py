"""How the shared database of a run is made to bear failures, and which hosts it has for that. PURE."""

from __future__ import annotations

import itertools

from scenario.topology_description import Topology
from testbed.errors import UserError

# A single server, or one with a standby that takes over; commits wait for the standby (HA), or do not.
SINGLE, HA, HA_ASYNC = DATABASES = ("single", "ha", "ha-async")


def hosts_of(kind: str) -> list[str]:
    """Names of its hosts. The first two have a server, where there are so many; the third has a vote."""
    return ["db"] if kind == SINGLE else ["db", "db2", "db3"]


def places_of(topology: Topology, kind: str) -> dict[str, str]:
    """Its hosts and the datacenters that they hang at: as the topology says, else different ones as far as there are.

    UserError if a datacenter has the name of one, or others would have to be on other machines.
    """
    if kind != SINGLE and topology.machines:
        raise UserError("--database: one that fails over goes on one machine only, and this network has several")
    names = [node.name for node in topology.nodes]
    first = names.index(topology.database_at)
    given = {"db": topology.database_at, "db2": topology.database2_at, "db3": topology.database3_at}
    said = {host: given[host] for host in hosts_of(kind)}
    others = [name for name in names[first:] + names[:first] if name not in said.values()] or names
    free = itertools.cycle(others)
    places = {host: where or next(free) for host, where in said.items()}
    if twice := sorted({*names} & places.keys()):
        raise UserError(f"--database {kind}: {twice[0]} is a host of the database: call the datacenter otherwise")
    return places
