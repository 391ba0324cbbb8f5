"""`python -m testbed.bench`: how long a key takes, beside what the network alone costs, in the same run.

For each link delay PoliQI comes up afresh, cut open to a row of five nodes, with QCs that are never the bottleneck. An
application at `government` asks its KME for keys shared over one, two and four hops, in every mode. A delivery time is
the paper's: from the arrival of the request at the node until its answer, as the node's journal has it. The floor is
the sum of the round trips (by ping, medians) that the protocol cannot avoid:

    every key that is made   node to shared database: allocation
    several hops             each node to the next one: what is relayed
    basic, qkp               first to last node: the new keys under the shared one
    qkp, from the pool       nothing
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from mtls.call import Caller
from mtls.identity import Identity, Role
from node.modes import MODES
from telemetry import journal
from testbed.bench_run import ROOT, bench, with_network
from testbed.emulation import Emulation
from testbed.errors import UserError
from testbed.floor import RoundTrips, delivery_ms
from testbed.namespaces import call_in_network, network_of, threads_in_network
from testbed.plan import KME_PORT, SaePlan, make_plan
from testbed.tables import table
from testbed.topology import Topology, load

_DELAYS_MS = (0.0, 5.0, 20.0)
_KEYS = 60
_WARM_UP = 12
_QC_RATE = (6000, 6000)
_FIRST = "government"
_PARTNERS = ("military", "telecom", "university")  # one, two and four hops away
_CUT = {"government", "university"}
_BARE_PORT = 8500


@dataclass(frozen=True, slots=True)
class Result:
    """Delivery times of keys in a mode, from a source, over a number of hops, and the floor under them, all in ms."""

    mode: str
    source: str
    hops: int
    times_ms: Sequence[float]
    floor_ms: float

    def row(self) -> tuple[object, ...]:
        """Mode, source, hops, number of keys, median, floor, their ratio, and what the median exceeds the floor by."""
        median = statistics.median(self.times_ms)
        ratio = f"{median / self.floor_ms:.2f}" if self.floor_ms else "-"
        source = "" if self.source == "direct" else self.source
        return self.mode, source, self.hops, len(self.times_ms), median, self.floor_ms, ratio, median - self.floor_ms


def main() -> int:
    """All delays; prints a table a delay. The exit status."""
    print("delivery time of 128-bit keys, medians in ms", flush=True)
    return bench("bench", _all)


def _all() -> int:
    for delay_ms in _DELAYS_MS:
        topology = _row(load("poliqi", ROOT / "topologies").with_overrides(delay_ms=delay_ms, qc_rate=_QC_RATE))
        status = with_network(make_plan(topology), _measure)
        if status != 0:
            return status
    return 0


def _row(topology: Topology) -> Topology:
    """PoliQI with one fibre less: the nodes at its ends are four hops apart."""
    return replace(topology, links=tuple(link for link in topology.links if {link.a, link.b} != _CUT))


def _measure(emulation: Emulation) -> None:
    delay_ms = emulation.plan.topology.links[0].a_to_b.delay_ms
    client, trips = _Client(emulation), RoundTrips(emulation)
    try:
        sessions = [client.open(partner) for partner in _PARTNERS]
        results = []
        for mode in MODES:
            client.set_mode(mode)
            for slave, path in sessions:
                for source, times_ms in client.exchange(slave).items():
                    floor_ms = delivery_ms(trips.ms, mode, source, path)
                    results.append(Result(mode, source, len(path) - 1, times_ms, floor_ms))
        bare = client.bare() if delay_ms == 0 else None
    finally:
        client.close()
    header = ("mode", "from", "hops", "keys", "median", "floor", "ratio", "above floor")
    print(f"\nlinks of {delay_ms:g} ms ({emulation.shaper}, datapath {emulation.datapath})")
    print(table(header, [r.row() for r in results]), end="", flush=True)
    if bare is not None:
        key, request, insert = bare
        print(f"\none hop, seen by the application: {key:.2f} ms a key. A bare request takes {request:.2f} ms, a bare")
        print(f"durable insert {insert:.2f} ms: ratio to their sum {key / (request + insert):.2f}", flush=True)


class _Client:
    """An application at the first node, which asks for keys one after another."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._plan = emulation.plan
        self._master = self._sae(_FIRST)
        self._network = network_of(emulation.network.pid(_FIRST))
        self._pool = threads_in_network(self._network, 1, "bench")
        self._caller = Caller(emulation.credentials(Identity(Role.SAE, self._master.id)))

    def close(self) -> None:
        """Drop all connections."""
        self._pool.shutdown()
        self._caller.close()

    def open(self, node: str) -> tuple[SaePlan, list[str]]:
        """A key session with an application at `node`, and its path."""
        slave = self._sae(node)
        reply = self._emulation.open_session(self._master, slave).result()
        if not reply.ok:
            raise UserError(f"no key session of {self._master.name} with {slave.name}: {reply.message}")
        return slave, list(reply.body["path"])

    def set_mode(self, mode: str) -> None:
        """Have all nodes make keys in `mode`, and wait until they do."""
        self._emulation.control_room.controller("PATCH", "/qkd/v1/parameters", {"mode": mode})
        time.sleep(2.5)  # the nodes hear of it with the next slot

    def exchange(self, slave: SaePlan) -> dict[str, list[float]]:
        """Delivery times of keys at the first node, by where the keys came from."""
        asked = {self._key(slave) for _ in range(_WARM_UP + _KEYS)}
        events = journal.read(self._emulation.run.path / "nodes" / _FIRST / "journal.jsonl")
        mine = [e for e in events if e.get("request") == "enc_keys" and e["key_ids"][0] in asked]
        found = defaultdict(list)
        for event in mine[_WARM_UP:]:
            found[str(event["source"])].append(float(event["duration_ms"]))
        return dict(found)

    def bare(self) -> tuple[float, float, float]:
        """Medians in ms, as the client sees them: a key over one hop, a request to a constant, a durable insert."""
        self.set_mode("basic")
        emulation, credentials = self._emulation, self._emulation.credentials(Identity(Role.NODE, _FIRST))
        document = {"host": self._plan.hosts[_FIRST].ip, "port": _BARE_PORT, "credentials": credentials.to_config()}
        config = emulation.run.write("config/bare.json", document)
        process = emulation.processes.component("bare", "testbed.bare", config, prefix=emulation.network.enter(_FIRST))
        process.wait_ready()
        slave = self._sae(_PARTNERS[0])
        url = self._plan.url(_FIRST, _BARE_PORT) + "/"
        with call_in_network(self._network, lambda: emulation.connect_database(_FIRST)) as connection:
            # Each in turn, so that a busy moment hits all three.
            times: tuple[list[float], list[float], list[float]] = ([], [], [])
            for _ in range(_WARM_UP + _KEYS):
                times[0].append(_timed(lambda: self._key(slave, pause_s=0)))
                times[1].append(_timed(lambda: self._ask("POST", url, {"size": 128})))
                times[2].append(_timed(lambda: _insert(connection)))
        key, request, insert = (statistics.median(t[_WARM_UP:]) for t in times)
        return key, request, insert

    def _key(self, slave: SaePlan, pause_s: float = 0.02) -> str:
        url = f"{self._plan.url(_FIRST, KME_PORT)}/api/v1/keys/{slave.id}/enc_keys"
        key_id = str(self._ask("POST", url, {"size": 128})["keys"][0]["key_ID"])
        time.sleep(pause_s)
        return key_id

    def _ask(self, method: str, url: str, body: Any) -> Any:
        to = Identity(Role.NODE, _FIRST)
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
    connection.execute("INSERT INTO bare VALUES (gen_random_uuid(), 1, 2)")


if __name__ == "__main__":
    sys.exit(main())
