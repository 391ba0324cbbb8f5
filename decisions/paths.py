"""Paths of trusted relays through the QKD network: policies as a table; and when a session leaves its path. PURE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar

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

    `hops`: if it is not empty, this is several node-disjoint paths, of so many QCs each. Then the nodes are the first
    one, those between of one path after the other, and the last one; and the QCs are those of one path after the other.
    """

    nodes: tuple[str, ...]
    qcs: tuple[str, ...]
    double_at_last: bool = False
    either_end: bool = False
    hops: tuple[int, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Each of several paths, from the first node to the last one; else this one alone."""
        found, node, qc = [], 1, 0
        for n in self.hops:
            between = self.nodes[node : node + n - 1]
            found.append(Path((self.nodes[0], *between, self.nodes[-1]), self.qcs[qc : qc + n]))
            node, qc = node + n - 1, qc + n
        return tuple(found) or (self,)

    def within(self, qcs: Collection[str]) -> Path:
        """It over those of several paths alone whose QCs are all among these."""
        left = [path for path in self.paths if all(qc in qcs for qc in path.qcs)]
        return self if len(left) == len(self.paths) else several(left)

    def joined_by(self, place: int) -> tuple[str, str]:
        """The two nodes that the QC of that place joins."""
        for path in self.paths:
            if place < len(path.qcs):
                return path.nodes[place], path.nodes[place + 1]
            place -= len(path.qcs)
        raise IndexError(place)

    def ends(self) -> Iterator[Path]:
        """The path as it is, and with the other end to pay double if that may be; each for good."""
        here = replace(self, either_end=False)
        yield here
        if self.either_end:
            yield replace(here, double_at_last=not self.double_at_last)


def several(paths: Sequence[Path]) -> Path:
    """Node-disjoint paths between the same two nodes as one."""
    between = (node for path in paths for node in path.nodes[1:-1])
    first, last = paths[0].nodes[0], paths[0].nodes[-1]
    qcs = tuple(qc for path in paths for qc in path.qcs)
    return Path((first, *between, last), qcs, hops=tuple(len(path.qcs) for path in paths))


class _OverQcs(Protocol):
    @property
    def qcs(self) -> tuple[str, ...]: ...


AnyPath = TypeVar("AnyPath", bound=_OverQcs)


def left_without(paths: Sequence[AnyPath], qc: str, enough: int) -> list[AnyPath]:
    """Those of several paths that do without that QC, which is short; none if they are not enough, or are all."""
    left = [path for path in paths if qc not in path.qcs]
    return left if enough <= len(left) < len(paths) else []


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


def disjoint(policy: PathPolicy, number: int) -> PathPolicy:
    """A policy that takes so many node-disjoint paths at once, where the one given takes a single one.

    First the best of that policy one after the other, each without the nodes between of those before it. As these may
    bar one another's way, then those that have the fewest links in all.
    """
    if number == 1:
        return policy

    def together(graph: QkdGraph, source: str, target: str, view: View) -> Iterator[Path]:
        one_by_one = list(itertools.islice(_one_by_one(policy, graph, source, target, view), number))
        if len(one_by_one) == number:
            yield several(one_by_one)
        fewest = fewest_links(graph, source, target, number)
        if len(fewest) == number and [path.nodes for path in one_by_one] != fewest:
            yield several([_over(graph, nodes, view) for nodes in fewest])

    return together


def _one_by_one(policy: PathPolicy, graph: QkdGraph, source: str, target: str, view: View) -> Iterator[Path]:
    rest = graph.copy()
    while (path := next(iter(policy(rest, source, target, view)), None)) is not None:
        yield replace(path, double_at_last=False, either_end=False)
        if len(path.qcs) == 1:
            for qc in list(rest[source][target]):
                rest.remove_edge(source, target, key=qc)
        else:
            rest.remove_nodes_from(path.nodes[1:-1])


def fewest_links(graph: QkdGraph, source: str, target: str, most: int) -> list[tuple[str, ...]]:
    """Node-disjoint paths, as nodes, that have the fewest links in all; as many as there are, and at most `most`.

    After Bhandari (Survivable Networks, 1999): the shortest path again and again, where links that an earlier one takes
    can only be gone back, which gives the earlier one another way. A node between is an arc from its entry to its exit,
    so that only one path takes it.
    """
    simple = _simple(graph, source, target)
    if source not in simple or target not in simple:
        return []
    arcs: nx.DiGraph[tuple[str, bool]] = nx.DiGraph()  # a node's entry is (node, False), its exit (node, True)
    for node in simple:
        arcs.add_edge((node, False), (node, True), cost=0)
    for a, b in simple.edges:
        arcs.add_edge((a, True), (b, False), cost=1)
        arcs.add_edge((b, True), (a, False), cost=1)
    taken: set[tuple[tuple[str, bool], tuple[str, bool]]] = set()
    for _ in range(most):
        try:
            way = nx.bellman_ford_path(arcs, (source, True), (target, False), weight="cost")
        except nx.NetworkXNoPath:
            break
        for arc in itertools.pairwise(way):
            cost = arcs.edges[arc]["cost"]
            arcs.remove_edge(*arc)
            if arc[::-1] in taken:  # back along an earlier path, which does not take it any more
                taken.remove(arc[::-1])
                arcs.add_edge(*arc[::-1], cost=-cost)
            else:
                taken.add(arc)
                arcs.add_edge(*arc[::-1], cost=-cost)
    onward = {a[0]: b[0] for a, b in sorted(taken, reverse=True) if a[1] and a[0] != source}
    starts = sorted(b[0] for a, b in taken if a == (source, True))
    found = []
    for node in starts:
        nodes = [source, node]
        while nodes[-1] != target:
            nodes.append(onward[nodes[-1]])
        found.append(tuple(nodes))
    return sorted(found, key=lambda nodes: (len(nodes), nodes))


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


def judge(
    path: Path, down: Sequence[str], usable: QkdGraph, steady: QkdGraph, way: Way, *, number: int = 1, enough: int = 1
) -> Verdict:
    """The verdict on a session on `path`, of which `down` is down, such as "node b" or "QC a-b/1".

    `usable`: what can carry keys now; `steady`: what has been able to for a while. A session whose path died takes any
    other way, and be it over another QC of the same fibre. One that has a way leaves it only for a shorter one that is
    steady: keys over more links cost more. The mode takes `number` node-disjoint paths, and `enough` of them will do.
    """
    ends = path.nodes[0], path.nodes[-1]
    if len(path.paths) != number:  # the mode is another one now
        lacking = (f"path {i} of {number}" for i in range(len(path.paths) + 1, number + 1))
        return Verdict(way(usable, *ends), (*down, *lacking))
    if down:
        hit = sum(any(what in down for what in _parts(one)) for one in path.paths)
        return Verdict(way(usable, *ends), () if number > 1 and number - hit >= enough else down)
    if len(path.qcs) == 1:
        return Verdict(None)
    better = way(steady, *ends)
    return Verdict(better if better is not None and len(better.qcs) < len(path.qcs) else None)


def _parts(path: Path) -> Iterator[str]:
    """All that it needs, as it is called when it is down."""
    yield from (f"node {node}" for node in path.nodes)
    yield from (f"QC {qc}" for qc in path.qcs)
