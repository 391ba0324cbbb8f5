"""Three real KMEs in a row, real QCs, the real controller: a - b - c. Nobody opens a key session."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator

import pytest

from mtls.call import Caller
from mtls.identity import Identity, Role
from telemetry import journal
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.gs014_client import Sae
from tests.support.waiting import until

HOMES = {"alice": "a", "adam": "a", "bob": "b", "mallory": "b", "carol": "c", "carl": "c", "odd": "a", "strange": "c"}
# IDs are opaque: these two are no UUIDs, and one is as long as can be.
OPAQUE = {"odd": "VPN/Süd: 100 % #1?", "strange": "X" + "y/" * 63 + "Z"}
LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c")]
BYTES_PER_SLOT, SLOT_S = 40_000, 0.5


class Kmes:
    """The network, its SAEs by name, and its operator."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ids = {name: str(uuid.uuid4()) for name in HOMES} | OPAQUE
        stack.start_postgres()
        self.start_controller()
        stack.start_nodes(LINKS, {self.ids[name]: node for name, node in HOMES.items()})
        self.qcs = stack.start_qcs(LINKS, low=BYTES_PER_SLOT, high=BYTES_PER_SLOT, slot_s=SLOT_S)
        self.operator = Caller(stack.issue(Role.OPERATOR, "operator"))
        self.saes = {name: self.sae(self.ids[name], node) for name, node in HOMES.items()}

    def start_controller(self) -> None:
        """Start the controller (again)."""
        self.ctl = self.stack.start_controller()

    def kill_controller(self) -> None:
        """kill -9."""
        self.ctl.kill()

    def restart(self, node: str) -> None:
        """kill -9 of a node, and its start; it serves again when this returns."""
        self.stack.nodes[node].kill()
        self.stack.start_node(node).wait_ready()
        until(lambda: self.node(node)["registered"])

    def sae(self, sae_id: str, node: str) -> Sae:
        """An SAE of that ID, with a certificate of this network, as a client of that node's KME."""
        return Sae(sae_id, self.stack.kme(node), self.stack.issue(Role.SAE, sae_id))

    def set(self, **parameters: object) -> None:
        """Change parameters that are for the nodes, and wait until they follow."""
        self.set_policy(**parameters)
        until(lambda: all(self.node(n)["parameters"].items() >= parameters.items() for n in "abc"))

    def end_sessions(self, *pairs: tuple[Sae, Sae]) -> None:
        """End the sessions of these pairs of master and slave, which other tests have opened."""
        wanted = {(master.id, slave.id) for master, slave in pairs}

        def left() -> set[str]:
            sessions = [s for node in "abc" for s in self.node(node)["sessions"]]
            return {s["ksid"] for s in sessions if (s["master_sae"], s["slave_sae"]) in wanted}

        for ksid in left():
            self.controller("DELETE", f"key_sessions/{ksid}")
        until(lambda: not left())

    def set_rate(self, bytes_per_slot: int) -> None:
        """Have every QC make so much."""
        for qc, _, _ in LINKS:
            self.controller("PUT", f"qcs/{qc}/rate", {"low": bytes_per_slot, "high": bytes_per_slot})

    def set_policy(self, **parameters: object) -> None:
        """Change parameters."""
        self.controller("PATCH", "parameters", parameters)

    def link(self, qc: str) -> dict:
        """What the controller measured of that QC over the last slots."""
        return next(link for link in self.controller("GET", "qcs")["qcs"] if link["qc"] == qc)

    def all_blocks_have_come(self) -> bool:
        """Whether the QCs are on time, and the nodes have all that they made."""
        newest = {e["qc"]: e for e in journal.read(self.stack.directory / "qcs" / "journal.jsonl") if "slot" in e}
        late = time.monotonic() - 2 * SLOT_S
        come = all(
            qc["slot"] >= newest[qc["qc"]]["slot"] for node in "abc" for qc in self.node(node)["qcs"]
        )  # fmt: skip
        return come and all(block["mono"] > late for block in newest.values())

    def journal(self, name: str) -> list[dict]:
        """All events of that node."""
        return list(journal.read(self.stack.directory / name / "journal.jsonl"))

    def controller(self, method: str, what: str, body: object = None) -> dict:
        """What the controller answers its operator."""
        url = f"https://{LOOPBACK}:{self.stack.controller_port}/qkd/v1/{what}"
        reply = self.operator.request(method, url, to=Identity(Role.CONTROLLER, "ctl"), body=body)
        assert reply.ok, reply
        return reply.body

    def node(self, name: str) -> dict:
        """What the agent of that node tells operators."""
        url = f"{self.stack.agent(name)}/qkd/v1/status"
        return self.operator.request("GET", url, to=Identity(Role.NODE, name)).body


