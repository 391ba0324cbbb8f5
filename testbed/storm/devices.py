"""QKD devices for a network under faults: pairs of real KMEs that speak GS QKD 014, in a small network of our own.

That network knows nothing of the one that it gives keys to. It has a controller, a shared database, QCs and a
certificate authority of its own, and lives on the machine's loopback, where devices of users are. Between each KME and
the node that calls it lies a way that can be slow or cut.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mtls.identity import Role
from scenario.topology_description import Gs014, Gs014End, Link, Topology
from testbed.database.postgres import ClusterError
from testbed.errors import UserError
from testbed.machine.namespaces import call_in_network
from testbed.machine.processes import ProcessFailed
from testbed.network.loopback import LOOPBACK, Stack, free_port
from testbed.network.proxy import Proxy

# As much as the other QCs of a storm make: plenty.
_NUMBER, _SIZE_BITS, _EVERY_S = 8, 1024, 1.0
_MAKES = 2 * _NUMBER * _SIZE_BITS // 8  # bytes a slot, of the device's own QC
# So much later comes all that passes: an answer takes a second then, and one over a new connection three.
_SLOW_S = 0.5


def with_devices(topology: Topology, ends: Mapping[str, Mapping[str, Gs014End]]) -> Topology:
    """The same network, in which the QCs of these fibres have devices with those ends, by node. PURE."""

    def changed(link: Link) -> Link:
        source = Gs014(ends[link.name], _NUMBER, _SIZE_BITS, _EVERY_S) if link.name in ends else None
        return link if source is None else replace(link, qcs=tuple(replace(qc, source=source) for qc in link.qcs))

    return replace(topology, links=tuple(map(changed, topology.links)))


def marked(topology: Topology, number: int) -> Topology:
    """The same network, in which so many fibres have devices that are nowhere yet. PURE. UserError: as many it has not.
    """
    if number > len(topology.links):
        raise UserError(f"--devices {number}: expected at most {len(topology.links)}, one for each fibre")
    return with_devices(topology, {link.name: {} for link in topology.links[:number]})


class Devices:
    """Those of a network, kept in `directory`. `topology`: marked; then as it is with them.

    A KME is called by the node that it is next to, and by the node at the other end of the fibre. Thread-safe for
    faults that hit different KMEs; all of it raises UserError, in one line.
    """

    def __init__(self, directory: Path, topology: Topology) -> None:
        self._stack = Stack(directory)
        fibres = [link for link in topology.links if any(qc.source is not None for qc in link.qcs)]
        # Those at the two ends of a fibre, as (node, other node), each with its name and the port of the way to it.
        self._links = [(f"{link.name}/device", _name(link.a, link.b), _name(link.b, link.a)) for link in fibres]
        self._ports = {ends: free_port() for link in fibres for ends in ((link.a, link.b), (link.b, link.a))}
        self._saes = {str(uuid.uuid4()): ends for ends in self._ports}
        self._ways: dict[tuple[str, str], Proxy] = {}
        at = {ends: self._end(sae) for sae, ends in self._saes.items()}
        self.topology = with_devices(
            topology, {link.name: {link.a: at[link.a, link.b], link.b: at[link.b, link.a]} for link in fibres}
        )

    def start(self, network: int) -> None:
        """Have all of it run, in the network namespace of that descriptor."""
        try:
            call_in_network(network, self._start)
            for ends, port in self._ports.items():
                kme = self._stack.ports[_name(*ends)][0]
                self._ways[ends] = Proxy(kme, port=port, network=network)
        except (ProcessFailed, ClusterError, OSError) as error:
            raise UserError(f"the QKD devices do not start: {error}") from None

    def stop(self) -> None:
        """End all of it."""
        for way in self._ways.values():
            way.stop()
        self._stack.stop()

    def kill(self, node: str, other: str) -> None:
        """kill -9 of the KME of that end."""
        self._stack.nodes[_name(node, other)].kill()

    def restart(self, node: str, other: str) -> None:
        """Start it again; returns when it serves."""
        try:
            self._stack.start_node(_name(node, other)).wait_ready()
        except ProcessFailed as error:
            raise UserError(f"the KME of the QKD device at {node}: {error}") from None

    def slow(self, node: str, other: str) -> None:
        """Have what passes between the node and the KME be late."""
        self._ways[node, other].delay_s = _SLOW_S

    def quick(self, node: str, other: str) -> None:
        """Have it be as quick as usual."""
        self._ways[node, other].delay_s = 0.0

    def cut(self, node: str, other: str) -> None:
        """Have nothing pass between the node and the KME."""
        self._ways[node, other].holds = True

    def join(self, node: str, other: str) -> None:
        """Have it pass again."""
        self._ways[node, other].holds = False

    def _start(self) -> None:
        self._stack.start_postgres()
        self._stack.start_controller()
        self._stack.start_nodes(self._links, {sae: _name(*ends) for sae, ends in self._saes.items()})
        self._stack.start_qcs(self._links, low=_MAKES, high=_MAKES)

    def _end(self, sae: str) -> Gs014End:
        files = self._stack.issue(Role.SAE, sae)
        url = f"https://{LOOPBACK}:{self._ports[self._saes[sae]]}"
        return Gs014End(url, sae, files.certificate, files.key, files.ca)


def _name(node: str, other: str) -> str:
    return f"{node}-to-{other}"
