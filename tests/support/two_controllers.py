"""Two real controllers with one store in a real PostgreSQL, and nodes that a test plays."""

from __future__ import annotations

import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo

from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from testbed.database import controllers
from testbed.database.postgres import node_url
from testbed.machine.processes import Process, execute
from testbed.network.loopback import LOOPBACK, Stack, free_port
from testbed.planning.documents import controller_document
from tests.support.followed import World
from tests.support.waiting import until

NAMES = "ctl", "ctl2"


class TwoControllers(World):
    """The controllers ctl and ctl2; calls of the operator go to the one that leads."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.stack = Stack(directory / "stack")
        self.authority = self.stack.authority
        self.operators = Caller(self.credentials(Role.OPERATOR, "op"))
        self.ports = {name: free_port() for name in NAMES}
        self.processes: dict[str, Process] = {}
        self.stack.start_postgres()
        controllers.admit(self.stack.cluster, self.stack.schema, NAMES, round_trip_s=0.0)

    def store_url(self, name: str) -> str:
        """With which that controller reaches the database."""
        given = self.credentials(Role.CONTROLLER, name)
        url = node_url(name, given, self.stack.database, LOOPBACK, self.stack.database_port)
        return psycopg.conninfo.make_conninfo(url, user=controllers.role(name))

    @property
    def schema(self) -> str:
        """The controllers' own."""
        return controllers.schema_beside(self.stack.schema)

    def begin(self, name: str, **options: Any) -> Process:
        """Start that controller; ready when it stands by."""
        document = controller_document(
            name, host=LOOPBACK, port=self.ports[name], directory=self.directory / name, parameters={},
            credentials=self.credentials(Role.CONTROLLER, name),
            agents={node: played.url for node, played in self.nodes.items()},
            shared_store={
                "url": self.store_url(name), "schema": self.schema,
                "controllers": {each: f"https://{LOOPBACK}:{port}" for each, port in self.ports.items()},
            },
        )  # fmt: skip
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(document | options))
        command = [sys.executable, "-P", "-m", "controller", str(path)]
        self.processes[name] = Process(name, partial(execute, command), self.directory / f"{name}.log")
        self.processes[name].wait_ready(20)
        return self.processes[name]

    def start_both(self, links: dict[str, dict[str, str]]) -> None:
        """Start the nodes, and both controllers; the first one leads then."""
        for name, qcs in links.items():
            self.play(name, qcs)
        for name in NAMES:
            self.begin(name)
        self.wait_for_leader("ctl")
        until(lambda: self.standing("ctl2").get("leader") == "ctl")

    def kept_of(self, sae: str, state: str = "") -> list[str]:
        """The KSIDs of the sessions of that SAE that the store has, in that state or in any one."""
        kept = self.sql("SELECT name, document FROM kept WHERE kind = 'session'")
        documents = {ksid: json.loads(document) for ksid, document in kept}
        return [ksid for ksid, found in documents.items()
                if sae in (found["master_sae"], found["slave_sae"]) and state in ("", found["state"])]  # fmt: skip

    def ask(self, name: str, path: str, role: Role = Role.OPERATOR) -> Reply:
        """What that controller answers to a party of that role."""
        caller = self.operators if role == Role.OPERATOR else Caller(self.credentials(role, "b"))
        url = f"https://{LOOPBACK}:{self.ports[name]}{path}"
        return caller.request("GET", url, to=Identity(Role.CONTROLLER, name), timeout_s=2)

    def standing(self, name: str) -> dict[str, Any]:
        """What that controller says that it is; empty if it does not answer."""
        with contextlib.suppress(Unreachable):
            return dict(self.ask(name, "/qkd/v1/leader").body)
        return {}

    def term_of(self, name: str) -> int:
        """The leader's term, as that controller says once it answers and there is one."""
        return int(until(lambda: self.standing(name).get("term")))

    @property
    def leader(self) -> str:
        """The one that leads, once there is one."""
        return until(lambda: next((n for n in NAMES if self.standing(n).get("standing") == "leader"), None))

    def wait_for_leader(self, name: str) -> None:
        """Return when that one leads, and follows all nodes."""
        until(lambda: self.standing(name).get("standing") == "leader", else_tell=self.logs)
        self.wait_for_nodes()

    def logs(self) -> str:
        """Of both."""
        return "\n".join((self.directory / f"{name}.log").read_text() for name in self.processes)

    def other(self, name: str) -> str:
        """The other one."""
        return NAMES[1 - NAMES.index(name)]

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """One call of the operator, to the controller that leads."""
        name = self.leader
        url = f"https://{LOOPBACK}:{self.ports[name]}/qkd/v1/{path}"
        return self.operators.request(method, url, to=Identity(Role.CONTROLLER, name), body=body, timeout_s=15)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """What the superuser gets for a statement about the controllers' tables."""
        with self.stack.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:
            admin.execute(psycopg.sql.SQL("SET search_path = {}").format(psycopg.sql.Identifier(self.schema)))
            done = admin.execute(statement)
            return done.fetchall() if done.description else []

    def events(self, name: str) -> list[dict[str, Any]]:
        """Of both controllers' journals, of that name, in the order of time."""
        found = []
        for each in NAMES:
            path = self.directory / each / "journal.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            found += [event for line in lines if (event := json.loads(line))["event"] == name]
        return sorted(found, key=lambda event: float(event["time"]))

    def stop(self) -> None:
        """End everything."""
        for process in self.processes.values():
            process.stop()
        super().stop()
        self.stack.stop()
