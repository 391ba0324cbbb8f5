"""How many sessions a planner could have accepted that knew everything beforehand: an integer programme. PURE.

For each session one path, or none, and which end of it pays double; then its keys cost what the mode says, at the
times when they are asked for. On each QC, bytes that were made in one slot are used in that slot or one of the next TTL
slots. The planner maximises the sessions accepted, each with all of its keys. No admission policy can do better without
breaking a session.

Which bytes serve whom need not be said. If the oldest are used first, all that counts is how many are left after each
slot: never fewer than none; with those used in it, never more than were made in it and the TTL slots before; and with
those used in it, never more than were left before and were made since. So a QC takes two variables and three rows for
each slot in which somebody might ask it for a key, and nothing for those between.

Where sessions may be accepted in part, the programme has prices as well: how many sessions more could be accepted for a
byte more of a QC in a slot.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import coo_array

from decisions.modes import MODES
from scenario.topology_description import Topology
from scenario.workload import Arrival, S

# Ways that a session may go: on a ring there are two.
_MOST_PATHS = 8
_MOST_COMBINED = 24  # single paths of which several are put together
PRICED_SLOTS = 10
Cell = tuple[str, int]  # a QC in a slot
Way = Mapping[Cell, int]  # the bytes that a session takes of each
Prices = Mapping[str, Sequence[float]]  # by QC, sessions a byte: the mean of each `PRICED_SLOTS` slots from 0 on


@dataclass(frozen=True, slots=True)
class Offered:
    """What a planner has to choose from: for each session, as they arrive, the ways that it may go; and the bytes that
    QCs make, each of which serves its slot and the next `ttl_slots`.
    """

    ways: Sequence[Sequence[Way]]
    supply: collections.Counter[Cell]
    ttl_slots: int


@dataclass(frozen=True, slots=True)
class _Bound:
    """`best` of `offered` sessions could be accepted at most; `exact` unless the search was cut short."""

    offered: int
    best: int
    exact: bool
    prices: Prices = field(default_factory=dict)

    @property
    def percent(self) -> float:
        """Of the sessions offered."""
        return 100 * self.best / self.offered if self.offered else 100.0


def offered(
    topology: Topology,
    arrivals: Sequence[Arrival[S]],
    made: Iterable[tuple[str, float, int]],
    *,
    mode: str,
    keys_ahead: int,
    ttl_slots: int,
    slot_s: float = 1.0,
) -> Offered:
    """Sessions that arrive as given, on QCs that `made` bytes: (QC, seconds after the beginning, bytes).

    Planners are spared what a network must do: bytes serve to their last slot, keys made ahead never expire.
    """
    supply: collections.Counter[Cell] = collections.Counter()
    for qc, at_s, n_bytes in made:
        supply[qc, math.floor(at_s / slot_s)] += n_bytes
    paths = functools.cache(lambda a, b: list(_paths(topology, a, b, MODES[mode].paths)))
    ways = [
        [
            dict(_demand(arrival, path, mode, keys_ahead, slot_s, double_at_last=at_last))
            for path in paths(arrival.master.node, arrival.slave.node)
            for at_last in ((False, True) if len(path) > 1 and MODES[mode].cipher is not None else (False,))
        ]
        for arrival in arrivals
    ]
    return Offered(ways, supply, ttl_slots)


def best_acceptance(load: Offered, *, time_limit_s: float | None = 60.0) -> _Bound:
    """The bound. Variables: for each option (a session on a way) whether it is taken, then for each slot that counts
    the bytes left after it, and those used in it.

    Without a time limit nothing is searched for: a session may be accepted in part and over several paths at once,
    which is solved in seconds on all networks that ship, and gives the same on any machine.
    """
    options = [(session, way) for session, ways in enumerate(load.ways) for way in ways]
    if not options:
        return _Bound(len(load.ways), 0, exact=True)
    sessions, supply, ttl_slots = len(load.ways), load.supply, load.ttl_slots
    slots: dict[str, set[int]] = {}
    for qc, slot in {cell for _, demand in options for cell in demand}:
        slots.setdefault(qc, set()).add(slot)
    cells = [(qc, slot) for qc in sorted(slots) for slot in sorted(slots[qc])]
    column_of = {cell: number for number, cell in enumerate(cells, start=len(options))}
    row_of = {cell: sessions + number for number, cell in enumerate(cells)}
    entries: list[tuple[int, int, float]] = []
    for column, (session, demand) in enumerate(options):
        entries.append((session, column, 1))
        entries += [(row_of[cell], column, n_bytes) for cell, n_bytes in demand.items()]
    entries += [(row_of[cell], column_of[cell] + len(cells), -1) for cell in cells]
    upper = [1] * sessions + [0] * len(cells)
    for cell, before in zip(cells, [None, *cells], strict=False):
        qc, slot = cell
        left = column_of[cell]
        young = [(left, 1), (left + len(cells), 1)]
        rows = [(young, sum(supply[qc, at] for at in range(slot - ttl_slots, slot + 1)))]
        if before is not None and before[0] == qc and before[1] >= slot - ttl_slots:
            since = sum(supply[qc, at] for at in range(before[1] + 1, slot + 1))
            rows.append(([*young, (column_of[before], -1)], since))
        for row, most in rows:
            entries += [(len(upper), column, factor) for column, factor in row]
            upper.append(most)
    r, c, v = zip(*entries, strict=True)
    width = len(options) + 2 * len(cells)
    chosen = np.arange(width) < len(options)
    matrix = coo_array((v, (r, c)), shape=(len(upper), width)).tocsr()
    tops = np.where(chosen, 1, np.inf)
    if time_limit_s is None:
        relaxed = linprog(
            -chosen.astype(float), A_ub=matrix, b_ub=upper, bounds=[(0, top) for top in tops], method="highs-ipm"
        )
        worth = {cell: -float(relaxed.ineqlin.marginals[row]) for cell, row in row_of.items()}
        return _Bound(sessions, math.floor(1e-6 - relaxed.fun), exact=False, prices=_means(worth))
    found = milp(
        c=-chosen.astype(float), constraints=LinearConstraint(matrix, ub=upper), integrality=chosen.astype(int),
        bounds=Bounds(0, tops), options={"time_limit": time_limit_s},
    )  # fmt: skip
    # What the search has proved, also where it was cut short; a whole number of sessions lies below it.
    proved = sessions if found.mip_dual_bound is None else -found.mip_dual_bound
    return _Bound(sessions, min(sessions, math.floor(proved + 1e-6)), bool(found.status == 0))


def _means(worth: Mapping[Cell, float]) -> Prices:
    found: dict[str, list[list[float]]] = {}
    for (qc, slot), price in sorted(worth.items()):
        spans = found.setdefault(qc, [])
        spans += [[] for _ in range(len(spans), slot // PRICED_SLOTS + 1)]
        spans[-1].append(price)
    return {qc: [math.fsum(span) / max(1, len(span)) for span in spans] for qc, spans in found.items()}


def _paths(topology: Topology, master: str, slave: str, number: int) -> Iterator[list[str]]:
    """Ways from one node to another as the QCs on them, short ones first; of `number` node-disjoint paths together."""
    graph: nx.Graph[str] = nx.Graph()
    for link in topology.links:
        if link.qcs:
            graph.add_edge(link.a, link.b, qcs=[qc.name for qc in link.qcs])
    single = nx.shortest_simple_paths(graph, master, slave)
    together = ((nodes,) for nodes in single) if number == 1 else itertools.combinations(
        itertools.islice(single, _MOST_COMBINED), number
    )
    ways = (
        list(qcs)
        for paths in together
        if _are_disjoint(paths)
        for qcs in itertools.product(
            *(graph.edges[pair]["qcs"] for nodes in paths for pair in itertools.pairwise(nodes))
        )
    )
    return itertools.islice(ways, _MOST_PATHS)


def _are_disjoint(paths: Sequence[Sequence[str]]) -> bool:
    between = [node for nodes in paths for node in nodes[1:-1]]
    return len(set(between)) == len(between)


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
