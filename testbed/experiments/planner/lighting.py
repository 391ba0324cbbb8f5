"""How many of a set of sessions that stay a planner could have accepted by lighting QCs: an integer programme. PURE.

The planner knows all sessions beforehand. It lights QCs, as many as modules and channels allow, and gives each session
a path over lit ones, or none. Sessions between the same two nodes are alike, so they are counted: as flows of whole
sessions along arcs, which fall apart into paths. A QC carries as many sessions as its rate has room for.

Beside it stands one that does not know who will come, and otherwise plans as well. What lies between the two is what it
is worth to know that; what lies between the second and a controller is what lighting and paths could gain.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from scenario.topology_description import Switched, Topology

_LIMIT_S = 60.0
_INFEASIBLE = 2  # a status of scipy's


Pair = tuple[str, str]


def best_lit(
    topology: Topology, pairs: Sequence[Pair], room: Callable[[Switched], int]
) -> tuple[int, bool]:
    """How many of the sessions between those `pairs` of nodes can be accepted, and whether that is exact.

    `room`: how many sessions a QC carries. Only QCs on demand count. If the search is cut short, it is a bound.
    """
    bound, exact = _planned(topology, _counted(pairs), {}, room)
    assert bound is not None  # noqa: S101 - none need be accepted
    return bound, exact


def best_one_by_one(topology: Topology, pairs: Sequence[Pair], room: Callable[[Switched], int]) -> int:
    """How many are accepted of sessions that come in that order, each if it can be beside those accepted before.

    For that all QCs may be lit anew, and all sessions led another way.
    """
    taken: collections.Counter[Pair] = collections.Counter()
    for pair in pairs:
        more = taken + _counted([pair])
        if _planned(topology, more, more, room)[0] is not None:
            taken = more
    return taken.total()


def _counted(pairs: Sequence[Pair]) -> collections.Counter[Pair]:
    return collections.Counter((min(pair), max(pair)) for pair in pairs)


def _planned(
    topology: Topology, sessions: Mapping[Pair, int], least: Mapping[Pair, int], room: Callable[[Switched], int]
) -> tuple[int | None, bool]:
    """How many of those sessions can be accepted, with at least so many of each pair; None if these cannot be."""
    wanted = sorted(sessions.items())
    kinds = collections.Counter((one.a, one.b) for one in topology.switched)
    models = {(one.a, one.b): one for one in topology.switched}
    ends = sorted(kinds)
    arcs = [arc for a, b in ends for arc in ((a, b), (b, a))]
    # Variables: lit QCs by pair of ends; sessions accepted by pair; sessions of each pair along each arc.
    n_ends, n_pairs, n_arcs = len(ends), len(wanted), len(arcs)
    size = n_ends + n_pairs + n_pairs * n_arcs
    rows: list[tuple[dict[int, float], float, float]] = []  # coefficients, and what the sum may be

    def flow(pair: int, arc: int) -> int:
        return n_ends + n_pairs + pair * n_arcs + arc

    for what, number in topology.spare:
        taken = {i: 1.0 for i, end in enumerate(ends) if what in models[end].takes}
        rows.append((taken, 0.0, float(number)))
    for i, end in enumerate(ends):
        carried = {flow(pair, arc): 1.0 for pair in range(n_pairs) for arc in (2 * i, 2 * i + 1)}
        rows.append((carried | {i: -float(room(models[end]))}, -np.inf, 0.0))
    for pair, ((source, target), _) in enumerate(wanted):
        for node in {node for arc in arcs for node in arc}:
            out = {flow(pair, arc): 1.0 for arc, (a, _) in enumerate(arcs) if a == node}
            into = {flow(pair, arc): -1.0 for arc, (_, b) in enumerate(arcs) if b == node}
            accepted = {n_ends + pair: -1.0 if node == source else 1.0} if node in (source, target) else {}
            rows.append((out | into | accepted, 0.0, 0.0))
    entries = [(row, column, value) for row, (found, _, _) in enumerate(rows) for column, value in found.items()]
    row_of, column_of, values = zip(*entries, strict=True)
    matrix = coo_array((values, (row_of, column_of)), shape=(len(rows), size)).tocsr()
    highest = [*(float(kinds[end]) for end in ends), *(float(n) for _, n in wanted), *[np.inf] * (n_pairs * n_arcs)]
    gain = np.zeros(size)
    gain[n_ends : n_ends + n_pairs] = -1.0
    lowest = np.zeros(size)
    lowest[n_ends : n_ends + n_pairs] = [least.get(pair, 0) for pair, _ in wanted]
    found = milp(
        gain, integrality=np.ones(size), bounds=Bounds(lowest, np.array(highest)),
        constraints=LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows]),
        options={"time_limit": _LIMIT_S},
    )  # fmt: skip
    if found.status == _INFEASIBLE:
        return None, True
    bound = found.mip_dual_bound if found.mip_dual_bound is not None else -sum(sessions.values())
    return int(np.floor(-bound + 1e-6)), found.status == 0
