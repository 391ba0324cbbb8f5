"""What of a run can be reached from the machine it runs on, at which ports of 127.0.0.1, and what strangers must know.

The order of the servers, and so of fixed ports, is documented: the controller, then KME and agent of each node in the
topology's order, then the ports of GS QKD 004 in the same order, then a second controller. All is PURE but for
`check_ports`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtls.credentials import Credentials
from mtls.identity import Identity
from testbed.errors import UserError
from testbed.planning.plan import AGENT_PORT, CONTROLLER_PORT, KME_PORT, OPERATOR, STREAM_PORT, Plan, process_of

# The machine's own, where tests and people find it.
LOOPBACK = "127.0.0.1"
FILE, PROMETHEUS_FILE = "expose.json", "prometheus.yml"
ANY_PORT = 0


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the run: on which host, and at which port there."""

    host: str
    port: int


def servers(plan: Plan) -> list[Server]:
    """All that are exposed, in the order of their ports."""
    nodes = [Server(node, port) for node in plan.nodes for port in (KME_PORT, AGENT_PORT)]
    first, *others = (Server(controller.name, CONTROLLER_PORT) for controller in plan.controllers)
    return [first, *nodes, *(Server(node, STREAM_PORT) for node in plan.nodes), *others]


def ports(plan: Plan, first: int) -> list[int]:
    """The port asked for each server: consecutive ones from `first`, or ANY_PORT for all. UserError beyond 65535."""
    number = len(servers(plan))
    if first == ANY_PORT:
        return [ANY_PORT] * number
    if first + number - 1 > 65535:
        raise UserError(f"--expose {first}: expected at most {65536 - number}, because {number} ports are needed")
    return list(range(first, first + number))


def check_ports(plan: Plan, first: int) -> None:
    """UserError if a port asked for is in use now: better heard before anything is built than after."""
    for port in ports(plan, first):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                text = f"cannot listen on {LOOPBACK}:{port} ({error.strerror}): choose another"
                raise UserError(f"--expose {first}: {text}") from None


def routes(plan: Plan, first: int, *, outside: str, inside: Callable[[str], str]) -> list[dict[str, Any]]:
    """The forwarder's routes, from the network namespace `outside` to those that `inside` names for each host."""
    return [
        {"listen": [outside, LOOPBACK, port], "connect": [inside(s.host), plan.hosts[s.host].ip, s.port]}
        for s, port in zip(servers(plan), ports(plan, first), strict=True)
    ]


def document(
    plan: Plan, bound: Sequence[int], credentials: Mapping[Identity, Credentials], *, ca_key: Path
) -> dict[str, Any]:
    """What a client must know: URLs, and where certificates and keys lie. `bound` are the ports of `servers`."""
    urls = {server: f"https://{LOOPBACK}:{port}" for server, port in zip(servers(plan), bound, strict=True)}
    return {
        "ca": str(credentials[OPERATOR].ca),
        "ca_key": str(ca_key),
        "kmes": {node: urls[Server(node, KME_PORT)] for node in plan.nodes},
        "agents": {node: urls[Server(node, AGENT_PORT)] for node in plan.nodes},
        "streams": {n: urls[Server(n, STREAM_PORT)].replace("https://", "tls://") for n in plan.nodes},
        "controller": urls[Server("ctl", CONTROLLER_PORT)],
        "controllers": {each.name: urls[Server(each.name, CONTROLLER_PORT)] for each in plan.controllers},
        "operator": _files(credentials[OPERATOR]),
        "saes": {s.name: {"id": s.id, "node": s.node, **_files(credentials[s.identity])} for s in plan.saes},
    }


def prometheus(exposed: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of Prometheus that reads the figures of the controller and of all nodes, by what clients know."""
    tls = {"ca_file": exposed["ca"], "cert_file": exposed["operator"]["cert"], "key_file": exposed["operator"]["key"]}
    places = {process_of(name): url for name, url in exposed["controllers"].items()} | exposed["agents"]
    return {
        "global": {"scrape_interval": "5s"},
        "scrape_configs": [
            {
                "job_name": "qkd", "scheme": "https", "tls_config": tls,
                "static_configs": [
                    {"targets": [url.removeprefix("https://")], "labels": {"part": part}}
                    for part, url in places.items()
                ],
            }
        ],
    }  # fmt: skip


def _files(credentials: Credentials) -> dict[str, str]:
    return {"cert": str(credentials.certificate), "key": str(credentials.key)}
