"""The real controller, in a process of its own, with nodes that a test plays and an operator."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from etsi.gs004 import QoS
from mtls.authority import Authority
from mtls.call import Caller, Reply
from mtls.identity import Identity, Role
from testbed.machine.processes import Process, execute
from testbed.network.loopback import free_port
from testbed.planning.documents import controller_document
from tests.support.played import Answer, PlayedNode
from tests.support.waiting import until

CONTROLLER = Identity(Role.CONTROLLER, "ctl")
QOS = QoS()
# A triangle with a tail: a-b, b-c, a-c, c-d.
LINKS = {
    "a": {"ab": "b", "ac": "c"},
    "b": {"ab": "a", "bc": "c"},
    "c": {"bc": "b", "ac": "a", "cd": "d"},
    "d": {"cd": "c"},
}


class World:
    """The controller's process, the nodes that it follows, and an operator."""

    def __init__(self, directory: Path, python: str = sys.executable) -> None:
        self.directory = directory
        self.python = python
        self.authority = Authority(directory / "pki")
        self.port = free_port()
        self.saes: dict[str, str] = {}
        self.nodes: dict[str, PlayedNode] = {}
        self.process: Process | None = None
        self.operators = Caller(self.credentials(Role.OPERATOR, "op"))

    def credentials(self, role: Role, name: str):
        """That party's."""
        return self.authority.issue(Identity(role, name), addresses=["127.0.0.1"])

    def write(self, **options: Any) -> Path:
        """The controller's configuration."""
        document = controller_document(
            "ctl", host="127.0.0.1", port=self.port, directory=self.directory / "ctl",
            credentials=self.credentials(Role.CONTROLLER, "ctl"), parameters={},
            agents={name: node.url for name, node in self.nodes.items()},
        )  # fmt: skip
        path = self.directory / "controller.json"
        path.write_text(json.dumps(document | options))
        return path

    def start(self, **options: Any) -> Process:
        """Start the controller."""
        command = [self.python, "-P", "-m", "controller", str(self.write(**options))]
        self.process = Process("controller", partial(execute, command), self.directory / "controller.log")
        return self.process

    def play(self, name: str, qcs: dict[str, str], *, port: int = 0) -> PlayedNode:
        """A node."""
        credentials = self.credentials(Role.NODE, name)
        self.nodes[name] = PlayedNode(self.directory / name, credentials, name, qcs, self.saes, port=port)
        return self.nodes[name]

    def start_with_nodes(self, **options: Any) -> None:
        """Start the nodes and a controller that follows them."""
        for name, qcs in LINKS.items():
            self.play(name, qcs)
        self.start(**options).wait_ready(20)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Return when the controller follows all nodes."""
        assert until(lambda: set(self.nodes) <= set(self.operator("status")["nodes"]))

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """One call of the operator."""
        url = f"https://127.0.0.1:{self.port}/qkd/v1/{path}"
        return self.operators.request(method, url, to=CONTROLLER, body=body, timeout_s=15)

    def operator(self, what: str) -> Any:
        """What the operator sees there."""
        reply = self.call("GET", what)
        assert reply.ok, reply
        return reply.body

    def pair(self, master: str, slave: str) -> tuple[str, str]:
        """Two new SAEs at those nodes."""
        found = str(uuid.uuid4()), str(uuid.uuid4())
        self.saes |= {found[0]: master, found[1]: slave}
        return found

    def request(self, master: str, slave: str, **qos: Any) -> tuple[tuple[str, str], Answer]:
        """Both sides of a new session register, the slave first: the pair, and the answer to the master."""
        pair = self.pair(master, slave)
        assert self.nodes[slave].ask(pair, "slave").status == 202
        return pair, self.nodes[master].ask(pair, "master", **qos)

    def open(self, master: str, slave: str) -> dict[str, Any]:
        """A session between applications at two nodes, opened, as the operator sees it."""
        _, answer = self.request(master, slave)
        assert answer.status == 200, answer
        return self.session(answer.ksid)

    def session(self, ksid: str | None) -> dict[str, Any]:
        """That session as the operator sees it, once it is open."""
        assert until(lambda: ksid in self.open_sessions())
        return self.open_sessions()[ksid]

    def link(self, qc: str) -> dict[str, Any]:
        """That QC as the topology has it."""
        return next(e for e in self.operator("topology")["links"] if e["qc"] == qc)

    def open_sessions(self) -> dict[Any, dict[str, Any]]:
        """All open ones by KSID."""
        return {s["ksid"]: s for s in self.operator("key_sessions")["key_sessions"] if s["state"] == "open"}

    def implicit(self, master: str, slave: str, pair: tuple[str, str] | None = None) -> Answer:
        """The nodes of a pair ask for a session because the master asked for keys."""
        pair = pair or self.pair(master, slave)
        self.nodes[slave].registrations.announce(*pair, QOS)
        return self.nodes[master].ask(pair, "master", implicit=True)

    def waiting(self) -> set[tuple[str, str]]:
        """The pairs of which one side waits for the other."""
        found = self.operator("key_sessions")["key_sessions"]
        return {(s["master_sae"], s["slave_sae"]) for s in found if s["state"] == "waiting"}

    def catch_up(self, name: str) -> None:
        """Return when the controller has taken in all that a node has told so far: it takes one thing after another."""
        slot = self.operator("status")["nodes"][name]["slot"] + 1
        self.nodes[name].report(slot)
        assert until(lambda: self.operator("status")["nodes"][name]["slot"] == slot)

    def set(self, **parameters: Any) -> Reply:
        """The operator changes parameters."""
        return self.call("PATCH", "parameters", parameters)

    def restart(self, **options: Any) -> None:
        """kill -9 of the controller, and its restart."""
        assert self.process is not None
        self.process.kill()
        self.start(**options).wait_ready(20)

    def stop(self) -> None:
        """End everything."""
        self.operators.close()
        if self.process is not None:
            self.process.stop()
        for node in self.nodes.values():
            node.stop()


def declare(world: World, name: str, ksid: str | None, **members: Any) -> None:
    """A node tells of another QoS of an application."""
    content = {"qkd_application": {"app_id": ksid, **members}}
    world.nodes[name].streams.notify("sdqkdn_application_qos_update", content)


def figures(world: World, ksid: str) -> list[int]:
    """What each node of a-c-d has as the bandwidth of the session's link, and of its INTERNAL application."""
    (virtual,) = world.nodes["a"].app(ksid)["backing_qkdl_id"]
    found: list[int] = []
    for node in (world.nodes[n] for n in "acd"):
        found += node.link(virtual)["virt_bandwidth"], node.app(virtual)["app_qos"]["max_bandwidth"]
    return found


def stumble(node: PlayedNode, stumbled: threading.Event) -> None:
    """From now on the node does nothing that it is told."""
    node.broken = True
    stumbled.set()
