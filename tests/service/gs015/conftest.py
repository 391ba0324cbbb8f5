"""Three real nodes in a row, real QCs, no controller of ours: a - b - c. The test is the SDN controller."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtls.call import Reply
from mtls.identity import Identity, Role
from testbed.network.loopback import Stack
from tests.support.gs015_client import N, Restconf
from tests.support.waiting import until

HOMES = {"alice": "a", "bob": "b", "carol": "c"}
LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c")]
BYTES_PER_SLOT = 1000
SLOT_S = 0.25


class Network(Stack):
    """The nodes, and what the test says to them as controller and as SAEs."""

    def build(self) -> None:
        """Start everything."""
        self.ids = {name: str(uuid.uuid4()) for name in HOMES}
        self.start_postgres()
        self.start_nodes(LINKS, {self.ids[name]: node for name, node in HOMES.items()}, ttl_slots=8, slot_s=SLOT_S)
        self.qcs = self.start_qcs(LINKS, low=BYTES_PER_SLOT, high=BYTES_PER_SLOT, slot_s=SLOT_S)
        self.foreign = {n: self.restconf(n, Role.CONTROLLER, "foreign") for n in "abc"}
        self.saes = {name: self.caller(Role.SAE, self.ids[name]) for name in HOMES}
        until(lambda: all(link["qkdl_status"].endswith(":ACTIVE") for n in "abc" for link in self.links(n)))

    def restconf(self, node: str, role: Role, name: str) -> Restconf:
        """A client of that node's agent."""
        return Restconf(self.issue(role, name), self.agent(node), Identity(Role.NODE, node))

    def links(self, node: str) -> list[dict[str, Any]]:
        """All links of a node."""
        return self.foreign[node].get(f"{N}/qkd_links")["etsi-qkd-sdn-node:qkd_links"]["qkd_link"]

    def physical(self, node: str, neighbour: str) -> dict[str, Any]:
        """The physical link between two nodes as the first one shows it."""
        far = self.foreign[neighbour].get(f"{N}/qkdn_id")["etsi-qkd-sdn-node:qkdn_id"]
        (found,) = (e for e in self.links(node)
                    if e["qkdl_type"].endswith(":PHYS") and e["qkdl_remote"]["qkdn_id"] == far)  # fmt: skip
        return found

    def sae(self, name: str, method: str, path: str, body: Any = None) -> Reply:
        """A request of that SAE to its KME."""
        node = HOMES[name]
        return self.saes[name].request(
            method, self.kme(node) + path, to=Identity(Role.NODE, node), body=body, timeout_s=20
        )

    def enc_keys(self, master: str, slave: str) -> Reply:
        """A key for the master."""
        return self.sae(master, "GET", f"/api/v1/keys/{self.ids[slave]}/enc_keys?size=128")

    def dec_keys(self, slave: str, master: str, given: Reply) -> Reply:
        """The same for the slave."""
        key_id = given.body["keys"][0]["key_ID"]
        return self.sae(slave, "GET", f"/api/v1/keys/{self.ids[master]}/dec_keys?key_ID={key_id}")


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The running network."""
    made = Network(tmp_path_factory.mktemp("gs015"))
    try:
        made.build()
        yield made
    finally:
        for client in getattr(made, "foreign", {}).values():
            client.close()
        made.stop()


@pytest.fixture
def agent(network: Network) -> Restconf:
    """The agent of b, as a foreign controller sees it."""
    return network.foreign["b"]


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """For a network of a test's own."""
    return tmp_path
