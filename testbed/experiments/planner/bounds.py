"""How many sessions a planner could have accepted that knew everything beforehand: an integer programme. PURE.

For each session one path, or none, and which end of it pays double; then its keys cost what the mode says, at the
times when they are asked for. On each QC, bytes that were made in one slot are used in that slot or one of the next TTL
slots. The planner maximises the sessions accepted, each with all of its keys. No admission policy can do better without
breaking a session.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from decisions.modes import MODES
from scenario.topology_description import Topology
from scenario.workload import Arrival, S

# Ways that a session may go: on a ring there are two.
_MOST_PATHS = 8
Cell = tuple[str, int]  # a QC in a slot


@dataclass(frozen=True, slots=True)
class _Bound:
    """`best` of `offered` sessions could be accepted at most; `exact` unless the search was cut short."""

    offered: int
    best: int
    exact: bool

    @property
    def percent(self) -> float:
        """Of the sessions offered."""
        return 100 * self.best / self.offered if self.offered else 100.0


def best_acceptance(
    topology: Topology,
    arrivals: Sequence[Arrival[S]],
    made: Sequence[tuple[str, float, int]],
    *,
    mode: str,
    keys_ahead: int,
    ttl_slots: int,
    slot_s: float = 1.0,
    time_limit_s: float = 60.0,
) -> _Bound:
    """The bound for sessions that arrive as given, on QCs that `made` bytes: (QC, seconds after the beginning, bytes).

    The planner is spared what a network must do: bytes serve to their last slot, keys made ahead never expire.
    """
    if not arrivals:
        return _Bound(0, 0, True)
    supply: collections.Counter[Cell] = collections.Counter()
    for qc, at_s, n_bytes in made:
        supply[qc, math.floor(at_s / slot_s)] += n_bytes
    options = [
        (session, dict(_demand(arrival, path, mode, keys_ahead, slot_s, double_at_last=at_last)))
        for session, arrival in enumerate(arrivals)
        for path in _paths(topology, arrival.master.node, arrival.slave.node)
        for at_last in ((False, True) if len(path) > 1 and MODES[mode].cipher is not None else (False,))
    ]
    needed = sorted({cell for _, demand in options for cell in demand})
    flows = [
        (made_in, used_in)
        for used_in in needed
        for made_in in ((used_in[0], slot) for slot in range(used_in[1] - ttl_slots, used_in[1] + 1))
        if supply[made_in]
    ]
    return _solve(len(arrivals), options, needed, flows, supply, time_limit_s=time_limit_s)


def _solve(
    offered: int,
    options: Sequence[tuple[int, Mapping[Cell, int]]],
    needed: Sequence[Cell],
    flows: Sequence[tuple[Cell, Cell]],
    supply: Mapping[Cell, int],
    *,
    time_limit_s: float,
) -> _Bound:
    """Variables: a binary for each option (a session on a path), then for each flow the bytes that go by it."""
    rows = itertools.count()
    session_row = {session: next(rows) for session in range(offered)}
    made_row = {cell: next(rows) for cell in dict.fromkeys(made_in for made_in, _ in flows)}
    used_row = {cell: next(rows) for cell in needed}
    entries: list[tuple[int, int, float]] = []
    for column, (session, demand) in enumerate(options):
        entries.append((session_row[session], column, 1))
        entries += [(used_row[cell], column, n_bytes) for cell, n_bytes in demand.items()]
    for column, (made_in, used_in) in enumerate(flows, start=len(options)):
        entries += [(made_row[made_in], column, 1), (used_row[used_in], column, -1)]
    upper = [1] * offered + [supply[cell] for cell in made_row] + [0] * len(needed)
    r, c, v = zip(*entries, strict=True)
    width = len(options) + len(flows)
    chosen = np.arange(width) < len(options)
    found = milp(
        c=-chosen.astype(float),
        constraints=LinearConstraint(coo_array((v, (r, c)), shape=(len(upper), width)).tocsr(), ub=upper),
        integrality=chosen.astype(int),
        bounds=Bounds(0, np.where(chosen, 1, np.inf)),
        options={"time_limit": time_limit_s},
    )
    # What the search has proved, also where it was cut short; a whole number of sessions lies below it.
    proved = offered if found.mip_dual_bound is None else -found.mip_dual_bound
    return _Bound(offered, min(offered, math.floor(proved + 1e-6)), bool(found.status == 0))


def _paths(topology: Topology, master: str, slave: str) -> Iterator[list[str]]:
    """Ways from one node to another as the QCs on them, short ones first."""
    graph: nx.Graph[str] = nx.Graph()
    for link in topology.links:
        if link.qcs:
            graph.add_edge(link.a, link.b, qcs=[qc.name for qc in link.qcs])
    ways = (
        list(qcs)
        for nodes in nx.shortest_simple_paths(graph, master, slave)
        for qcs in itertools.product(*(graph.edges[pair]["qcs"] for pair in itertools.pairwise(nodes)))
    )
    return itertools.islice(ways, _MOST_PATHS)


def _demand(
    arrival: Arrival[S],
    qcs: Sequence[str],
    mode: str,
    keys_ahead: int,
    slot_s: float,
    *,
    double_at_last: bool,
) -> collections.Counter[Cell]:
    """Bytes that the session's keys take from each QC in each slot. Its first key is asked for as it arrives."""
    strategy, interval_s = MODES[mode], arrival.qos.interval_s
    keys = max(1, math.ceil((arrival.length_s or 0.0) / interval_s))
    batch = keys_ahead if strategy.ahead else 1
    demand: collections.Counter[Cell] = collections.Counter()
    for first in range(0, keys, batch):
        slot = math.floor((arrival.at_s + first * interval_s) / slot_s)
        key_bytes, number = arrival.qos.key_size_bits // 8, min(batch, keys - first)
        for qc, n_bytes in strategy.needs(qcs, key_bytes, number, double_at_last=double_at_last):
            demand[qc, slot] += n_bytes
    return demand
