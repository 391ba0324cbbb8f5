"""The QKD network as the agents report it: nodes, QCs, and how the QCs fared in the last slots. Thread-safe.

A QC is part of the graph once the nodes at both its ends have announced it. Both ends report what it generated, and
any node may report requests to it, because a multi-hop key asks all QCs of its path from its first node.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import networkx as nx

from controller.admission import QcView

# What is kept of each QC: no TTL that makes sense for key material is longer.
_KEPT_SLOTS = 3600


class UnknownNode(LookupError):
    """A node that has not registered (with this controller, since it started)."""


@dataclass(slots=True)
class Node:
    """A registered node: its agent's URL, the QCs that it announced with the node at the other end, its last slot."""

    agent_url: str
    links: dict[str, str]
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What one node says of one QC for one slot, in bytes."""

    qc: str
    generated_bytes: int
    requested_bytes: int
    stored_bytes: int


@dataclass(slots=True)
class _Window:
    """One reporter's (slot, generated, requested) of the last slots, and the stock it has now."""

    entries: collections.deque[tuple[int, int, int]] = field(
        default_factory=lambda: collections.deque(maxlen=_KEPT_SLOTS)
    )
    stored_bytes: int = 0


class Graph:
    """All nodes and QCs."""

    def __init__(self) -> None:
        # Reentrant: who chooses and admits holds it over several calls, so that nobody else does meanwhile.
        self.lock = threading.RLock()
        self._nodes: dict[str, Node] = {}
        self._windows: dict[str, dict[str, _Window]] = {}
        self._rates: dict[str, tuple[int, int]] = {}

    def register(self, name: str, agent_url: str, links: dict[str, str]) -> None:
        """Add a node, or take over what it says now."""
        with self.lock:
            self._nodes[name] = Node(agent_url, links)

    def report(self, name: str, slot: int, reports: Iterable[Report]) -> None:
        """Take in a node's status of a slot; UnknownNode."""
        with self.lock:
            node = self._nodes.get(name)
            if node is None:
                raise UnknownNode(name)
            node.slot = slot
            for r in reports:
                window = self._windows.setdefault(r.qc, {}).setdefault(name, _Window())
                window.entries.append((slot, r.generated_bytes, r.requested_bytes))
                window.stored_bytes = r.stored_bytes

    def node(self, name: str) -> Node:
        """That node; UnknownNode."""
        with self.lock:
            if name not in self._nodes:
                raise UnknownNode(name)
            return self._nodes[name]

    def nodes(self) -> dict[str, int]:
        """All nodes with the slot of their last report."""
        with self.lock:
            return {name: node.slot for name, node in sorted(self._nodes.items())}

    def qcs(self) -> dict[str, tuple[str, str]]:
        """All QCs that both ends announced, with their ends."""
        with self.lock:
            return {
                qc: (min(name, peer), max(name, peer))
                for name, node in sorted(self._nodes.items())
                for qc, peer in sorted(node.links.items())
                if peer in self._nodes and self._nodes[peer].links.get(qc) == name
            }

    def topology(self) -> nx.MultiGraph[str]:
        """A new multigraph: nodes by name, edges keyed by QC."""
        with self.lock:
            graph: nx.MultiGraph[str] = nx.MultiGraph()
            graph.add_nodes_from(sorted(self._nodes))
            for qc, (a, b) in self.qcs().items():
                graph.add_edge(a, b, key=qc)
            return graph

    def views(self, qcs: Sequence[str], slots: int) -> list[QcView]:
        """How each of `qcs` fared over the last `slots` slots."""
        with self.lock:
            ends = self.qcs()
            return [self._view(qc, ends.get(qc, ()), slots) for qc in qcs]

    def set_rate(self, qc: str, low: int, high: int) -> bool:
        """Want a rate of a QC, in bytes a slot; False if there is no such QC."""
        with self.lock:
            if qc not in self.qcs():
                return False
            self.want_rate(qc, low, high)
            return True

    def want_rate(self, qc: str, low: int, high: int) -> None:
        """Want a rate of a QC that may not be known yet."""
        with self.lock:
            self._rates[qc] = low, high

    def rates_at(self, node: str) -> dict[str, list[int]]:
        """The rates wanted of that node's QCs."""
        with self.lock:
            return {qc: list(self._rates[qc]) for qc in self._nodes[node].links if qc in self._rates}

    def _view(self, qc: str, ends: Sequence[str], slots: int) -> QcView:
        windows = self._windows.get(qc, {})
        newest = max((w.entries[-1][0] for w in windows.values() if w.entries), default=0)
        recent = {
            name: [e for e in w.entries if e[0] > newest - slots] for name, w in windows.items()
        }
        # Both ends saw the same blocks; one that started later, or lost some, saw fewer.
        generated = max((sum(g for _, g, _ in recent[name]) for name in ends if name in recent), default=0)
        requested = sum(r for entries in recent.values() for _, _, r in entries)
        stored = min((windows[name].stored_bytes for name in ends if name in windows), default=0)
        seen = {slot for entries in recent.values() for slot, _, _ in entries}
        return QcView(qc, generated, requested, stored, len(seen))
