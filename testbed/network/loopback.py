"""A small QKD network of real processes on loopback, without Mininet: for tests and for benchmarks of a single KME."""

from __future__ import annotations

import json
import secrets
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtls.authority import Authority
from mtls.call import Caller
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.material.shared_db import Members
from testbed.database.postgres import Cluster, ClusterError, node_url
from testbed.machine.processes import Process, Processes, ProcessFailed
from testbed.planning.documents import (
    NO_DEVICES,
    Ends,
    SharedDatabaseAt,
    controller_document,
    node_document,
    qc_key_file,
)
from testbed.planning.plan import COMPONENTS
from testbed.quantum.qc_keys import share_qc_key

LOOPBACK = "127.0.0.1"
_FOUND_S = 60.0  # until a controller has found all nodes, on a machine that has much else to do


def free_port() -> int:
    """A TCP port on which this process, or what it starts, may listen; nobody else gets it while this process lives.

    A socket, which is never closed, holds the port and does not listen. Servers, which all ask for SO_REUSEADDR, may
    listen beside it. The kernel gives the port to no connection: those have ports from 32768 on.
    """
    while True:
        port, holder = secrets.choice(range(10_000, 20_000)), socket.socket()
        try:
            holder.bind((LOOPBACK, port))
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.detach()
        return port


class Stack:
    """Builds and runs the network's processes in `directory`; `stop` ends them all."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.processes = Processes(directory, COMPONENTS)
        self.authority = Authority(directory / "pki")
        self.database = Identity(Role.DATABASE, "db")
        self.cluster = Cluster(directory / "db", self.issue(Role.DATABASE, "db"))
        self.database_port = free_port()
        self.schema = f"qkd_{uuid.uuid4().hex[:8]}"
        self.postgres: Process | None = None
        self.ports: dict[str, tuple[int, ...]] = {}
        self.nodes: dict[str, Process] = {}
        self.controller_port = free_port()
        self.controller: Process | None = None

    def issue(self, role: Role, name: str) -> Credentials:
        """That party's credentials, valid on loopback."""
        return self.authority.issue(Identity(role, name), addresses=[LOOPBACK])

    def caller(self, role: Role, name: str) -> Caller:
        """A client that calls as that party."""
        return Caller(self.issue(role, name))

    def start_postgres(self) -> None:
        """Start the shared database; made at the first call."""
        first = not self.cluster.directory.exists()
        if first:
            self.cluster.initialise(listen=LOOPBACK, port=self.database_port)
        deadline = time.monotonic() + 20
        while True:
            process = self.processes.start("postgres", self.cluster.command(), says_ready=False, stop_signal=2)
            try:
                self.cluster.wait_ready(process.alive, process.log)
                break
            except ClusterError:
                # After kill -9 its children live on for a moment, and a new server refuses to start beside them.
                if first or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        if first:
            self.cluster.create(self.schema)
        self.postgres = process

    def write(self, name: str, document: dict[str, Any]) -> Path:
        """A configuration file."""
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(document))
        return path

    def start_controller(self, agents: Mapping[str, str] | None = None, **parameters: object) -> Process:
        """Start the SDN controller at `controller_port`; it leaves forwarding to others, and follows all nodes."""
        document = controller_document(
            "ctl", host=LOOPBACK, port=self.controller_port, directory=self.directory / "ctl",
            credentials=self.issue(Role.CONTROLLER, "ctl"), parameters=parameters,
            agents=agents or {node: self.agent(node) for node in self.ports},
        )  # fmt: skip
        self.controller = self.processes.component("controller", "controller.__main__", self.write("ctl", document))
        self.controller.wait_ready()
        return self.controller

    def _follow_nodes(self, process: Process) -> None:
        """Tell a controller that was started before the nodes of their agents; return when it has found them."""
        operator, controller = self.caller(Role.OPERATOR, "operator"), Identity(Role.CONTROLLER, "ctl")
        url = f"https://{LOOPBACK}:{self.controller_port}/qkd/v1"
        for node in self.ports:
            operator.request("PUT", f"{url}/agents/{node}", to=controller, body={"url": self.agent(node)})
        deadline = time.monotonic() + _FOUND_S
        while not self.ports.keys() <= set(operator.request("GET", f"{url}/status", to=controller).body["nodes"]):
            if time.monotonic() > deadline:
                raise ProcessFailed(f"the controller does not find its nodes: {process.end_of_log()}")
            time.sleep(0.02)
        operator.close()

    def start_nodes(
        self, links: Ends, saes: dict[str, str], *, devices: Mapping[str, Mapping[str, Any]] = NO_DEVICES,
        **options: Any,
    ) -> None:  # fmt: skip
        """Start the nodes at the ends of `links` (QC, node, node); `saes` says where each SAE lives.

        `devices`: by node and QC.
        """
        for name in sorted({n for _, a, b in links for n in (a, b)}):
            self.ports.setdefault(name, (free_port(), free_port(), free_port()))
        self.cluster.admit(self.schema, Members(list(self.ports), saes, {qc: (a, b) for qc, a, b in links}))
        for qc, *ends in links:
            share_qc_key([qc_key_file(links, node, qc, self.directory / node) for node in ends])
        agents = {n: f"https://{LOOPBACK}:{agent}" for n, (_, agent, *_) in self.ports.items()}
        for name, ports in self.ports.items():
            credentials = self.issue(Role.NODE, name)
            url = node_url(name, credentials, self.database, LOOPBACK, self.database_port)
            document = node_document(
                name, host=LOOPBACK, ports=ports, directory=self.directory / name, credentials=credentials,
                database=SharedDatabaseAt(url, self.schema), agents=agents, saes=saes, qcs=links,
                devices=devices.get(name, NO_DEVICES), **options,
            )  # fmt: skip
            self.write(name, document)
            self.start_node(name)
        for process in self.nodes.values():
            process.wait_ready()
        if self.controller is not None:
            self._follow_nodes(self.controller)

    def start_node(self, name: str) -> Process:
        """Start (again) the node of that name."""
        self.nodes[name] = self.processes.component(f"node-{name}", "node.__main__", self.directory / f"{name}.json")
        return self.nodes[name]

    def start_qcs(
        self, links: Ends, *, low: int = 33, high: int = 47, **options: Any
    ) -> Process:
        """Start the QC emulators of `links`."""
        qcs = [
            {"qc": qc, "low": low, "high": high, "ends": [str(self.directory / a), str(self.directory / b)]}
            for qc, a, b in links
        ]
        config = self.write("qcs", {"directory": str(self.directory / "qcs"), "qcs": qcs} | options)
        process = self.processes.component("qcs", "testbed.quantum.qc_emulator", config)
        process.wait_ready()
        return process

    def kme(self, node: str) -> str:
        """URL of that node's KME."""
        return f"https://{LOOPBACK}:{self.ports[node][0]}"

    def agent(self, node: str) -> str:
        """URL of that node's agent."""
        return f"https://{LOOPBACK}:{self.ports[node][1]}"

    def stream_port(self, node: str) -> int:
        """Where that node serves GS QKD 004."""
        return self.ports[node][2]

    def stop(self) -> None:
        """End all processes."""
        self.processes.stop()
