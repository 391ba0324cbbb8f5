"""A load on a network in virtual time: what becomes of sessions and requests, by the decisions that nodes make. PURE.

No process, no message, no latency: only arrivals, stock and modes, so that hundreds of settings can be tried in the
time that a network needs to come up. What it shows of a setting is shown again by a network before it is believed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from decisions.modes import MODES, Mode
from decisions.ranges import Shortage, Stream, allocate, promised_slots
from decisions.rekey import APPLICATION, Pace, goes_on
from scenario.topology_description import Topology
from testbed.experiments.evaluation.outcome import Load
from testbed.planning.workload import Arrival, Workload


@dataclass(slots=True)
class _Session:
    arrival: Arrival
    qcs: Sequence[str]
    pool: list[int] = field(default_factory=list)  # the slots in which the keys were made that wait
    requests: int = 0
    failed: int = 0


class _Qcs:
    """All QCs' streams, slot by slot."""

    def __init__(self, topology: Topology, ttl_slots: int, seed: int) -> None:
        self._generator = random.Random(f"{seed}/qcs")  # noqa: S311 - a model, no key
        self._rates = {qc.name: (qc.low_bytes_per_slot, qc.high_bytes_per_slot)
                       for link in topology.links for qc in link.qcs}  # fmt: skip
        self._heads: dict[str, list[int]] = {qc: [0] for qc in self._rates}  # after each slot
        self._ttl_slots = ttl_slots
        self.streams = {qc: Stream() for qc in self._rates}

    def begin(self, slot: int) -> None:
        """Make all slots up to `slot`, counted from 0, and forget what is too old to be promised in it."""
        while len(next(iter(self._heads.values()))) <= slot + 1:
            for qc, heads in self._heads.items():
                heads.append(heads[-1] + self._generator.randint(*self._rates[qc]))
        floor = max(0, slot + 1 - math.ceil(promised_slots(self._ttl_slots)))
        for qc, heads in self._heads.items():
            head, first = heads[slot + 1], heads[floor]
            self.streams[qc] = replace(self.streams[qc], head=head, floor=first)


def offer(
    topology: Topology, arrivals: Sequence[Arrival], workload: Workload, *, mode: str, ttl_slots: int,
    keys_ahead: int, seed: int,
) -> Load:  # fmt: skip
    """What becomes of `arrivals` on a network that has filled its stocks and refuses nobody.

    Keys travel the shortest way, over the first QC of each link. `seed` is that of the QCs.
    """
    ways = _ways(topology)
    sessions = [_Session(a, ways[a.master.node, a.slave.node]) for a in arrivals]
    turns = {s.arrival.master.id: Pace() for s in sessions} if workload.pace == APPLICATION else {}
    qcs, order = _Qcs(topology, ttl_slots, seed), itertools.count()
    # Who comes when: to ask for a key, or, where an application keeps the pace, to be told the turn first.
    due = [(s.arrival.at_s, next(order), s, not turns) for s in sessions]
    heapq.heapify(due)
    while due:
        now, _, session, asks = heapq.heappop(due)
        interval_s = session.arrival.qos.interval_s
        if asks:
            slot = ttl_slots + int(now)
            qcs.begin(slot)
            failed = not _key(session, qcs, MODES[mode], slot, ttl_slots=ttl_slots, keys_ahead=keys_ahead)
            session.requests += 1
            session.failed += failed
            if not goes_on(workload.on_key_failure, failed=failed):
                continue
        turn = turns[session.arrival.master.id].take(now, interval_s) if turns else now + interval_s
        if turn < session.arrival.at_s + (session.arrival.length_s or 0.0):
            heapq.heappush(due, (turn, next(order), session, True))
    return Load(
        offered=len(sessions), refused=0, failed=0, with_errors=sum(s.failed > 0 for s in sessions),
        requests=sum(s.requests for s in sessions), failed_requests=sum(s.failed for s in sessions),
    )  # fmt: skip


def _key(session: _Session, qcs: _Qcs, mode: Mode, slot: int, *, ttl_slots: int, keys_ahead: int) -> bool:
    """Whether the session gets a key: one that waits, or one made now, with others ahead where the mode does so."""
    session.pool = [made for made in session.pool if slot - made < promised_slots(ttl_slots)]
    if session.pool:
        session.pool.pop(0)
        return True
    batch = mode.number_at_once(1, keys_ahead)
    for number in dict.fromkeys((batch, 1)):  # not enough to look ahead, but perhaps enough for now
        found = allocate(qcs.streams, mode.needs(session.qcs, session.arrival.qos.key_size_bits // 8, number))
        if not isinstance(found, Shortage):
            qcs.streams = found[0]
            session.pool = [slot] * (number - 1)
            return True
    return False


def _ways(topology: Topology) -> dict[tuple[str, str], list[str]]:
    """The QCs on the shortest path between each two nodes."""
    graph: nx.Graph[str] = nx.Graph()
    for link in topology.links:
        if link.qcs:
            graph.add_edge(link.a, link.b, qc=link.qcs[0].name)
    return {
        (a, b): [graph.edges[pair]["qc"] for pair in itertools.pairwise(nodes)]
        for a, ways in nx.all_pairs_shortest_path(graph)
        for b, nodes in ways.items()
        if a != b
    }
