"""Two real nodes whose QC has its key material from a QKD device: two KMEs of GS QKD 014, which are not ours."""

from __future__ import annotations

import base64
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtls.call import Listener
from mtls.identity import Identity, Role
from node.limits import DEVICE_ANSWER_S, MOST_OFFERS
from node.material.local_db_dump import account
from node.material.shared_db import read_allocations
from telemetry import journal
from testbed.audit import collected
from testbed.audit.evidence import Journals, Meant, Qc, Sae, records
from testbed.audit.verdict import Verdict, audit
from testbed.network.loopback import LOOPBACK, free_port
from testbed.network.proxy import Proxy
from tests.support.device_pair import (
    AGAIN,
    BABBLING,
    BUSY,
    FORGETFUL,
    HUNG_UP,
    LYING,
    SHORT,
    SILENT,
    SLOW,
    TWICE,
    DevicePair,
    laid,
)
from tests.support.foreign import open_session
from tests.support.two_nodes import ALICE, BOB, KEY_BYTES, QC, TwoNodes
from tests.support.waiting import until

SLOT_S, TTL_SLOTS = 0.25, 2400
KEYS_AT_A_TIME = 2


def slowly(*values: str) -> Any:
    """A case of a test that takes seconds, and has another case in the suite."""
    return pytest.param(*values, marks=pytest.mark.slow)


