"""The tunnels of a running network. A gateway is started with the first tunnel that ends at its datacenter.

What cannot be is said before anything changes: a program that is missing, TUN, a datacenter that is not there, an
interval for which QCs make too little.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import networkx as nx

from decisions.modes import MODES
from decisions.tunnels import IPSEC, KEY_BITS, TLS, WIREGUARD, Terms
from mtls.call import Reply, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity
from sae.vpn import kernel
from testbed.errors import UserError
from testbed.machine.processes import Process, Processes, ProcessFailed, run_tool
from testbed.machine.run_directory import RunDirectory
from testbed.machine.tools import check_tools
from testbed.planning.plan import Plan, SaePlan

FOLDER = "gateways"
_TUN = "/dev/net/tun"
# Of each kind: program, Debian package.
_NEEDED: Mapping[str, tuple[tuple[str, str], ...]] = {
    WIREGUARD: (("wg", "wireguard-tools"),),
    IPSEC: (("charon-systemd", "charon-systemd"),),
    TLS: (("stunnel", "stunnel4"),),
}
# Where the kernel cannot carry packets by itself: what it lacks, and what does that work instead, over TUN.
_KERNEL: Mapping[str, tuple[Callable[[], bool], str, tuple[tuple[str, str], ...]]] = {
    WIREGUARD: (kernel.has_wireguard, "WireGuard", (("wireguard-go", "wireguard-go"),)),
    IPSEC: (kernel.has_esp, "ESP", ()),
}
# Sockets of wireguard-go: in each host a folder of its own, so that none is left behind.
_SOCKETS = "/run/wireguard"


def check_machine(kind: str) -> None:
    """UserError if the machine lacks what tunnels of that kind take."""
    check_tools(_NEEDED[kind])
    if kind not in _KERNEL:
        return
    kernel_has_it, lacking, instead = _KERNEL[kind]
    if kernel_has_it():
        return
    check_tools(instead)
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise UserError(f"a tunnel needs {_TUN}, as this kernel has no {lacking}: {error.strerror}") from None


class Tunnels:
    """All of them. `pid` gives a process in a host's namespaces, `call` calls an SAE as the operator. Thread-safe."""

    def __init__(
        self, plan: Plan, run: RunDirectory, processes: Processes, *, pid: Callable[[str], int],
        call: Callable[[SaePlan, str, str, Any], Future[Reply]], identities: Mapping[Identity, Credentials],
        audit_secret: str,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._run = run
        self._processes = processes
        self._pid = pid
        self._call = call
        self._identities = identities
        self._audit_secret = audit_secret
        self._lock = threading.Lock()
        self._gateways: dict[str, Process] = {}  # by node
        self._open: dict[frozenset[str], str] = {}  # pairs of nodes -> who leads

    def open(
        self, a: str, b: str, terms: Terms, *, parameters: Mapping[str, Any], rates: Mapping[str, float]
    ) -> dict[str, Any]:
        """A tunnel between the hosts of two datacenters, up, as it is at `a`, which leads. UserError.

        `parameters`: of the network now. `rates`: what its QCs make, bytes a second.
        """
        check_machine(terms.kind)
        self._check_pair(a, b)
        self._check_rate(a, b, terms.every_s, parameters, rates)
        with self._lock:
            if frozenset((a, b)) in self._open:
                raise UserError(f"there is a tunnel between {a} and {b} already: 'qkd vpn {a} {b} off' ends it")
            for node in (a, b):
                self._start(node)
            wanted = {"peer": self._plan.gateways[b].id, **terms.to_json()}
            found = self._ask(a, "POST", "/vpn/v1/tunnels", wanted)
            self._open[frozenset((a, b))] = a
        return self._with_names(a, b, found)

    def close(self, a: str, b: str) -> None:
        """End the tunnel between two datacenters. UserError."""
        self._check_pair(a, b)
        with self._lock:
            leads = self._open.get(frozenset((a, b)))
            if leads is None:
                raise UserError(f"there is no tunnel between {a} and {b}: 'qkd vpn' lists those there are")
            follows = b if leads == a else a
            for node, peer in ((leads, follows), (follows, leads)):
                if self._gateways[node].alive():  # else this end went with it
                    self._ask(node, "DELETE", f"/vpn/v1/tunnels/{self._plan.gateways[peer].id}", None, gone=404)
            del self._open[frozenset((a, b))]

    def all(self) -> list[dict[str, Any]]:
        """Both ends of each tunnel, the leading one first: what their gateways say, or what is the matter with them."""
        with self._lock:
            pairs = list(self._open.items())
        told = {node: self._told_by(node) for node in {node for pair, _ in pairs for node in pair}}
        found = []
        for pair, leads in pairs:
            (follows,) = pair - {leads}
            for node, peer in ((leads, follows), (follows, leads)):
                ends, problem = told[node]
                end = ends.get(self._plan.gateways[peer].id, {"state": "gone", "problem": problem})
                found.append(self._with_names(node, peer, end))
        return found

    def _told_by(self, node: str) -> tuple[dict[str, Any], str | None]:
        """What the gateway of a datacenter says of its tunnels, by the other gateway's ID; why it says nothing."""
        try:
            return {end["peer"]: end for end in self._ask(node, "GET", "/vpn/v1/tunnels", None)["tunnels"]}, None
        except UserError as error:
            return {}, str(error)

    def _with_names(self, node: str, peer: str, end: Mapping[str, Any]) -> dict[str, Any]:
        """What a gateway says of its end, in names and with addresses."""
        hosts = self._plan.hosts
        return {**end, "node": node, "peer": peer, "from": hosts[node].protected, "to": hosts[peer].protected}

    def _check_pair(self, a: str, b: str) -> None:
        for node in (a, b):
            if node not in self._plan.gateways:
                raise UserError(f"no datacenter {node!r}: there are {', '.join(self._plan.nodes)}")
        if a == b:
            raise UserError("a tunnel joins two datacenters")

    def _check_rate(
        self, a: str, b: str, every_s: float, parameters: Mapping[str, Any], rates: Mapping[str, float]
    ) -> None:
        """UserError if on the shortest path some fibre's QCs make too little for a key in that time."""
        graph: nx.Graph[str] = nx.Graph()
        for link in self._plan.topology.links:
            rate = max((rates.get(qc.name, 0.0) for qc in link.qcs), default=0.0)
            if rate > graph.get_edge_data(link.a, link.b, {"rate": 0.0})["rate"]:
                graph.add_edge(link.a, link.b, rate=rate)
        mode = MODES.get(parameters["mode"])
        if a not in graph or b not in graph or not nx.has_path(graph, a, b):
            raise UserError(f"no path of QCs that make key material leads from {a} to {b}")
        if mode is None:  # one of the user's own, whose cost nobody knows
            return
        path = nx.shortest_path(graph, a, b)
        costs = mode.per_key(len(path) - 1, KEY_BITS // 8, max(1, int(parameters["keys_ahead"])))
        for one, other, cost in zip(path, path[1:], costs, strict=False):
            rate = graph.edges[one, other]["rate"]
            if cost / every_s > rate:
                raise UserError(
                    f"a key every {every_s:g} s takes {cost / every_s:.3g} bytes a second between {one} and"
                    f" {other}, whose QCs make {rate:.3g}: take an interval of {cost / rate:.2g} s or more"
                )

    def _start(self, node: str) -> None:
        """Have the gateway of a datacenter run. One that has died is started anew."""
        if node in self._gateways and self._gateways[node].alive():
            return
        name = f"vpn-{node}"
        config = self._plan.gateway_config(
            node, self._run.make(f"{FOLDER}/{node}"), self._identities[self._plan.gateways[node].identity],
            audit_secret=self._audit_secret,
        )  # fmt: skip
        path = self._run.write(f"config/{name}.json", config)
        pid = self._pid(node)
        try:
            if node in self._gateways:
                process = self._processes.restart(name)
            else:
                enter = ("mnexec", "-a", str(pid))
                run_tool(*enter, "mkdir", "-p", _SOCKETS)
                run_tool(*enter, "mount", "-t", "tmpfs", "-o", "mode=0700", "none", _SOCKETS)
                process = self._processes.component(name, "sae.vpn.__main__", path, inside=pid)
            process.wait_ready()
        except ProcessFailed as error:
            raise UserError(f"the gateway of {node} does not start: {error}") from None
        self._gateways[node] = process

    def _ask(self, node: str, method: str, path: str, body: Any, *, gone: int | None = None) -> Any:
        """What the gateway of a datacenter answers; None if that is the status `gone`. UserError."""
        try:
            reply = self._call(self._plan.gateways[node], method, path, body).result()
        except Unreachable as error:
            raise UserError(f"the gateway of {node} does not answer: {error.reason}") from None
        if not reply.ok and reply.status != gone:
            raise UserError(f"the gateway of {node}: {reply.message}")
        return reply.body if reply.ok else None
