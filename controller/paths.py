"""Paths of trusted relays through the QKD network: policies as a table. PURE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
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


PathPolicy = Callable[[QkdGraph, str, str], Path | None]


def shortest(graph: QkdGraph, source: str, target: str) -> Path | None:
    """Fewest hops. Ties fall to the first node by name and to the first QC of a hop; None if there is no way."""
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
    qcs = [min(graph[a][b]) for a, b in itertools.pairwise(nodes)]
    return Path(tuple(nodes), tuple(qcs))


PATH_POLICIES: Mapping[str, PathPolicy] = {"shortest": shortest}
