"""Paths of trusted relays through the QKD network: policies as a table; and when a session leaves its path. PURE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import networkx as nx

from decisions.admission import QcView

# Nodes by name, one edge a QC, keyed by the QC's name.
QkdGraph: TypeAlias = "nx.MultiGraph[str]"
RELAYS = "relays"  # a node's attribute: false if it may be a path's end at most
_HOPS = "hops"  # of a frozen graph: what was found out about it
_MOST_CLAIMED = 0.999


@dataclass(frozen=True, slots=True)
class Path:
    """The nodes from the master's to the slave's, and for each hop the QC to take: one fewer.

    `double_at_last`: where a mode takes more of one end's QC than of the others, that is the slave's end. `either_end`:
    it may be the other end as well, if that one is short.
    """

    nodes: tuple[str, ...]
    qcs: tuple[str, ...]
    double_at_last: bool = False
    either_end: bool = False

    def ends(self) -> Iterator[Path]:
        """The path as it is, and with the other end to pay double if that may be; each for good."""
        here = replace(self, either_end=False)
        yield here
        if self.either_end:
            yield replace(here, double_at_last=not self.double_at_last)


View = Callable[[str], QcView]  # how a QC fares
PathPolicy = Callable[[QkdGraph, str, str, View], Iterable[Path]]  # paths between two nodes, the best first


def shortest(graph: QkdGraph, source: str, target: str, view: View) -> Iterator[Path]:
    """Fewest hops, and over each the QC of most merit. The master's end pays double, as in the paper.

    Ties for the first place fall to the first by name, among nodes and among QCs.
    """
    hops = _hops(graph, target)
    if source in hops:
        nodes = [source]
        while nodes[-1] != target:
            nodes.append(min(_next(graph, hops, nodes[-1], target)))
        yield from _and_longer(graph, tuple(nodes), view)


def widest_shortest(graph: QkdGraph, source: str, target: str, view: View) -> Iterator[Path]:
    """Of the paths of fewest hops the one whose poorest QC has the most bytes a slot that nobody claims, then others.

    Proved to carry half of the optimum at least, of sessions that come one by one (arXiv 2508.09735). Of each path the
    end of more merit is to pay double, or else the other one.
    """
    hops = _hops(graph, target)
    if source not in hops:
        return
    layers = [[source]]
    while target not in layers[-1]:
        layers.append(sorted({n for here in layers[-1] for n in _next(graph, hops, here, target)}))
    widths, onwards = {target: math.inf}, dict[str, str]()
    for here in itertools.chain.from_iterable(reversed(layers[:-1])):
        ways = {
            n: min(widths[n], view(_best(graph[here][n], view)).merit[0]) for n in _next(graph, hops, here, target)
        }
        onwards[here] = min(ways, key=lambda n: (-ways[n], n))
        widths[here] = ways[onwards[here]]
    nodes = [source]
    while nodes[-1] != target:
        nodes.append(onwards[nodes[-1]])
    for path in _and_longer(graph, tuple(nodes), view):
        yield _at_either_end(path, view)


def least_backlog(graph: QkdGraph, source: str, target: str, view: View) -> Iterator[Path]:
    """A hop is as long as what waits for its QC: 1 and, where the share r of its bytes is claimed, r/(1 - r).

    That is how many wait on average in a queue with one server; in the manner of TQD (arXiv 2109.07934), which
    measures queues. Of each path the end of more merit is to pay double, or else the other one.
    """
    if _hops(graph, target).get(source) is not None:
        simple = _simple(graph, source, target)
        for a, b in simple.edges:
            claimed = min(_MOST_CLAIMED, view(_best(graph[a][b], view)).claimed_share)
            simple.edges[a, b]["weight"] = 1 + claimed / (1 - claimed)
        for nodes in nx.shortest_simple_paths(simple, source, target, weight="weight"):
            yield _at_either_end(_over(graph, nodes, view), view)


PATH_POLICIES: dict[str, PathPolicy] = {
    "shortest": shortest, "widest-shortest": widest_shortest, "backlog": least_backlog,
}  # fmt: skip


def _hops(graph: QkdGraph, target: str) -> Mapping[str, int]:
    """How many hops each node is from `target`, by way of relays. Remembered for a frozen graph."""
    known: dict[str, dict[str, int]] = graph.graph.setdefault(_HOPS, {}) if nx.is_frozen(graph) else {}
    found = known.get(target)
    if found is None:
        found = known[target] = {target: 0} if target in graph else {}
        reached = list(found)
        while reached:
            outer = []
            for here in reached:
                if here == target or _is_relay(graph, here):
                    for node in graph.adj[here]:
                        if node not in found:
                            found[node] = found[here] + 1
                            outer.append(node)
            reached = outer
    return found


def _next(graph: QkdGraph, hops: Mapping[str, int], here: str, target: str) -> list[str]:
    """The nodes that are one hop nearer to `target`."""
    nearer = hops[here] - 1
    return [n for n in graph.adj[here] if hops.get(n) == nearer and (n == target or _is_relay(graph, n))]


def _is_relay(graph: QkdGraph, node: str) -> bool:
    return bool(graph.nodes[node].get(RELAYS, True))


def _and_longer(graph: QkdGraph, first: Sequence[str], view: View) -> Iterator[Path]:
    """The path along those nodes, then the others by their hops, found only as they are asked for."""
    yield _over(graph, first, view)
    for nodes in nx.shortest_simple_paths(_simple(graph, first[0], first[-1]), first[0], first[-1]):
        if tuple(nodes) != first:
            yield _over(graph, nodes, view)


def _simple(graph: QkdGraph, source: str, target: str) -> nx.Graph[str]:
    """The graph with one edge a pair of nodes, without those that would have to relay and do not; in order of names."""
    found: nx.Graph[str] = nx.Graph()
    found.add_nodes_from(sorted(n for n in graph if n in (source, target) or _is_relay(graph, n)))
    found.add_edges_from(sorted((min(a, b), max(a, b)) for a, b in graph.edges() if a in found and b in found))
    return found


def _over(graph: QkdGraph, nodes: Sequence[str], view: View) -> Path:
    return Path(tuple(nodes), tuple(_best(graph[a][b], view) for a, b in itertools.pairwise(nodes)))


def _at_either_end(path: Path, view: View) -> Path:
    """The path with the end to pay double whose QC has more merit, the master's if neither has."""
    if len(path.qcs) == 1:
        return path
    return replace(path, double_at_last=view(path.qcs[-1]).merit > view(path.qcs[0]).merit, either_end=True)


def _best(qcs: Collection[str], view: View) -> str:
    """The QC of most merit; nobody looks at one that has no other beside it."""
    return min(qcs) if len(qcs) == 1 else max(sorted(qcs), key=lambda qc: view(qc).merit)


Way = Callable[[QkdGraph, str, str], Path | None]  # from one node to another


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where to go, None to stay; `down` is what the present path lacks. A session that has nowhere to go waits."""

    path: Path | None
    down: Sequence[str] = ()


def judge(path: Path, down: Sequence[str], usable: QkdGraph, steady: QkdGraph, way: Way) -> Verdict:
    """The verdict on a session on `path`, of which `down` is down.

    `usable`: what can carry keys now; `steady`: what has been able to for a while. A session whose path died takes any
    other way, and be it over another QC of the same fibre. One that has a way leaves it only for a shorter one that is
    steady: keys over more links cost more.
    """
    if down:
        return Verdict(way(usable, path.nodes[0], path.nodes[-1]), down)
    if len(path.qcs) == 1:
        return Verdict(None)
    better = way(steady, path.nodes[0], path.nodes[-1])
    return Verdict(better if better is not None and len(better.qcs) < len(path.qcs) else None)
