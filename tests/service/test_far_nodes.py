"""Two whole nodes and a controller, and between them a wire that grows long while they run. Nobody tells them of it.

Node a is at x. At y are node b, the controller and the shared database.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.limits import answer_s
from testbed.machine.namespaces import call_in_network, network_of
from testbed.machine.processes import Process, Processes
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.gs014_client import Answer, Sae
from tests.support.waiting import until
from tests.support.wire import Wire, X, Y

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")

HOMES = {"alice": "a", "adam": "a", "bob": "b", "beth": "b"}
LINKS = [("a-b/1", "a", "b")]
ONE_WAY_MS = 300
BUSY_MACHINE_S = 3.0
HEALS_S = 30.0


class _Apart(Processes):
    """Starts node a at x, and everything else at y."""

    def __init__(self, wire: Wire, logs: Path) -> None:
        super().__init__(logs)
        self._wire = wire

    def start(self, name: str, command: Sequence[str], **options: Any) -> Process:
        prefix = self._wire.enter("x" if name == "node-a" else "y")
        return super().start(name, [*prefix, *command], **options)


class FarNodes(Stack):
    """The network, and its SAEs by name."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "stack")
        self.wire = Wire(directory)
        self.wire.start()
        self.processes = _Apart(self.wire, self.directory)
        self.networks = {node: network_of(self.wire.holders[end].pid) for node, end in (("a", "x"), ("b", "y"))}
        self.saes = {name: str(uuid.uuid4()) for name in HOMES}
        self.cluster.initialise(listen=Y, port=self.database_port)
        self.start_postgres()
        self.cluster.create(self.schema)
        self.start_nodes(LINKS, {self.saes[name]: node for name, node in HOMES.items()})
        self.start_controller()
        self.start_qcs(LINKS, low=4000, high=4000, slot_s=0.5)

    def issue(self, role: Role, name: str) -> Credentials:
        """Valid at both ends of the wire."""
        return self.authority.issue(Identity(role, name), addresses=[X, Y])

    def write(self, name: str, document: dict[str, Any]) -> Path:
        """With the addresses of the wire in place of the loopback's."""
        if "host" in document:
            document = document | {"host": X if name == "a" else Y}
        text = json.dumps(document).replace(f"hostaddr={LOOPBACK}", f"hostaddr={Y}")
        for node, ports in self.ports.items():
            for port in ports:
                text = text.replace(f"{LOOPBACK}:{port}", f"{X if node == 'a' else Y}:{port}")
        return super().write(name, json.loads(text))

    def exchanged(self, master: str, slave: str) -> bool:
        """Whether both have the same new key; each answer comes in time."""
        given = self._asked(master, lambda sae: sae.get(self.saes[slave]))
        if given.status != 200:
            return False
        fetched = self._asked(slave, lambda sae: sae.fetch(self.saes[master], *given.ids))
        assert fetched.status != 200 or fetched.keys == given.keys
        return fetched.status == 200

    def _asked(self, who: str, request: Callable[[Sae], Answer]) -> Answer:
        node = HOMES[who]
        url = f"https://{X if node == 'a' else Y}:{self.ports[node][0]}"
        sae = Sae(self.saes[who], url, self.issue(Role.SAE, self.saes[who]))
        began = time.monotonic()
        answer = call_in_network(self.networks[node], lambda: request(sae))
        assert time.monotonic() - began < answer_s(2 * ONE_WAY_MS / 1000) + BUSY_MACHINE_S
        return answer

    def stop(self) -> None:
        """End everything."""
        super().stop()
        for fd in self.networks.values():
            os.close(fd)
        self.wire.stop()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[FarNodes]:
    """It, and the wire is short."""
    made = FarNodes(tmp_path)
    yield made
    made.stop()


@pytest.mark.slow
def test_keys_flow_over_a_wire_that_became_long_while_the_network_runs(network):
    """In the session that was there, in one that is opened now, and after a node and the database were started anew."""
    assert until(lambda: network.exchanged("alice", "bob"), HEALS_S)

    network.wire.change(delay_ms=ONE_WAY_MS)
    assert until(lambda: network.exchanged("alice", "bob"), HEALS_S)
    assert until(lambda: network.exchanged("bob", "alice"), HEALS_S)
    assert until(lambda: network.exchanged("adam", "beth"), HEALS_S)

    network.nodes["a"].kill()
    network.start_node("a").wait_ready()
    assert until(lambda: network.exchanged("alice", "bob"), HEALS_S)
    assert until(lambda: network.exchanged("beth", "adam"), HEALS_S)

    network.postgres.kill()
    network.start_postgres()
    assert until(lambda: network.exchanged("alice", "bob"), HEALS_S)
