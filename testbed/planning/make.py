"""The plan for a topology: names, addresses, ports. PURE."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator

from scenario.machines import HOME, places
from scenario.topology_description import Sae, Topology
from testbed.planning.databases import SINGLE, places_of
from testbed.planning.plan import FIRST_SAE_PORT, GATEWAY_PORT, STANDBY, HostPlan, LinkPlan, Plan, SaePlan

_HOSTS_PER_NET = 250
_STANDBY_NUMBER = 8  # of its host, behind the ones that are always there


def make_plan(topology: Topology, database: str = SINGLE, *, standby: bool = False) -> Plan:
    """The plan for `topology`, with such a shared database. SAEs without a fixed ID get a random UUID (RFC 4122).

    `standby`: with a second controller, where the topology says, else at the first datacenter on this machine that has
    neither the other one nor the database, if there is one. UserError if a datacenter has the name of a host.
    """
    taken = {node.name for node in topology.nodes}
    free = (name for i in itertools.count(1) if (name := f"s{i}") not in taken)
    switches = {node.name: next(free) for node in topology.nodes}
    counters = {switch: itertools.count(1) for switch in switches.values()}

    def next_port(switch: str) -> str:
        return f"{switch}-eth{next(counters[switch])}"

    hosts = {}
    for i, node in enumerate(topology.nodes):
        switch = switches[node.name]
        hosts[node.name] = _host(node.name, 0, i, switch, next_port(switch))
    for i, (name, where) in enumerate((("ctl", topology.controller_at), *places_of(topology, database).items())):
        switch = switches[where]
        hosts[name] = _host(name, 1, i, switch, next_port(switch))
    if standby:
        taken_places = (topology.database_at, topology.controller_at)
        here = [node for node, machine in places(topology.machines, list(switches)).items() if machine == HOME]
        usual = min(here, key=lambda node: taken_places.index(node) if node in taken_places else -1)
        where = topology.controller2_at or usual
        hosts[STANDBY.name] = _host(STANDBY.name, 1, _STANDBY_NUMBER, switches[where], next_port(switches[where]))
    links = []
    for link in topology.links:
        a, b = switches[link.a], switches[link.b]
        links.append(LinkPlan(link, a, next_port(a), b, next_port(b)))
    names = [node.name for node in topology.nodes]
    gateways = {name: SaePlan(f"vpn-{name}", name, str(uuid.uuid4()), GATEWAY_PORT) for name in names}
    return Plan(topology, switches, hosts, tuple(links), tuple(_saes(topology.saes)), gateways, database)


def _host(name: str, net: int, index: int, switch: str, port: str) -> HostPlan:
    high, low = divmod(index, _HOSTS_PER_NET)
    # The locally administered bit of the first byte says that nobody sold this address.
    mac = f"02:00:00:{net:02x}:{high:02x}:{low + 1:02x}"
    return HostPlan(name, f"10.{net}.{high}.{low + 1}", mac, switch, port, f"172.{30 + net}.{high}.{low + 1}")


def _saes(saes: tuple[Sae, ...]) -> Iterator[SaePlan]:
    ports: dict[str, Iterator[int]] = {}
    for sae in saes:
        port = None if sae.external else next(ports.setdefault(sae.node, itertools.count(FIRST_SAE_PORT)))
        yield SaePlan(sae.name, sae.node, sae.id or str(uuid.uuid4()), port)