class Network(TwoNodes):
    """Their QC is the device's."""

    device: DevicePair
    link: str
    proxies: dict[str, Proxy]  # between the nodes, by that which is called
    told: list[dict[str, Any]]  # what a controller's journal would have

    def verdict(self) -> Verdict:
        """Stop the nodes, and audit all that they have ever done."""
        self.start_qcs([]).stop()
        self.processes.stop("node")
        sae = {ALICE: Sae("a", 0), BOB: Sae("b", 0)}
        meant = Meant(frozenset("ab"), {QC: Qc("a", "b", SLOT_S)}, sae, TTL_SLOTS)
        local = {node: self.directory / node / "local.db" for node in "ab"}
        with self.cluster.admin_url() as url:
            document = collected.document(meant, local, *read_allocations(url, self.schema))
        controller = {"event": "begun", "process": "controller", "mono": self.told[0]["mono"]}
        nodes = {node: list(journal.events(self.directory / node / "journal.jsonl")) for node in "ab"}
        return audit(
            records(document),
            Journals(
                run=[controller, *journal.events(self.directory / "journal.jsonl")],
                qcs=journal.events(self.directory / "qcs" / "journal.jsonl"),
                controller=[*self.told, {"event": "stopped", "mono": time.monotonic()}], nodes=nodes, saes={},
                devices=nodes,
            ),
        )  # fmt: skip

    def events(self, node: str, *names: str) -> list[dict[str, Any]]:
        """What that node tells in its journal."""
        return list(journal.read(self.directory / node / "journal.jsonl", *names))

    def laid(self, node: str) -> list[str]:
        """The IDs of the keys that the node has laid."""
        return laid(self.directory / node / "local.db", QC)

    def state(self, node: str) -> dict[str, Any]:
        """What the node tells operators of its device."""
        url, to = f"{self.agent(node)}/qkd/v1/status", Identity(Role.NODE, node)
        return self.caller(Role.OPERATOR, "operator").request("GET", url, to=to).body["devices"][QC]

    def generate(self, enabled: bool) -> None:
        """Switch the QC at both ends, as an operator does by way of the controller."""
        for node in "ab":
            at = f"/restconf/data/etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link={self.link}/qkdl_enable"
            assert self.configure("PUT", node, at, {"etsi-qkd-sdn-node:qkdl_enable": enabled}) == 204

    def quiet(self) -> None:
        """No more keys are made from now on, and both ends have laid the last ones."""
        end = self.device.ends["a"]
        end.fault, refused = BUSY, end.refused
        until(lambda: end.refused > refused, else_tell=self.tell)  # then no answer is on its way any more
        until(lambda: self.laid("b")[-1:] == self.laid("a")[-1:] != [], else_tell=self.tell)

    def begin(self) -> None:
        """All is well; what is laid and given counts from here on."""
        for end in self.device.ends.values():
            end.heal()
            if end.server is None:
                end.start()
        for node, process in self.nodes.items():
            if not process.alive():
                self.start_node(node).wait_ready()
        if "suspected" in [self.state(node)["state"] for node in "ab"]:
            self.generate(False)
            self.generate(True)
        until(self.exchanged, else_tell=self.tell)
        self.quiet()
        self.before = {node: len(self.laid(node)) for node in "ab"}
        self.given_before = {name: len(end.given) for name, end in self.device.ends.items()}
        self.device.ends["a"].heal()
        until(lambda: self.new("b"), else_tell=self.tell)

    def new(self, node: str) -> list[str]:
        """The IDs of the keys that the node has laid since the test began."""
        return self.laid(node)[self.before[node] :]

    def given(self, end: str) -> list[str]:
        """And of those that this end of the device gave."""
        return self.device.ends[end].given[self.given_before[end] :]

    def count(self, node: str, name: str) -> int:
        """Events of that name in the node's journal."""
        return len(self.events(node, name))

    def tell(self) -> str:
        """What there is to know when a test waits in vain."""
        return "\n".join(f"{n}: {self.state(n)} {self.laid(n)} {self.nodes[n].end_of_log()}" for n in "ab")

    def exchanged(self) -> bool:
        """Whether alice and bob get a key, the same one."""
        return self.exchange() == "ok"

    def listen(self, node: str) -> Iterator[tuple[str, Any]]:
        """The notifications that the node's agent sends from now on, by name."""
        credentials, to = self.issue(Role.OPERATOR, "operator"), Identity(Role.NODE, node)
        listener = Listener(credentials, f"{self.agent(node)}/restconf/streams/NETCONF/json", to, timeout_s=10)
        return (told for event in listener.events() for told in event["ietf-restconf:notification"].items())

    def restart(self, node: str) -> None:
        """kill -9, and its start."""
        self.nodes[node].kill()
        self.start_node(node).wait_ready()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """It runs, and a session is open."""
    directory = tmp_path_factory.mktemp("devices")
    stack = Network(directory / "network")
    stack.device = DevicePair(directory / "device")
    try:
        stack.told = [{"event": "started", "mono": time.monotonic()}]
        stack.start_postgres()
        stack.ports = {node: (free_port(), free_port()) for node in "ab"}
        stack.proxies = {node: Proxy(agent) for node, (_, agent) in stack.ports.items()}
        stack.start_nodes(
            [(QC, "a", "b")], {ALICE: "a", BOB: "b"}, ttl_slots=TTL_SLOTS, slot_s=SLOT_S,
            nodes={node: f"https://{LOOPBACK}:{proxy.port}" for node, proxy in stack.proxies.items()},
            devices=stack.device.documents(QC, number=KEYS_AT_A_TIME),
        )  # fmt: skip
        session = open_session(stack.configure, (ALICE, BOB), ["a", "b"])
        pair = {"ksid": session["ksid"], "master_sae": ALICE, "slave_sae": BOB}
        stack.told.append({"event": "ksid_assigned", "mono": time.monotonic(), **pair})
        stack.link = session["link"]
        yield stack
    finally:
        stack.device.stop()
        stack.stop()
        for proxy in stack.proxies.values():
            proxy.stop()


@pytest.fixture
def network(running: Network) -> Network:
    """All is well in it, and new keys come."""
    running.begin()
    return running


def test_keys_of_a_device_become_keys_of_both_nodes_each_laid_once_and_none_lost(network):
    """What either end of the device gave lies in the key streams of both nodes."""
    for _ in range(8):
        until(network.exchanged, else_tell=network.tell)
    for node, role in {"a": "leads", "b": "follows"}.items():
        assert network.state(node) == {"role": role, "state": "answers", "why": ""}

    network.quiet()
    found = network.new("a")

    assert network.new("b") == network.given("a") == found
    assert sorted(network.given("b")) == sorted(found)
    assert len(found) == len(set(found)) >= KEYS_AT_A_TIME


