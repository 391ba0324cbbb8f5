"""Configuration files of nodes and controller, wherever they run: in a network on Mininet, on loopback, in a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtls.credentials import Credentials
from testbed.quantum.qc_keys import qc_key

NO_DEVICES: Mapping[str, Any] = {}
Ends = Sequence[tuple[str, str, str]]  # of all QCs: name, and the nodes at its ends


@dataclass(frozen=True, slots=True)
class SharedDatabaseAt:
    """Where a node finds the shared database."""

    url: str
    schema: str


def interfaces(qcs: Ends, node: str) -> dict[str, str]:
    """The QCs of a node in the order of its interfaces, which count from 1, with the node at the other end. PURE."""
    return {qc: b if node == a else a for qc, a, b in qcs if node in (a, b)}


def qc_key_file(qcs: Ends, node: str, qc: str, directory: Path) -> Path:
    """Where a node, in its directory, has the key that it shares with the other end of a QC. PURE."""
    return qc_key(directory, list(interfaces(qcs, node)).index(qc) + 1)


def node_document(
    name: str, *, host: str, ports: Sequence[int], directory: Path, credentials: Credentials,
    database: SharedDatabaseAt, agents: Mapping[str, str], saes: Mapping[str, str], qcs: Ends,
    dark: Collection[str] = (), devices: Mapping[str, Any] = NO_DEVICES, **options: object,
) -> dict[str, Any]:  # fmt: skip
    """A node's configuration. PURE.

    `ports`: of KME and agent, and of GS QKD 004 if it is served. `agents`: URLs by node; `saes`: nodes by SAE.
    `dark`: the names of QCs that are lit on demand. `devices`: by QC, of those whose key material the node has from a
    device.

    `options`: the optional members of `node.config`.
    """
    own = [
        {"qc": qc, "peer": peer, "remote_interface": list(interfaces(qcs, peer)).index(qc) + 1,
         "authentication_key": str(qc_key_file(qcs, name, qc, directory))}
        | ({"dark": True} if qc in dark else {}) | ({"device": devices[qc]} if qc in devices else {})
        for qc, peer in interfaces(qcs, name).items()
    ]  # fmt: skip
    return {
        "name": name, "host": host, "kme_port": ports[0], "agent_port": ports[1],
        "stream_port": ports[2] if len(ports) > 2 else None, "directory": str(directory),
        "credentials": credentials.to_config(), "shared_db_url": database.url, "shared_db_schema": database.schema,
        "nodes": dict(agents), "saes": dict(saes), "qcs": own, **options,
    }  # fmt: skip


def controller_document(
    name: str, *, host: str, port: int, directory: Path, credentials: Credentials, agents: Mapping[str, str],
    parameters: Mapping[str, Any], openflow: Mapping[str, Any] | None = None, **options: object,
) -> dict[str, Any]:  # fmt: skip
    """The controller's configuration. `agents`: URLs by node. `openflow`: None if others forward. PURE.

    `options`: the optional members of `controller.config`.
    """
    return {
        "name": name, "host": host, "port": port, "directory": str(directory),
        "credentials": credentials.to_config(), "openflow": openflow, "agents": dict(agents),
        "parameters": dict(parameters), **options,
    }  # fmt: skip
