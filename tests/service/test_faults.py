"""Nodes, database and relays that fail at any moment: what fails says so, the rest is right, and all heals by itself.

Real processes on loopback under load. Afterwards the audit replays what the QCs made, what was allocated and what each
node took: nothing may have been used twice, and no pair may differ.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import signal
import socket
import sqlite3
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from decisions.modes import MODES
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from node.material.key_events import PART
from node.material.shared_db import read_allocations
from telemetry import journal
from testbed.audit import collected
from testbed.audit.evidence import Journals, Meant, Qc, Sae, records
from testbed.audit.verdict import audit
from testbed.evidence.summary import read_run, summarise
from testbed.network.loopback import LOOPBACK, Stack, free_port
from testbed.network.proxy import Proxy
from tests.support.foreign import open_session
from tests.support.waiting import until

LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c"), ("c-d/1", "c", "d")]
HOME = {str(uuid.UUID(int=i)): node for i, node in enumerate("abcd", start=1)}
ID = {node: sae for sae, node in HOME.items()}
# The usual 15 s in slots this short: long enough for a node to start again on a busy machine.
SLOT_S, TTL_SLOTS = 0.25, 60
# One, two and three hops, and both directions of a link.
PAIRS = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("a", "d"), ("d", "b")]


class Line(Stack):
    """Four nodes in a row under load, with proxies between them."""

    proxies: dict[str, Proxy]
    links: Sequence[tuple[str, str, str]] = LINKS
    pairs: Sequence[tuple[str, str]] = PAIRS

    def build(self, mode: str) -> None:
        """Start everything, and open a session a pair."""
        self.mode = mode
        # What a controller's journal would have.
        self.told: list[dict[str, Any]] = [{"event": "started", "mono": time.monotonic()}]
        self.start_postgres()
        for node in "abcd":
            self.ports[node] = (free_port(), free_port())
        self.proxies = {node: Proxy(agent) for node, (_, agent) in self.ports.items()}
        between = {node: f"https://{LOOPBACK}:{proxy.port}" for node, proxy in self.proxies.items()}
        self.start_nodes(self.links, HOME, mode=mode, ttl_slots=TTL_SLOTS, slot_s=SLOT_S, nodes=between)
        self.qcs = self.start_qcs(self.links, low=3000, high=3000, slot_s=SLOT_S)
        self.callers = {sae: self.caller(Role.SAE, sae) for sae in HOME}
        self.sdn = self.caller(Role.CONTROLLER, "ctl")
        for master, slave in self.pairs:
            self.open(master, slave)

    def paths(self, master: str, slave: str) -> list[list[str]]:
        """Those of a session of the two."""
        step = 1 if master < slave else -1
        return [[chr(i) for i in range(ord(master), ord(slave) + step, step)]]

    def open(self, master: str, slave: str) -> None:
        """Configure a session on its path, as a controller does that knows only the standard."""
        def call(method: str, node: str, at: str, body: Any) -> int:
            return self.sdn.request(method, f"{self.agent(node)}{at}", to=Identity(Role.NODE, node), body=body).status

        session = open_session(call, (ID[master], ID[slave]), *self.paths(master, slave))
        facts = {"ksid": session["ksid"], "master_sae": ID[master], "slave_sae": ID[slave]}
        self.told.append({"event": "ksid_assigned", "mono": time.monotonic(), **facts})

    def ask(self, node: str, path: str, body: Any) -> Reply:
        """A request of the SAE at `node` to its KME."""
        caller: Caller = self.callers[ID[node]]
        return caller.request("POST", self.kme(node) + path, to=Identity(Role.NODE, node), body=body, timeout_s=15)

    def exchange(self, master: str, slave: str, size: int) -> str:
        """One key for both SAEs: "ok", or what went wrong. Keys that differ end the test."""
        try:
            given = self.ask(master, f"/api/v1/keys/{ID[slave]}/enc_keys", {"size": size})
            if not given.ok:
                return str(given.detail("cause") or given.status)
            (key,) = given.body["keys"]
            fetched = self.ask(slave, f"/api/v1/keys/{ID[master]}/dec_keys", {"key_IDs": [{"key_ID": key["key_ID"]}]})
        except Unreachable:
            return "unreachable"
        if not fetched.ok:
            return str(fetched.detail("cause") or fetched.status)
        assert fetched.body["keys"] == [key]
        self.keys.append(base64.b64decode(key["key"]))
        return "ok"

    def ask_and_leave(self, node: str, path: str, body: Any) -> None:
        """The same, of an SAE that is gone before the answer comes."""
        to, context = Identity(Role.NODE, node), self.issue(Role.SAE, ID[node]).client_context()
        raw = socket.create_connection((LOOPBACK, self.ports[node][0]))
        with context.wrap_socket(raw, server_hostname=to.dns) as connection:
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: kme\r\n\r\n")
            connection.recv(1 << 16)  # the node has taken this connection
            self.nodes[node].signal(signal.SIGSTOP)
            threads = Path(f"/proc/{self.nodes[node].pid}/task")
            until(lambda: all(t.read_text().rpartition(") ")[2].startswith("T") for t in threads.glob("*/stat")))
            content = json.dumps(body)
            head = f"POST {path} HTTP/1.1\r\nHost: kme\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(f"{head}{content}".encode())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.nodes[node].signal(signal.SIGCONT)

    def lost_bytes(self) -> dict[str, float]:
        """By QC, of all nodes, as Prometheus reads them."""
        operator, found = self.issue(Role.OPERATOR, "prometheus").client_context(), Counter[str]()
        for node in "abcd":
            with urllib3.PoolManager(ssl_context=operator, server_hostname=Identity(Role.NODE, node).dns) as pool:
                page = pool.request("GET", f"{self.agent(node)}/metrics").data.decode()
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    if sample.name == "qkd_qc_lost_bytes_total":
                        found[sample.labels["qc"]] += sample.value
        return +found

    def load(self, stop: threading.Event) -> list[threading.Thread]:
        """A thread a pair that exchanges keys of various sizes until `stop`."""
        def run(master: str, slave: str) -> None:
            chance = random.Random(f"{master}{slave}")
            while not stop.is_set():
                try:
                    self.results[self.exchange(master, slave, chance.choice([64, 128, 256]))] += 1
                except AssertionError as error:
                    self.wrong.append(error)
                time.sleep(0.02)

        threads = [threading.Thread(target=run, args=pair) for pair in self.pairs]
        for thread in threads:
            thread.start()
        return threads

    def heal(self) -> None:
        """Have everything up again that a fault may have left down."""
        for node, process in list(self.nodes.items()):
            if not process.alive():
                self.start_node(node).wait_ready()
        if not self.postgres.alive():
            self.start_postgres()

    def verdict(self) -> Any:
        """Stop what makes and takes keys, and audit."""
        self.processes.stop("qcs", "node")
        qcs = {name: Qc(a, b, SLOT_S) for name, a, b in self.links}
        meant = Meant(frozenset("abcd"), qcs, {sae: Sae(node, 0) for sae, node in HOME.items()}, TTL_SLOTS)
        local = {node: self.directory / node / "local.db" for node in "abcd"}
        with self.cluster.admin_url() as url:
            document = collected.document(meant, local, *read_allocations(url, self.schema))
        self.told.append({"event": "stopped", "mono": time.monotonic()})
        controller = {"event": "begun", "process": "controller", "mono": self.told[0]["mono"]}
        journals = Journals(
            run=[controller, *journal.events(self.directory / "journal.jsonl")],
            qcs=journal.events(self.directory / "qcs" / "journal.jsonl"),
            controller=self.told,
            nodes={node: journal.events(self.directory / node / "journal.jsonl") for node in "abcd"},
            saes={},
        )
        return audit(records(document), journals)


class Mesh(Line):
    """The same four nodes, each joined to each other; sessions go over two or three paths that share no relay."""

    links = tuple((f"{a}-{b}/1", a, b) for a, b in itertools.combinations("abcd", 2))
    pairs = (("a", "d"), ("d", "a"), ("b", "c"), ("a", "b"))

    def paths(self, master: str, slave: str) -> list[list[str]]:
        """By way of each of the other two; and the link between them, if the mode takes three."""
        others = [node for node in "abcd" if node not in (master, slave)]
        found = [[master, other, slave] for other in others]
        return found if MODES[self.mode].paths == 2 else [[master, slave], *found]


def slow(*modes: str) -> list[Any]:
    """Modes in which a test is slow."""
    return [pytest.param(mode, marks=pytest.mark.slow) for mode in modes]


@pytest.fixture(params=["qkp", "paths-2of3", *slow("basic", "parallel", "paths-2", "otp")])
def network(request: pytest.FixtureRequest, tmp_path) -> Iterator[Line]:
    """The line, or the mesh where keys go over several paths, in each mode."""
    yield from built((Line if MODES[request.param].paths == 1 else Mesh)(tmp_path), request.param)


@pytest.fixture(params=["basic", "qkp", "parallel", *slow("otp")])
def line(request: pytest.FixtureRequest, tmp_path) -> Iterator[Line]:
    """The line in each mode that goes over one path."""
    yield from built(Line(tmp_path), request.param)


def built(made: Line, mode: str) -> Iterator[Line]:
    """Have it run, and ended."""
    made.keys, made.results, made.wrong = [], Counter(), []
    try:
        made.build(mode)
        yield made
    finally:
        made.stop()
        for proxy in getattr(made, "proxies", {}).values():
            proxy.stop()


def kill_node(line: Line, chance: random.Random) -> None:
    """kill -9 of a node, at whatever it was doing, and its restart."""
    node = chance.choice("abcd")
    line.nodes[node].kill()
    time.sleep(chance.uniform(0, 0.3))
    line.start_node(node).wait_ready()


def kill_database(line: Line, chance: random.Random) -> None:
    """kill -9 of PostgreSQL, and its restart."""
    line.postgres.kill()
    time.sleep(chance.uniform(0, 0.3))
    line.start_postgres()


def drop_relay_messages(line: Line, chance: random.Random) -> None:
    """Connections between nodes break in the middle of messages and answers."""
    proxy = line.proxies[chance.choice("abcd")]
    proxy.drops = True
    time.sleep(chance.uniform(0.1, 0.5))
    proxy.drops = False


def delay_relay_messages(line: Line, chance: random.Random) -> None:
    """Messages between nodes arrive late."""
    proxy = line.proxies[chance.choice("abcd")]
    proxy.delay_s = chance.uniform(0.05, 0.3)
    time.sleep(0.5)
    proxy.delay_s = 0.0


FAULTS = [
    kill_node, drop_relay_messages, kill_node, delay_relay_messages, kill_database, kill_node, drop_relay_messages,
]  # fmt: skip


def test_whatever_fails_nothing_is_used_twice_and_no_pair_differs(network):
    """One fault after another under load; then, untouched, every pair gets keys again, and the audit is clean."""
    chance = random.Random(1)
    stop = threading.Event()
    threads = network.load(stop)
    try:
        until(lambda: sum(network.results.values()) > 20)
        for fault in FAULTS:
            fault(network, chance)
            time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    network.heal()
    for master, slave in network.pairs:
        until_ok(network, master, slave)

    verdict = network.verdict()

    assert not network.wrong
    assert list(verdict.findings) == []
    assert network.results["ok"] > 50, network.results
    assert len(network.results) > 1, "the faults were felt"
    assert len(set(network.keys)) == len(network.keys)
    assert verdict.counted["ranges_taken"] > 100


@dataclass(frozen=True, slots=True, order=True)
class Taken:
    """Bytes [start, end) that `node` took out of a stream, and the allocation that it took them for."""

    qc: str
    epoch: int
    start: int
    end: int
    request: str
    node: str


def taken(line: Line) -> list[Taken]:
    """What all nodes took since they are there, in the order of the streams."""
    found = []
    for node in "abcd":
        with sqlite3.connect(line.directory / node / "local.db") as local:
            rows = local.execute("SELECT qc, epoch, start, end, request FROM taken")
            found += [Taken(*row, node) for row in rows]
    return sorted(found)


def used_twice(takes: Sequence[Taken]) -> list[tuple[Taken, Taken]]:
    """Those of the same bytes, unless the two ends of a QC took them for the same allocation."""
    wrong, open_takes = [], []
    for take in takes:
        open_takes = [t for t in open_takes if (t.qc, t.epoch) == (take.qc, take.epoch) and t.end > take.start]
        wrong += [(t, take) for t in open_takes if t.request != take.request or t.node == take.node]
        open_takes.append(take)
    return wrong


@pytest.mark.parametrize("line", ["basic", *slow("qkp", "parallel", "otp")], indirect=True)
def test_no_byte_is_used_twice_when_a_server_with_an_older_copy_takes_over(line):
    """It is behind the same address and lacks the last commits: what both ends took since, it has never heard of.

    While it takes no writes, and until both ends have reported to it, requests are refused with the reason.
    """
    for master, slave in PAIRS:
        until_ok(line, master, slave)
    line.cluster.copy()
    stop = threading.Event()
    threads = line.load(stop)
    not_pooled = 512
    try:
        until(lambda: line.results["ok"] > 60)
        # b never takes its share of what a relays in vain, and holds it still. Behind it lies a key of b and a, whose
        # bytes b has taken and a has not.
        line.proxies["b"].drops = True
        until(lambda: line.exchange("a", "c", not_pooled) == "relay_broken")
        line.proxies["b"].drops = False
        line.nodes["a"].signal(signal.SIGSTOP)
        assert line.ask("b", f"/api/v1/keys/{ID['a']}/enc_keys", {"size": not_pooled}).ok
        line.postgres.kill()
        line.nodes["a"].signal(signal.SIGCONT)
        line.cluster.take_over()
        line.start_postgres()
        with line.cluster.admin_url() as url, psycopg.connect(url) as admin:
            query = f"SELECT name, epoch, tail FROM {line.schema}.qc"  # noqa: S608 - our own
            tails = {(qc, epoch): tail for qc, epoch, tail in admin.execute(query)}
        until(lambda: line.results["database_unreachable"])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    before = taken(line)
    assert {t.qc for t in before if t.start >= tails[t.qc, t.epoch]} == {qc for qc, *_ in LINKS}, "it would give them"
    line.nodes["b"].signal(signal.SIGSTOP)
    line.cluster.promote()
    until(lambda: line.exchange("a", "c", not_pooled) == "database_changed")
    assert line.exchange("c", "a", not_pooled) == "database_changed"
    assert len(taken(line)) == len(before), "nothing is given that an end has not spoken for"
    line.nodes["b"].signal(signal.SIGCONT)

    for master, slave in PAIRS * 3:
        until_ok(line, master, slave)

    assert not line.wrong
    assert len(set(line.keys)) == len(line.keys)
    after = taken(line)
    assert {t.qc for t in {*after} - {*before}} == {qc for qc, *_ in LINKS}
    assert used_twice(after) == []


def until_ok(line: Line, master: str, slave: str) -> None:
    """Return when a key was exchanged."""
    results: list[str] = []

    def exchanged() -> bool:
        results.append(line.exchange(master, slave, 128))
        return results[-1] == "ok"

    until(exchanged, else_tell=lambda: f"{master} to {slave}: {results[-1]}")


def test_node_killed_between_relay_hops_costs_a_key_and_no_more(line):
    """While the message from b to c is on its way: the first node, the relay before it, the relay that it is for.

    In mode qkp this is the middle of a refill. The master gets an error; then all goes on. In parallel it is the word
    from a to c, and b has done its part by then.
    """
    for victim in "abc":
        until_ok(line, "a", "d")
        proxy = line.proxies["c"]
        before, proxy.delay_s = proxy.delayed, 0.4
        results: list[str] = []
        # Of a size that no pool holds yet, so that the key does not come without a relay.
        size = 8 * (ord(victim) + 100)
        asking = threading.Thread(target=lambda r=results, s=size: r.append(line.exchange("a", "d", s)))
        asking.start()
        until(lambda p=proxy, n=before: p.delayed > n)
        line.nodes[victim].kill()
        proxy.delay_s = 0.0
        asking.join()
        line.start_node(victim).wait_ready()

        done = ["ok"] if line.mode == "parallel" and victim == "b" else []
        assert results[0] in ("unreachable", "relay_broken", "expired", *done), (victim, results)
    until_ok(line, "a", "d")
    assert list(line.verdict().findings) == []


def test_node_killed_between_allocation_and_delivery_gives_the_same_key(line):
    """The master has its key; the slave's node dies before its SAE has fetched it. One hop and two.

    The key waits on disk, or in the stream. That the node was about to store it is tried in test_agreement.py.
    """
    for master, slave in (("a", "b"), ("a", "c")):
        until_ok(line, master, slave)
        given = line.ask(master, f"/api/v1/keys/{ID[slave]}/enc_keys", {"size": 512})
        line.nodes[slave].kill()
        line.start_node(slave).wait_ready()
        (key,) = given.body["keys"]
        wanted = {"key_IDs": [{"key_ID": key["key_ID"]}]}

        def fetched_at_last(master: str = master, slave: str = slave, wanted: Any = wanted) -> Reply | None:
            reply = line.ask(slave, f"/api/v1/keys/{ID[master]}/dec_keys", wanted)
            return None if reply.status == 503 else reply

        fetched = until(fetched_at_last)

        assert fetched.body == given.body
        until_ok(line, master, slave)
    assert list(line.verdict().findings) == []


@pytest.mark.parametrize("line", ["qkp", *slow("basic", "parallel", "otp")], indirect=True)
def test_keys_that_their_clients_did_not_take_are_lost_by_qc_for_all_who_count(line):
    """Of masters and of slaves, over one hop and two, one key and several: journal, metrics, summary, audit agree."""
    for slave in "bc":
        until_ok(line, "a", slave)
        line.ask_and_leave("a", f"/api/v1/keys/{ID[slave]}/enc_keys", {"size": 512, "number": 3})
        given = line.ask("a", f"/api/v1/keys/{ID[slave]}/enc_keys", {"size": 384, "number": 3})
        wanted = [{"key_ID": key["key_ID"]} for key in given.body["keys"][:2]]
        line.ask_and_leave(slave, f"/api/v1/keys/{ID['a']}/dec_keys", {"key_IDs": wanted})
        until_ok(line, "a", slave)

    def told() -> list[Any]:
        return [r for e in read_run(line.directory, "lost") for r in e["ranges"] if (r[0], r[3]) == ("a-b/1", PART)]

    until(lambda: len(told()) == 2 * (3 + 2))
    counted, events = line.lost_bytes(), read_run(line.directory)
    verdict = line.verdict()

    assert list(verdict.findings) == []
    assert counted["a-b/1"] >= 2 * (3 * 64 + 2 * 48), "what the keys cost at least"
    assert counted == summarise(events)["keys"]["lost_bytes"] == verdict.lost_bytes