def test_key_bytes_are_the_devices_own(network):
    """A first key of alice's and bob's is the first one that the device made: they lie one behind the other."""
    key = until(lambda: (reply := network.keys()).ok and reply).body["keys"][0]["key"]
    device_bytes = b"".join(network.device.made[key_id] for key_id in network.laid("a"))
    assert base64.b64decode(key) in device_bytes


@pytest.mark.parametrize(("asked", "killed"), [("a", "a"), slowly("a", "b"), slowly("b", "a"), ("b", "b")])
def test_node_that_is_killed_while_a_device_is_asked_costs_at_most_that_block(network, asked, killed):
    """kill -9 when the device has the request and has not answered; what was laid before is used after the restart."""
    end = network.device.ends[asked]

    is_down = threading.Event()

    def kill(_: str) -> None:
        end.before = lambda _: None
        network.nodes[killed].kill()
        is_down.set()  # and the run has written down that it killed it

    end.before = kill
    assert is_down.wait(30), network.tell()
    network.start_node(killed).wait_ready()
    before = len(network.new("b"))
    until(lambda: len(network.new("b")) > before + 2 * KEYS_AT_A_TIME, else_tell=network.tell)

    until(network.exchanged, else_tell=network.tell)
    network.quiet()
    at_a, at_b, given = network.new("a"), network.new("b"), network.given("a")
    assert at_a == [key_id for key_id in given if key_id in at_a]
    assert at_b == [key_id for key_id in at_a if key_id in at_b]
    assert len(given) - len(at_b) <= KEYS_AT_A_TIME
    assert len({e["epoch"] for e in network.events("a", "device_block")}) == 1


@pytest.mark.parametrize("node", ["a", slowly("b")])
def test_node_that_is_killed_again_and_again_repeats_no_key(network, node):
    """Each life goes on behind what the one before has laid."""
    for _ in range(3):
        network.restart(node)
        until(network.exchanged, else_tell=network.tell)
    network.quiet()

    for name in "ab":
        found = network.laid(name)
        assert len(found) == len(set(found))
        assert sum(s["generated"] for s in account(network.directory / name / "local.db")["streams"]) == (
            KEY_BYTES * len(found)
        )


def test_network_that_loses_messages_between_the_nodes_costs_nothing(network):
    """Each question reaches the other node, and the answer is lost: it is asked again, and what was laid stays so."""
    network.proxies["a"].drops = True
    until(lambda: len(network.new("a")) > len(network.new("b")), else_tell=network.tell)
    until(lambda: network.device.ends["a"].asked == until_it_rests(network), else_tell=network.tell)
    assert len(network.new("a")) - len(network.new("b")) <= MOST_OFFERS * KEYS_AT_A_TIME

    network.proxies["a"].drops = False

    before = len(network.new("b"))
    until(lambda: len(network.new("b")) > before + MOST_OFFERS * KEYS_AT_A_TIME, else_tell=network.tell)
    network.quiet()
    assert network.new("a") == network.new("b") == network.given("a")


def until_it_rests(network: Network) -> int:
    """How often the device at node a has been asked, a second later: four times as long as it is asked in usually."""
    time.sleep(1.0)
    return network.device.ends["a"].asked


@pytest.mark.parametrize("node", ["a", slowly("b")])
def test_node_that_sleeps_while_its_device_answers_costs_nothing(network, node):
    """SIGSTOP for longer than anybody waits for it."""
    end = network.device.ends[node]

    def stop(_: str) -> None:
        end.before = lambda _: None
        network.nodes[node].signal(signal.SIGSTOP)

    end.before = stop
    status = Path(f"/proc/{network.nodes[node].pid}/stat")
    until(lambda: status.read_text().rpartition(") ")[2].startswith("T"), else_tell=network.tell)
    time.sleep(DEVICE_ANSWER_S + 1)  # the time itself is what is tested
    network.nodes[node].signal(signal.SIGCONT)

    before = len(network.new("b"))
    until(lambda: len(network.new("b")) > before + KEYS_AT_A_TIME, else_tell=network.tell)
    until(network.exchanged, else_tell=network.tell)
    network.quiet()
    lost = set(network.given("a")) - set(network.new("b"))
    assert len(lost) <= KEYS_AT_A_TIME, "an answer that waited for longer than it may"
    assert [key_id for key_id in network.new("a") if key_id in network.new("b")] == network.new("b")


