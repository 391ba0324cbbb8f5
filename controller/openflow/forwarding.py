"""Classical forwarding: from the fabric and the ports that are down to the flows of every switch. PURE.

Each destination has, on each switch, the port that starts the shortest way there over links that are up. Ties always
fall the same way, and each step comes strictly closer, so that no packet can circle in a fabric full of loops.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from documents.checks import Malformed, integer, mapping, number, sequence, text

# A switch's flows: destination IPv4 address -> interface to send to.
Flows = Mapping[str, str]
# A port anywhere: switch and interface.
PortName = tuple[str, str]

_MAX_ENTRIES = 4096
# Delays count in nanoseconds, and one hop counts less than any delay: among equally long ways the fewest hops win.
_HOPS_PER_NS = 1 << 20


@dataclass(frozen=True, slots=True)
class Port:
    """A switch's end of a link to another switch; `delay_ms` is one way."""

    interface: str
    peer_switch: str
    peer_interface: str
    delay_ms: float


@dataclass(frozen=True, slots=True)
class Host:
    """A host at a switch's `interface`."""

    interface: str
    ip: str


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch, its OpenFlow datapath ID, its links and hosts."""

    name: str
    dpid: int
    ports: tuple[Port, ...]
    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class Fabric:
    """All switches."""

    switches: tuple[Switch, ...]

    def by_dpid(self, dpid: int) -> Switch | None:
        """The switch with that datapath ID."""
        return next((s for s in self.switches if s.dpid == dpid), None)


def forwarding(fabric: Fabric, down: Collection[PortName]) -> dict[str, Flows]:
    """The flows of every switch, by its name. A host that cannot be reached from a switch has no flow there."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(s.name for s in fabric.switches)
    live = {s.name: [p for p in s.ports if _is_up(s.name, p, down)] for s in fabric.switches}
    for name, ports in live.items():
        for port in ports:
            cost = _cost(port)
            if cost < graph.get_edge_data(name, port.peer_switch, {"cost": cost + 1})["cost"]:
                graph.add_edge(name, port.peer_switch, cost=cost)
    flows: dict[str, dict[str, str]] = {s.name: {} for s in fabric.switches}
    for switch in fabric.switches:
        if not switch.hosts:
            continue
        distance = nx.single_source_dijkstra_path_length(graph.reverse(copy=False), switch.name, weight="cost")
        for name, ports in live.items():
            if name != switch.name and name in distance:
                first = min(
                    (p for p in ports if distance.get(p.peer_switch, -1) + _cost(p) == distance[name]),
                    key=lambda p: (p.peer_switch, p.interface),
                )
                flows[name] |= {host.ip: first.interface for host in switch.hosts}
        flows[switch.name] |= {host.ip: host.interface for host in switch.hosts}
    return dict(flows)


def changes(old: Flows, new: Flows) -> tuple[dict[str, str], set[str]]:
    """What makes `new` out of `old`: flows to write, and destinations whose flows go."""
    return {ip: port for ip, port in new.items() if old.get(ip) != port}, set(old) - set(new)


def parse_fabric(document: Any, field: str) -> Fabric:
    """The fabric in a configuration. Malformed names the member and what was expected."""
    entries = sequence(mapping(document, field).get("switches"), f"{field}.switches", longest=_MAX_ENTRIES)
    switches = tuple(_switch(entry, f"{field}.switches[{i}]") for i, entry in enumerate(entries))
    ends = {(s.name, p.interface): (p.peer_switch, p.peer_interface) for s in switches for p in s.ports}
    for here, there in ends.items():
        if ends.get(there) != here:
            raise Malformed(field, f"the link of {' '.join(here)} to be known at {' '.join(there)} too")
    if len({s.dpid for s in switches}) != len(switches) or len({s.name for s in switches}) != len(switches):
        raise Malformed(field, "names and datapath IDs of switches to be distinct")
    return Fabric(switches)


def _switch(value: Any, field: str) -> Switch:
    given = mapping(value, field)
    ports, hosts = (sequence(given.get(m), f"{field}.{m}", longest=_MAX_ENTRIES) for m in ("ports", "hosts"))
    return Switch(
        text(given.get("name"), f"{field}.name"),
        integer(given.get("dpid"), f"{field}.dpid", low=1, high=(1 << 64) - 1),
        tuple(
            Port(
                text(mapping(p, f"{field}.ports").get("interface"), f"{field}.ports.interface"),
                text(p.get("peer_switch"), f"{field}.ports.peer_switch"),
                text(p.get("peer_interface"), f"{field}.ports.peer_interface"),
                number(p.get("delay_ms"), f"{field}.ports.delay_ms", low=0, high=1e6),
            )
            for p in ports
        ),
        tuple(
            Host(*(text(mapping(h, f"{field}.hosts").get(m), f"{field}.hosts.{m}") for m in ("interface", "ip")))
            for h in hosts
        ),
    )


def _is_up(switch: str, port: Port, down: Collection[PortName]) -> bool:
    """A link needs both its ports."""
    return (switch, port.interface) not in down and (port.peer_switch, port.peer_interface) not in down


def _cost(port: Port) -> int:
    return round(port.delay_ms * 1e6) * _HOPS_PER_NS + 1
