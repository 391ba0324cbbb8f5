"""Paths of trusted relays through the QKD network: policies as a table; and when a session leaves its path. PURE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import networkx as nx

# Nodes by name, one edge a QC, keyed by the QC's name.
QkdGraph: TypeAlias = "nx.MultiGraph[str]"
RELAYS = "relays"  # a node's attribute: false if it may be a path's end at most


@dataclass(frozen=True, slots=True)
class Path:
    """The nodes from the master's to the slave's, and for each hop the QC to take: one fewer."""

    nodes: tuple[str, ...]
    qcs: tuple[str, ...]


# How good a QC is for one more session: of several between the same nodes the one that compares highest is taken.
Merit = Callable[[str], tuple[float, ...]]
PathPolicy = Callable[[QkdGraph, str, str, Merit], Path | None]


def shortest(graph: QkdGraph, source: str, target: str, merit: Merit) -> Path | None:
    """Fewest hops, and over each the QC of most merit. None if there is no way.

    Ties fall to the first by name, among nodes and among QCs.
    """
    if source not in graph or target not in graph:
        return None
    usable = nx.subgraph_view(graph, filter_node=lambda n: n in (source, target) or graph.nodes[n].get(RELAYS, True))
    hops = nx.single_source_shortest_path_length(usable, target)
    if source not in hops:
        return None
    nodes = [source]
    while nodes[-1] != target:
        here = nodes[-1]
        nodes.append(min(n for n in usable.neighbors(here) if hops.get(n) == hops[here] - 1))
    return Path(tuple(nodes), tuple(_best(graph[a][b], merit) for a, b in itertools.pairwise(nodes)))


def _best(qcs: Collection[str], merit: Merit) -> str:
    """Nobody asks what a QC is worth that has no other beside it."""
    return min(qcs) if len(qcs) == 1 else max(sorted(qcs), key=merit)


PATH_POLICIES: Mapping[str, PathPolicy] = {"shortest": shortest}


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