@pytest.mark.parametrize("end", [slowly("a"), "b"])
@pytest.mark.parametrize("fault", [BUSY, SILENT, "gone"])
def test_device_that_is_away_for_a_while_costs_no_more_than_an_answer_on_its_way(network, end, fault):
    """What it has not given stays there; what one end had given already is laid when the other end is back."""
    there = network.device.ends[end]
    if fault == "gone":
        there.stop()
    else:
        there.fault = fault
    until(lambda: network.state(end)["state"] in ("silent", "refuses"), else_tell=network.tell)
    assert network.state(end)["why"]

    if fault == "gone":
        there.start()
    else:
        there.heal()

    before = len(network.laid("b"))
    until(lambda: len(network.laid("b")) > before, else_tell=network.tell)
    until(network.exchanged, else_tell=network.tell)
    network.quiet()
    lost = set(network.given("a")) - set(network.new("b"))
    assert len(lost) <= (KEYS_AT_A_TIME if fault == "gone" else 0)


@pytest.mark.parametrize("end", ["a", slowly("b")])
def test_device_that_is_slow_makes_its_qc_slow_and_costs_nothing(network, end):
    """It is waited for."""
    network.device.ends[end].fault = SLOW
    before = len(network.new("b"))

    until(lambda: len(network.new("b")) > before + 2 * KEYS_AT_A_TIME, else_tell=network.tell)

    assert network.state(end)["state"] == "answers"
    network.device.ends[end].heal()
    network.quiet()
    assert network.new("a") == network.new("b") == network.given("a")


@pytest.mark.parametrize(("end", "fault"), [slowly("a", SHORT), ("a", TWICE), slowly("b", SHORT), ("b", BABBLING)])
def test_answer_that_is_not_what_was_asked_for_is_not_laid(network, end, fault):
    """Keys of another size, one key twice, no JSON: said why, and when the device is right again, so is the QC."""
    there = network.device.ends[end]
    there.fault = fault
    until(lambda: network.state(end)["state"] == "bad_answer", else_tell=network.tell)
    bad = len(there.given)
    assert network.state(end)["why"].startswith("its device answers with something else")

    there.heal()

    until(lambda: network.laid("b")[-1] in there.given[bad:], else_tell=network.tell)
    until(network.exchanged, else_tell=network.tell)
    keys = network.laid(end)  # once: the QC goes on
    assert len(keys) == len(set(keys))


def test_device_that_gives_other_bytes_than_its_twin_is_switched_off_loudly_until_an_operator_trusts_it(network):
    """By the check value: no key comes of them; both ends say so, also after a restart; off and on again heals it."""
    known, told = network.count("a", "device_suspected"), network.listen("a")
    network.device.ends["b"].fault = LYING
    for node in "ab":
        until(lambda node=node: network.state(node)["state"] == "suspected", else_tell=network.tell)
        assert network.state(node)["why"] == "the devices at its two ends gave different bytes under the same key IDs"
        assert [e["cause"] for e in network.events(node, "device_suspected")][known:] == ["differs"]
        assert "is switched off" in network.nodes[node].end_of_log()
    until(lambda: network.exchange() == "short_of_material", else_tell=network.tell)
    down = next(content for name, content in told if name.endswith(":sdqkdn_link_down"))
    assert down["qkd_link"]["reason"] == network.state("a")["why"]
    network.device.ends["b"].heal()
    asked = network.device.ends["a"].asked
    for node in "ab":
        network.restart(node)
        until(lambda node=node: network.state(node)["state"] == "suspected", else_tell=network.tell)
    until(lambda: network.exchange() == "short_of_material", else_tell=network.tell)
    assert network.device.ends["a"].asked == asked

    network.generate(False)
    network.generate(True)

    until(network.exchanged, else_tell=network.tell)
    assert {network.state(node)["state"] for node in "ab"} == {"answers"}


