"""A shared database that fails over, on addresses of the loopback: real etcd, Patroni and PostgreSQL."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.material.shared_db import Members
from telemetry.journal import Journal
from testbed.database.patroni import Host
from testbed.database.postgres import nodes_url
from testbed.database.replicated_database import ReplicatedDatabase
from testbed.machine.processes import Processes
from testbed.network.loopback import LOOPBACK

SCHEMA = "qkd"
PORT = 5432
_NETS = itertools.count(100)


class Replicated:
    """It, in `directory`, at addresses that no other one on this machine has; made, and not started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes = Processes(directory)
        self.authority, self._inner = Authority(directory / "pki"), Authority(directory / "inner")
        net = f"127.{next(_NETS)}.{os.getpid() % 250}"
        self.addresses = {name: f"{net}.{i}" for i, name in enumerate(("db", "db2", "db3"), 1)}
        self.inner = {name: self._issue(self._inner, name) for name in self.addresses}
        self.hosts = {
            name: Host(directory / "db", name, address, self._issue(self.authority, name), self.inner[name])
            for name, address in self.addresses.items()
        }  # fmt: skip
        self.servers: Mapping[Identity, str] = {
            Identity(Role.DATABASE, name): self.addresses[name] for name in ("db", "db2")
        }
        self.journal = directory / "faults.jsonl"

    def start(self, members: Members, *, waits: bool) -> None:
        """Start it, with these members; `waits`: whether commits wait for the standby."""
        for name, host in self.hosts.items():
            host.prepare(self.addresses, port=PORT, connections=60, round_trip_s=0.0, waits=waits, first=name == "db")
        self.database = ReplicatedDatabase(
            list(self.hosts.values()), self.processes, enter=lambda _: [], on=lambda _, step: step(), waits=waits
        )
        self.database.start(SCHEMA, members)
        self.database.watch(Journal(self.journal, "faults"))

    def node_url(self, node: str) -> str:
        """The URL with which that node reaches it."""
        return nodes_url(node, self.issue(node), self.servers, PORT)

    def issue(self, node: str) -> Credentials:
        """That node's credentials."""
        return self.authority.issue(Identity(Role.NODE, node))

    def _issue(self, authority: Authority, host: str) -> Credentials:
        return authority.issue(Identity(Role.DATABASE, host), addresses=[self.addresses[host], LOOPBACK])

    def stop(self) -> None:
        """End it."""
        if hasattr(self, "database"):
            self.database.close()
        self.processes.stop()
