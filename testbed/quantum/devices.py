"""QCs of a network whose key material comes from QKD devices of the user's: what nodes must know, and the way there.

The devices are in the machine's own network, or beyond it, and no emulated host can see them. So a node connects to a
port of its own host, and the forwarder carries the connection out. The node checks that it is the device who answers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from mtls.credentials import Credentials
from scenario.topology_description import Gs014, Gs014End, Topology
from testbed.errors import UserError
from testbed.machine.namespaces import call_in_network

_LOOPBACK = "127.0.0.1"
_FIRST_PORT, _HTTPS_PORT = 18_014, 443


def device_document(
    source: Gs014, own: Gs014End, peer: Gs014End, via: tuple[str, int] | None = None
) -> dict[str, Any]:  # fmt: skip
    """What the node at one end must know of its device: see `node.config`. PURE."""
    document: dict[str, Any] = {
        "url": own.url, "credentials": Credentials(own.certificate, own.key, own.ca).to_config(),
        "peer_sae": peer.sae_id, "number": source.number, "size_bits": source.size_bits, "every_s": source.every_s,
    }  # fmt: skip
    return document if via is None else document | {"via": list(via)}


def device_documents(topology: Topology, node: str) -> dict[str, dict[str, Any]]:
    """The same of all QCs of a node that have devices, which it reaches by ports of its own host. PURE."""
    return {
        qc: device_document(source, source.ends[node], source.ends[peer], (_LOOPBACK, port))
        for qc, source, at, peer, port in _ends(topology)
        if at == node
    }


def device_routes(topology: Topology, *, inside: Callable[[str], str], outside: str, network: int) -> list[
    dict[str, Any]
]:  # fmt: skip
    """The forwarder's routes from all nodes to their devices, which are in network namespace `outside`; UserError.

    `inside` names the namespace of each node; `network` is the descriptor of the one outside.
    """
    found: Mapping[str, str] = {}
    routes = []
    for qc, source, node, _, port in _ends(topology):
        parts = urlsplit(source.ends[node].url)
        host, there = str(parts.hostname), parts.port or _HTTPS_PORT
        if host not in found:
            try:
                found = {**found, host: call_in_network(network, lambda host=host: _address(host))}  # type: ignore[misc]
            except OSError as error:
                why = error.strerror or "there is no such name"
                raise UserError(f"QC {qc}, source.gs014.ends.{node}.url: cannot resolve {host!r} ({why})") from None
        routes.append({"listen": [inside(node), _LOOPBACK, port], "connect": [outside, found[host], there]})
    return routes


def _address(host: str) -> str:
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def _ends(topology: Topology) -> Iterator[tuple[str, Gs014, str, str, int]]:
    """Of each end of a QC with devices: the QC, its source, the node there, the other one, and the port there."""
    port = _FIRST_PORT
    for link in topology.links:
        for qc in link.qcs:
            if qc.source is not None:
                for node, peer in ((link.a, link.b), (link.b, link.a)):
                    yield qc.name, qc.source, node, peer, port
                    port += 1
