"""Four nodes in a row, controller, applications: all real, on loopback. Keys and sessions to tell stories of."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mtls.call import Reply
from mtls.identity import Identity, Role
from telemetry import journal
from testbed.network.loopback import LOOPBACK, Stack, free_port
from tests.support.waiting import until

NODES = ("a", "b", "c", "d")
LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c"), ("c-d/1", "c", "d")]
# At each node an application of ours, and one that the test plays: it speaks GS QKD 014 and sends no traceparent.
OURS, FOREIGN = ({n: str(uuid.UUID(int=10 * i + j)) for i, n in enumerate(NODES, 1)} for j in (1, 2))
_CONTROLLER = Identity(Role.CONTROLLER, "ctl")


@dataclass
class World:
    """The network, and what the tests know of it that no journal may tell."""

    stack: Stack
    ports: dict[str, int] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)

    def start(self) -> None:
        """Everything up, nodes with something to make keys of."""
        stack = self.stack
        stack.start_postgres()
        stack.start_nodes(LINKS, {sae: n for saes in (OURS, FOREIGN) for n, sae in saes.items()})
        stack.start_controller()
        stack.start_qcs(LINKS, low=2000, high=2000)
        self.ports = {n: free_port() for n in NODES}
        for process in [self._applications(n) for n in NODES]:
            process.wait_ready()
        until(lambda: len(self.tell("GET", "qcs").body["qcs"]) == len(LINKS))

    def _applications(self, node: str) -> Any:
        document = {
            "name": node, "host": LOOPBACK, "directory": str(self.stack.directory / f"sae-{node}"),
            "audit_secret": "5a" * 32, "kme_url": self.stack.kme(node), "kme_name": node,
            "saes": [{
                "id": OURS[node], "name": f"app-{node}", "port": self.ports[node],
                "credentials": self.stack.issue(Role.SAE, OURS[node]).to_config(),
            }],
            "peers": {
                OURS[n]: {"name": f"app-{n}", "url": f"https://{LOOPBACK}:{port}"} for n, port in self.ports.items()
            },
            "on_key_failure": "go_on",
        }  # fmt: skip
        return self.stack.processes.component(f"sae-{node}", "sae.__main__", self.stack.write(f"sae-{node}", document))

    def tell(self, method: str, what: str, body: Any = None) -> Reply:
        """Talk to the controller as the operator."""
        url = f"https://{LOOPBACK}:{self.stack.controller_port}/qkd/v1/{what}"
        return self._call(Identity(Role.OPERATOR, "operator"), method, url, _CONTROLLER, body)

    def set_mode(self, mode: str) -> None:
        """Have all nodes make keys in that mode; they do when this returns."""
        before = {n: self._parameter_events(n) for n in NODES}
        if self.tell("GET", "parameters").body["mode"] != mode:
            assert self.tell("PATCH", "parameters", {"mode": mode}).ok
            until(lambda: all(self._parameter_events(n) > before[n] for n in NODES))

    def _parameter_events(self, node: str) -> int:
        return sum(e["event"] == "parameters" for e in self.journal(node))

    def open(self, master: str, slave: str, *, keys: int | None = None, interval_s: float = 0.05) -> Reply:
        """Have the application at one node open a key session with that at another one."""
        url = f"https://{LOOPBACK}:{self.ports[master]}/sae/v1/sessions"
        body = {"peer": OURS[slave], "keys": keys, "qos": {"key_size_bits": 128, "interval_s": interval_s}}
        return self._call(Identity(Role.OPERATOR, "operator"), "POST", url, Identity(Role.SAE, OURS[master]), body)

    def exchange(self, master: str, slave: str, *, keys: int = 1) -> tuple[str, list[str]]:
        """A session of so many keys, from beginning to end; its KSID and the keys' IDs."""
        reply = self.open(master, slave, keys=keys)
        assert reply.status == 201, reply
        ksid = reply.body["ksid"]
        until(lambda: any(e["event"] == "session_closed" and e["ksid"] == ksid for e in self.journal(f"sae-{master}")))
        found = [e["key_id"] for e in self.journal(f"sae-{master}") if e["event"] == "key" and e["ksid"] == ksid]
        return ksid, found

    def enc_keys(self, master: str, slave: str, number: int = 1) -> Reply:
        """Keys for the application at `master` that knows nothing of traces; 503 while there is too little."""
        url = f"{self.stack.kme(master)}/api/v1/keys/{FOREIGN[slave]}/enc_keys"
        who, to = Identity(Role.SAE, FOREIGN[master]), Identity(Role.NODE, master)
        reply = self._call(who, "POST", url, to, {"number": number, "size": 128})
        if reply.ok:
            self.keys += [base64.b64decode(k["key"]) for k in reply.body["keys"]]
        return reply

    def dec_keys(self, slave: str, master: str, key_ids: list[str]) -> Reply:
        """The same keys for its peer."""
        url = f"{self.stack.kme(slave)}/api/v1/keys/{FOREIGN[master]}/dec_keys"
        body = {"key_IDs": [{"key_ID": k} for k in key_ids]}
        return self._call(Identity(Role.SAE, FOREIGN[slave]), "POST", url, Identity(Role.NODE, slave), body)

    def journal(self, who: str) -> list[dict[str, Any]]:
        """All that one process wrote."""
        return journal.read(self.stack.directory / who / "journal.jsonl")

    def _call(self, who: Identity, method: str, url: str, to: Identity, body: Any) -> Reply:
        caller = self.stack.caller(who.role, who.name)
        try:
            return caller.request(method, url, to=to, body=body, timeout_s=20)
        finally:
            caller.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The network, with material enough for every key that the tests want."""
    found = World(Stack(tmp_path_factory.mktemp("stories")))
    try:
        found.start()
        yield found
    finally:
        found.stack.stop()