@pytest.fixture(scope="package")
def kmes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kmes]:
    """The running network."""
    stack = Stack(tmp_path_factory.mktemp("gs014"))
    try:
        found = Kmes(stack)
        until(lambda: found.saes["alice"].get(found.ids["carol"]).status == 200)
        yield found
    finally:
        stack.stop()


@pytest.fixture
def alice(kmes: Kmes) -> Sae:
    """At node a."""
    return kmes.saes["alice"]


@pytest.fixture
def adam(kmes: Kmes) -> Sae:
    """At node a, too."""
    return kmes.saes["adam"]


@pytest.fixture
def bob(kmes: Kmes) -> Sae:
    """At node b: one hop from alice."""
    return kmes.saes["bob"]


@pytest.fixture
def mallory(kmes: Kmes) -> Sae:
    """At node b, too."""
    return kmes.saes["mallory"]


@pytest.fixture
def carol(kmes: Kmes) -> Sae:
    """At node c: two hops from alice."""
    return kmes.saes["carol"]


@pytest.fixture
def stranger(kmes: Kmes) -> Sae:
    """Has a certificate of this network, and is known to no KME; it calls that of node a."""
    return kmes.sae(str(uuid.uuid4()), "a")


@pytest.fixture(params=["bob", "carol"], ids=["one hop", "two hops"])
def slave(request: pytest.FixtureRequest, kmes: Kmes) -> Sae:
    """A slave of alice's, over one hop and over a trusted relay."""
    return kmes.saes[request.param]


@pytest.fixture
def still(kmes: Kmes, alice: Sae, bob: Sae, carol: Sae) -> Iterator[None]:
    """No key material comes or expires while the test runs: what is counted changes by what is asked for alone.

    The controller sleeps: it would say after a while that sessions over QCs that make nothing are down.
    """
    pairs = [(alice, bob), (alice, carol), (bob, carol)]  # whose sessions are open from now on
    until(lambda: min(master.stored(slave.id) for master, slave in pairs) >= 100)
    ttl_slots = kmes.node("a")["parameters"]["ttl_slots"]
    kmes.set(ttl_slots=600)
    for process in (kmes.ctl, kmes.qcs):
        process.signal(signal.SIGSTOP)
    try:
        seen: list[tuple[int, int]] = [(-1, -1)]

        def settled() -> bool:
            time.sleep(0.2)
            seen.append((alice.stored(bob.id), alice.stored(carol.id)))
            return seen[-1] == seen[-2]

        # A node that was late with its last report may have promised what is too old by now: that is found out once.
        until(lambda: all(master.get(slave.id).status == 200 for master, slave in pairs))
        until(settled)
        yield
    finally:
        for process in (kmes.qcs, kmes.ctl):
            process.signal(signal.SIGCONT)
        kmes.set(ttl_slots=ttl_slots)
    # They make up for the slots that they missed. Stopped again before that, test after test, they would owe so many in
    # the end that the whole stock expired in one go, and a test that needs keys would find none.
    until(kmes.all_blocks_have_come)