def test_device_that_gives_a_key_again_is_switched_off(network):
    """Its key ID is known; it is not laid a second time."""
    network.device.ends["a"].fault = AGAIN

    for node in "ab":
        until(lambda node=node: network.state(node)["state"] == "suspected", else_tell=network.tell)
        assert network.state(node)["why"] == "a device gave a key again that it had given before"
    keys = network.laid("a")
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("fault", [FORGETFUL, HUNG_UP])
def test_block_that_one_end_cannot_get_is_given_up_and_the_next_ones_become_keys(network, fault):
    """It stays at one end, and becomes no key; the gap is told."""
    known = network.count("b", "device_gap")
    network.device.ends["b"].fault = fault
    until(lambda: network.count("b", "device_gap") > known, else_tell=network.tell)
    network.device.ends["b"].heal()

    before = len(network.laid("b"))
    until(lambda: len(network.laid("b")) > before, else_tell=network.tell)
    until(network.exchanged, else_tell=network.tell)
    assert set(network.new("b")) < set(network.new("a"))


def test_device_with_a_certificate_of_another_ca_is_not_asked_for_keys(network, tmp_path):
    """It counts as silent, and the reason is said."""
    other = DevicePair(tmp_path / "other")
    try:
        for name, end in network.device.ends.items():
            end.stop()
            other.ends[name].stop()
            other.ends[name].port = end.port
            other.ends[name].start()

        until(lambda: network.state("a")["state"] == "silent", else_tell=network.tell)

        assert "certificate" in network.state("a")["why"]
        assert other.made == {}
    finally:
        other.stop()


def test_no_key_of_a_device_is_readable_in_a_file_of_a_node(network):
    """Nor its private key: journals, logs and configurations have IDs and paths."""
    keys = list(network.device.made.values())[-20:]
    secret = [form for key in keys for form in (key, base64.b64encode(key), key.hex().encode())]
    secret.append((network.device.authority.ca.parent / "sae-sae-at-a.key").read_bytes())
    own = [path for node in "ab" for path in (network.directory / node).iterdir() if path.is_file()]
    files = [*own, *network.directory.glob("*.log"), *network.directory.glob("*.json*")]

    contents = {path: path.read_bytes() for path in files}

    assert {"local.db", "journal.jsonl", "node-a.log", "a.json"} <= {path.name for path in files}
    assert not [path for path, data in contents.items() if any(form in data for form in secret)]


def test_nobody_but_the_node_at_the_other_end_is_offered_keys(network):
    """Neither another node, nor the node for a QC that is not its own."""
    url, to = f"{network.agent('a')}/qkd/v1/devices/offers", Identity(Role.NODE, "a")
    question = {"qc": QC, "epoch": 0, "done": 0, "ready": False}

    stranger = network.caller(Role.NODE, "c").request("POST", url, to=to, body=question)
    peer = network.caller(Role.NODE, "b").request("POST", url, to=to, body=question | {"qc": "other/1"})

    assert (stranger.status, peer.status) == (401, 401)


def test_audit_of_devices_that_fail_and_of_nodes_that_are_killed_is_clean(network):
    """Whatever was laid, given up, allocated, taken and handed out, by the nodes' own words, fits together."""
    known = network.count("b", "device_gap")
    network.device.ends["b"].fault = HUNG_UP
    until(lambda: network.count("b", "device_gap") > known, else_tell=network.tell)
    network.device.ends["b"].heal()
    for node in "ab":
        network.restart(node)
        until(network.exchanged, else_tell=network.tell)

    found = network.verdict()

    assert list(found.findings) == []
    assert found.counted["bytes_generated"] >= KEY_BYTES * len(network.laid("b"))
    assert found.counted["keys"] > 0
