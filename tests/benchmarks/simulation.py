"""`python -m tests.benchmarks.simulation`: virtual time on large networks: seconds, requests a second, memory.

A thousand nodes with two thousand fibres, ten thousand key sessions, a million requests for keys; then a request at
equal hops on networks of 100 and of 1,000 nodes; then an admission by the calendar beside ten thousand sessions.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time

from decisions.admission import Refused
from decisions.calendar import Wanted
from decisions.paths import Path
from etsi.gs004 import QoS
from scenario.scenario import Scenario
from scenario.shape import Shape
from scenario.topology_description import Link, Node, Qc, Sae, Topology
from scenario.workload import Arrival, draw_pairs
from simulation.engine import Simulation
from simulation.sessions import Session
from testbed.bench.bench_run import options
from testbed.operation.tables import table

_SHAPE = Shape(delay_ms=1.0)
_KEYS_OF_ONE, _EVERY_S = 100, 5.0


def main() -> int:
    """All of them; the exit status."""
    options("some three minutes").parse_args()
    rows = []
    for nodes, fibres, sessions, mode, admission in (
        (1000, 2000, 10_000, "basic", "none"), (1000, 2000, 10_000, "qkp", "none"),
        (1000, 2000, 10_000, "basic", "calendar"), (100, 200, 1000, "basic", "none"),
    ):  # fmt: skip
        rows.append(run_one(nodes, fibres, sessions, mode, admission))
    columns = ("nodes", "fibres", "sessions", "mode", "admission", "requests", "seconds", "us a request", "peak MB")
    print(table(columns, rows))
    few, many = (request_us(nodes) for nodes in (100, 1000))
    print(f"a request over four hops: {few:.1f} us of 100 nodes, {many:.1f} us of 1,000: ratio {many / few:.2f}")
    times_ms = decisions_ms(10_000)
    print(f"a decision of the calendar beside 10,000 sessions on 5 QCs: median {statistics.median(times_ms):.2f} ms,"
          f" longest {max(times_ms):.2f} ms")  # fmt: skip
    return 0


def _network(nodes: int, fibres: int, rate: int = 400) -> Topology:
    """A ring with chords by chance; ten SAEs a node."""
    generator = random.Random(f"{nodes}/{fibres}")
    ends = {(i, (i + 1) % nodes) for i in range(nodes)}
    while len(ends) < fibres:
        a, b = generator.sample(range(nodes), 2)
        if (b, a) not in ends:
            ends.add((a, b))
    links = tuple(
        Link(f"n{a}-n{b}", f"n{a}", f"n{b}", None, _SHAPE, _SHAPE, (Qc(f"n{a}-n{b}/1", rate, rate + 80),))
        for a, b in sorted(ends)
    )
    saes = tuple(Sae(f"s{i}", f"n{i % nodes}") for i in range(10 * nodes))
    return Topology(f"net{nodes}", "", tuple(Node(f"n{i}", "", (0, 0)) for i in range(nodes)), links, saes, "n0", "n0")


def _ring(nodes: int, low: int, high: int) -> tuple[Link, ...]:
    return tuple(
        Link(f"n{i}", f"n{i}", f"n{(i + 1) % nodes}", None, _SHAPE, _SHAPE, (Qc(f"n{i}/1", low, high),))
        for i in range(nodes)
    )


def run_one(nodes: int, fibres: int, sessions: int, mode: str, admission: str) -> tuple[object, ...]:
    """A row of the table."""
    topology = _network(nodes, fibres)
    started = time.perf_counter()
    arrivals = [
        Arrival(i * 0.01, master, slave, _KEYS_OF_ONE * _EVERY_S, QoS(128, _EVERY_S))
        for i, (master, slave) in enumerate(draw_pairs(topology.saes, sessions, 1))
    ]
    result = Simulation(Scenario(topology, arrivals, {"mode": mode, "admission": admission})).run()
    took_s = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        nodes, fibres, sessions, mode, admission, result.requests, took_s, 1e6 * took_s / result.requests, peak_mb
    )  # fmt: skip


def request_us(nodes: int) -> float:
    """The median of five, of a hundred sessions over four hops of a ring with so many nodes."""
    links = _ring(nodes, 400, 480)
    topology = Topology("ring", "", tuple(Node(f"n{i}", "", (0, 0)) for i in range(nodes)), links, (), "n0", "n0")
    arrivals = [
        Arrival(0.0, Sae(f"m{i}", f"n{i % nodes}"), Sae(f"s{i}", f"n{(i + 4) % nodes}"), 1000.0, QoS(128, _EVERY_S))
        for i in range(100)
    ]
    found = []
    for _ in range(5):
        simulation = Simulation(Scenario(topology, arrivals))
        started = time.perf_counter()
        result = simulation.run()
        found.append(1e6 * (time.perf_counter() - started) / result.requests)
    return statistics.median(found)


def decisions_ms(beside: int) -> list[float]:
    """Each of the last hundred sessions on a ring of five, on which so many were there before."""
    nodes = tuple(Node(f"n{i}", "", (0, 0)) for i in range(5))
    links = _ring(5, 10**6, 10**6)
    topology = Topology("ring", "", nodes, links, (), "n0", "n0")
    arrivals = [
        Arrival(i * 1e-3, Sae(f"m{i}", f"n{i % 5}"), Sae(f"s{i}", f"n{(i + 2) % 5}"), 60.0, QoS(128, _EVERY_S))
        for i in range(beside + 100)
    ]
    simulation, times = Simulation(Scenario(topology, arrivals, {"admission": "calendar"})), []
    choose = simulation._choose

    def timed(session: Session, now_s: float, wanted: Wanted | None) -> Path | Refused | None:
        started = time.perf_counter()
        found = choose(session, now_s, wanted)
        times.append(1000 * (time.perf_counter() - started))
        return found

    simulation._choose = timed  # type: ignore[method-assign]
    simulation.run()
    return times[-100:]


if __name__ == "__main__":
    sys.exit(main())
