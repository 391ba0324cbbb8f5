"""An application that asks for one key after another, as benchmarks need it, and the delivery times of its keys."""

from __future__ import annotations

import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg

from documents.paths import paths_of
from mtls.call import Caller
from mtls.identity import Identity, Role
from scenario.topology import load
from telemetry import journal
from testbed.bench.bench_run import ROOT
from testbed.database.shared_database import OwnDatabase, SharedDatabase
from testbed.errors import UserError
from testbed.machine.namespaces import call_in_network, network_of, threads_in_network
from testbed.network.emulation import Emulation
from testbed.operation.operator import Operator
from testbed.planning.make import make_plan
from testbed.planning.plan import KME_PORT, Plan, SaePlan

FIRST = "government"
# One, two and four hops away from the first node, in `row_of_five`.
PARTNERS = ("military", "telecom", "university")
_KEYS = 60
_WARM_UP = 12
_BARE_PORT = 8500
_QC_RATE = (6000, 6000)
_CUT = {"government", "university"}


def ring_of_five(delay_ms: float) -> Plan:
    """PoliQI, whose QCs are never the bottleneck here."""
    return make_plan(load("poliqi", ROOT / "topologies").with_overrides(delay_ms=delay_ms, qc_rate=_QC_RATE))


def row_of_five(delay_ms: float) -> Plan:
    """The same with one fibre less: the nodes at its ends are four hops apart."""
    topology = ring_of_five(delay_ms).topology
    links = tuple(link for link in topology.links if {link.a, link.b} != _CUT)
    return make_plan(replace(topology, links=links))


class Client:
    """An application at the first node, which asks for keys one after another."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._operator = Operator(emulation)
        self._plan = emulation.plan
        self._master = self._sae(FIRST)
        self._network = network_of(emulation.network.pid(FIRST))
        self._pool = threads_in_network(self._network, 1, "bench")
        self._caller = Caller(emulation.credentials(Identity(Role.SAE, self._master.id)))

    def close(self) -> None:
        """Drop all connections."""
        self._operator.close()
        self._pool.shutdown()
        self._caller.close()

    def open(self, node: str) -> tuple[SaePlan, list[list[str]]]:
        """A key session with an application at `node`, and its path, or paths."""
        slave = self._sae(node)
        return slave, paths_of(self._operator.do("open", master=self._master.name, slave=slave.name))

    def set_mode(self, mode: str) -> None:
        """Have all nodes make keys in `mode`, and wait until they do."""
        self._operator.do("set", name="mode", value=mode)
        time.sleep(2.5)  # the nodes hear of it with the next slot

    def exchange(self, slave: SaePlan) -> dict[str, list[float]]:
        """Delivery times of keys at the first node, by where the keys came from."""
        asked = {self._key(slave) for _ in range(_WARM_UP + _KEYS)}
        events = journal.read(self._emulation.run.path / "nodes" / FIRST / "journal.jsonl")
        mine = [e for e in events if e.get("method") == "enc_keys" and e["key_ids"][0] in asked]
        found = defaultdict(list)
        for event in mine[_WARM_UP:]:
            found[str(event["source"])].append(float(event["duration_ms"]))
        return dict(found)

    def bare(self) -> tuple[float, float, float]:
        """Medians in ms, as the client sees them: a key over one hop, a request to a constant, a durable insert."""
        self.set_mode("basic")
        emulation, credentials = self._emulation, self._emulation.credentials(Identity(Role.NODE, FIRST))
        document = {"host": self._plan.hosts[FIRST].ip, "port": _BARE_PORT, "credentials": credentials.to_config()}
        config = emulation.run.write("config/bare.json", document)
        there = emulation.network.pid(FIRST)
        process = emulation.processes.component("bare", "testbed.bench.bare", config, inside=there)
        process.wait_ready()
        slave = self._sae(PARTNERS[0])
        url = self._plan.url(FIRST, _BARE_PORT) + "/"
        with call_in_network(self._network, lambda: _connect(emulation.database)) as connection:
            # Each in turn, so that a busy moment hits all three.
            times: tuple[list[float], list[float], list[float]] = ([], [], [])
            for _ in range(_WARM_UP + _KEYS):
                times[0].append(_timed(lambda: self._key(slave, pause_s=0)))
                times[1].append(_timed(lambda: self._ask("POST", url, {"size": 128})))
                times[2].append(_timed(lambda: _insert(connection)))
        key, request, insert = (statistics.median(t[_WARM_UP:]) for t in times)
        return key, request, insert

    def _key(self, slave: SaePlan, pause_s: float = 0.02) -> str:
        url = f"{self._plan.url(FIRST, KME_PORT)}/api/v1/keys/{slave.id}/enc_keys"
        key_id = str(self._ask("POST", url, {"size": 128})["keys"][0]["key_ID"])
        time.sleep(pause_s)
        return key_id

    def _ask(self, method: str, url: str, body: Any) -> Any:
        to = Identity(Role.NODE, FIRST)
        answer = self._pool.submit(self._caller.request, method, url, to=to, body=body).result()
        if not answer.ok:
            raise UserError(f"{url}: {answer.message}")
        return answer.body

    def _sae(self, node: str) -> SaePlan:
        return next(s for s in self._plan.applications if s.node == node)


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1000


def _insert(connection: psycopg.Connection[Any]) -> None:
    # A node may call no function of PostgreSQL's own: whatever has to be converted is a text.
    connection.execute("INSERT INTO bare VALUES (%s, '1', '2')", (str(uuid.uuid4()),))


def _connect(database: SharedDatabase) -> psycopg.Connection[Any]:
    """A connection as the first node makes it, and a table `bare` that it may write."""
    if not isinstance(database, OwnDatabase):
        raise UserError("benchmarks measure a database of their own")
    with database.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE TABLE IF NOT EXISTS bare (id uuid PRIMARY KEY, start_at bigint, end_at bigint)")
        admin.execute("GRANT INSERT ON bare TO qkd_node; GRANT USAGE ON SCHEMA public TO qkd_node")
    return psycopg.connect(database.node_url(FIRST), autocommit=True)
