"""Which path a key session takes, and which QCs are lit for it: candidates, until admission lets one. PURE.

Two mechanisms bring keys to nodes that are no neighbours: trusted relays, and an optical bypass, a QC of their own past
others. A QC on demand is dark until it is lit. While it is lit it takes a QKD module at both ends, and a channel of
each fibre that its light goes through; and it can only be lit where there are some to spare.

Where QCs can be lit, a path has a price: of each QC on demand the part of its key that the session needs, times the
number of modules and channels that the QC takes. What is always lit costs nothing. The cheapest path counts first. So
nothing is lit while relays over QCs of fibres will do. Beyond that, relays serve where a QC past others would make too
little for the modules that it takes, and a bypass where it makes enough; and where there is no module left for the one,
there may be for the other.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from decisions.admission import Refused
from decisions.paths import Path, QkdGraph

RELAY, BYPASS, BOTH = "relay", "bypass", "both"
MECHANISMS: Mapping[str, str] = {
    RELAY: "trusted relays over QCs between neighbours",
    BYPASS: "one QC from end to end, past others if need be",
    BOTH: "relays, or a QC that is lit for the session, whichever takes fewer modules and channels",
}
READY_BYTES = 32  # a key session that waits for a QC to be lit opens when that has made so much: a key of usual size
IDLE_S = 5.0  # a QC that was lit goes dark when no session has used it for so long
_MOST_LOOKED_AT = 64  # candidates, where QCs can be lit


@dataclass(frozen=True, slots=True)
class OnDemand:
    """A QC that can be lit between two nodes, whose light goes past the nodes `past`: a bypass, if there are any.

    `takes`: by name the modules and channels of which it has one each while it is lit.
    """

    qc: str
    a: str
    b: str
    past: tuple[str, ...]
    takes: tuple[str, ...]


Chosen = Path | Refused | None  # None: there is no candidate
Allowed = Callable[[Path], bool]
Order = Callable[[Iterable[Path]], Iterable[Path]]


def anywhere(_path: Path) -> bool:
    """Any path is allowed."""
    return True


def choose(
    candidates: Iterable[Path],
    admit: Callable[[Path], Refused | None],
    beside: Callable[[str, str], Sequence[str]],
    *,
    most: int,
    wanted: Callable[[Path], None] = lambda _: None,
    allowed: Allowed = anywhere,
) -> Chosen:
    """The first of `most` candidates on which the session is admitted; None if there is no candidate.

    If a QC of one is short, those `beside` it, which join the same two nodes, take its place one by one, as far as that
    is allowed; then, if the
    candidate says so, the other end is to pay double. A refusal is that of the first candidate, and names all that were
    tried. `wanted` is told of the first candidate before it is tried.
    """
    first: Refused | None = None
    tried = []
    for number, candidate in enumerate(itertools.islice(candidates, most)):
        if number == 0:
            wanted(candidate)
        for way in candidate.ends():
            path, seen = way, set(way.qcs)
            while (short := admit(path)) is not None:
                first = first or short
                hop = path.qcs.index(short.qc)
                others = (
                    (qc, replace(path, qcs=(*path.qcs[:hop], qc, *path.qcs[hop + 1 :])))
                    for qc in beside(*path.joined_by(hop)) if qc not in seen
                )  # fmt: skip
                found = next(((qc, other) for qc, other in others if allowed(other)), None)
                if found is None:
                    break
                seen.add(found[0])
                path = found[1]
            else:
                return path
        tried.append(candidate.nodes)
    return replace(first, tried=tuple(tried)) if first is not None else None


def choose_or_light(
    over: Callable[[QkdGraph, Order, Allowed, int], Chosen],
    lit: QkdGraph,
    on_demand: Mapping[str, OnDemand],
    dark: Iterable[str],
    *,
    free: Mapping[str, int],
    mechanism: str,
    ends: tuple[str, str],
    shares: Callable[[Path], Sequence[float]],
    most: int,
) -> Chosen:
    """The path of a session between `ends` over QCs that are lit, or that can be, of which some are to be lit then.

    `over` chooses in a graph, of candidates in that order, with what may stand beside a QC that is short, of so many at
    most. `dark`: QCs on demand that are not lit, and not broken. `free`: how many there are to spare of what QCs on
    demand take. `shares`: of the key that each QC of a path makes, what the session needs.
    """
    if not on_demand:
        return over(usable(lit, mechanism, ends, on_demand), lambda candidates: candidates, anywhere, most)
    found = {qc for qc in dark if not lacking(on_demand[qc], free) and {on_demand[qc].a, on_demand[qc].b} <= set(lit)}
    graph: QkdGraph = nx.MultiGraph(lit)
    for qc in sorted(found):
        graph.add_edge(on_demand[qc].a, on_demand[qc].b, key=qc)
    graph = usable(graph, mechanism, ends, on_demand)

    def lit_first(path: Path) -> Path:
        """A QC that is lit makes way for a dark one beside it only when it is short."""
        qcs = (
            next((other for other in sorted(graph[a][b]) if other not in found), qc) if qc in found else qc
            for at, qc in enumerate(path.qcs) for a, b in [path.joined_by(at)]
        )  # fmt: skip
        return replace(path, qcs=tuple(qcs))

    def affordable(path: Path) -> bool:
        taken = Counter(what for qc in path.qcs if qc in found for what in on_demand[qc].takes)
        return all(number <= free[what] for what, number in taken.items())

    def price(path: Path) -> float:
        # What is always lit costs nothing, and be it that nothing is known to come of it.
        priced = ((len(on_demand[qc].takes), share) for qc, share in zip(path.qcs, shares(path), strict=True)
                  if qc in on_demand)  # fmt: skip
        return sum(share * weight for weight, share in priced)

    def cheapest_first(candidates: Iterable[Path]) -> Iterable[Path]:
        some = dict.fromkeys(map(lit_first, itertools.islice(candidates, _MOST_LOOKED_AT)))
        return sorted(filter(affordable, some), key=price)

    return over(graph, cheapest_first, affordable, _MOST_LOOKED_AT)


def lacking(one: OnDemand, free: Mapping[str, int]) -> list[str]:
    """What the QC would take and there is none of to spare."""
    return [what for what in one.takes if free.get(what, 0) <= 0]


def usable(graph: QkdGraph, mechanism: str, ends: tuple[str, str], on_demand: Mapping[str, OnDemand]) -> QkdGraph:
    """What that mechanism leaves of a graph to a session between `ends`."""
    if mechanism == BYPASS:
        return nx.MultiGraph(graph.subgraph(ends))
    if mechanism == BOTH or not on_demand:
        return graph  # as it is: who asks again and again may remember what was found out about it
    left: QkdGraph = nx.MultiGraph(graph)
    for one in on_demand.values():
        if one.past and left.has_edge(one.a, one.b, one.qc):
            left.remove_edge(one.a, one.b, one.qc)
    return left
