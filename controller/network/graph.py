"""The QKD network as the agents show it: nodes, QCs, and how the QCs fared in the last slots. Thread-safe.

A QC is part of the graph once the nodes at both its ends have the physical link that it feeds. Both ends report what it
generated, and any node may report requests to it, because a multi-hop key asks all QCs of its path from its first node.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import networkx as nx

from controller import limits
from controller.network.nodes import Agent, Link, LinkEnd, Node, Report
from controller.network.reported_slots import Entry, Window
from decisions.admission import Need, QcView, believed
from decisions.paths import RELAYS, Path
from etsi import gs015
from ietf.yang import Refusal

_MAX_STORED_BYTES = 1 << 50


class Graph:
    """All nodes and QCs.

    For running sessions a node or QC is down when it has been for `grace_s`: a stumble moves nobody. `now` gives
    seconds that only grow.
    """

    def __init__(self, grace_s: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        # Reentrant: who chooses and admits holds it over several calls, so that nobody else does meanwhile.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # what is known of nodes and QCs has
        self._nodes: dict[str, Node] = {}
        self._windows: dict[str, dict[str, Window]] = {}
        self._links: dict[str, Link] = {}
        self._grace_s = grace_s
        self.now = now
        self._begun = now()
        # Whether each node and QC is up, and since when.
        self._up: dict[tuple[str, str], tuple[bool, float]] = {}

    def put(self, agent: Agent, document: Mapping[str, Any], names: Mapping[int, str], *, extended: bool) -> None:
        """Take over what a node shows; `names`: of QCs, by the number of their interface. Refusal if that is too much.

        The node's ID is to be its own (controller/network/identities.py).
        """
        found = {
            link["qkdl_id"]: _end(link, names)
            for link in document.get("qkd_links", {}).get("qkd_link", [])
            if link.get("qkdl_type") == gs015.PHYS
        }
        if len(found) > limits.LINKS_OF_ONE:
            raise Refusal("too-big", f"expected at most {limits.LINKS_OF_ONE} physical links", path=f"/{gs015.NODE}")
        with self.lock:
            old = self._nodes.get(agent.name)
            slot = old.slot if old is not None else 0
            relays = document.get("qkdn_capabilities", {}).get("key_relay_mode_enable", True)
            self._nodes[agent.name] = Node(agent, document["qkdn_id"], found, extended, slot=slot, relays=relays)
            self._take_note()

    def set_enabled(self, name: str, link_id: str, *, enabled: bool) -> None:
        """A link is to generate, as far as that node is concerned, or to stop."""
        with self.lock:
            links = self._nodes[name].links if name in self._nodes else {}
            if link_id in links:
                links[link_id] = replace(links[link_id], enabled=enabled)
                self._take_note()

    def set_link(self, name: str, link_id: str, end: LinkEnd | None) -> None:
        """A node has a physical link from now on, or none any more."""
        with self.lock:
            if name in self._nodes:
                links = self._nodes[name].links
                self._nodes[name].links = {k: v for k, v in links.items() if k != link_id} | (
                    {link_id: end} if end is not None else {}
                )
                self._take_note()

    def links_of(self, name: str) -> Mapping[str, LinkEnd]:
        """The physical links that a node shows, by ID."""
        with self.lock:
            return self._nodes[name].links if name in self._nodes else {}

    def shown(self) -> set[str]:
        """The IDs of all physical links that any node shows."""
        with self.lock:
            return {link_id for node in self._nodes.values() for link_id in node.links}

    def lost(self, name: str) -> None:
        """A node's agent cannot be reached for now."""
        with self.lock:
            if name in self._nodes:
                self._nodes[name].reachable = False
                self._take_note()

    def remove(self, name: str) -> None:
        """A node is no longer part of the network."""
        with self.lock:
            self._nodes.pop(name, None)
            for windows in self._windows.values():
                windows.pop(name, None)
            self._take_note()

    def report(
        self,
        name: str,
        slot: int,
        reports: Iterable[Report],
        *,
        since: int | None = None,
        needs: Callable[[], Mapping[str, Need]] = dict,
    ) -> None:
        """Take in a node's figures of a slot, or of all slots behind `since` up to it.

        A node has a word on the QCs that end there, and on what is asked of those that its sessions have declared to
        need: `needs` finds these. The rest is ignored. No figure counts for more than a QC can make.
        """
        first = slot - 1 if since is None else min(since, slot - 1)
        most = limits.MAX_BYTES_A_SLOT * (slot - first)
        with self.lock:
            node = self._nodes.get(name)
            if node is None:
                return
            node.slot = slot
            needed: Mapping[str, Need] | None = None
            for r in reports:
                link = self._links.get(r.qc)
                if link is None:
                    continue
                own, need = name in link.ends, Need(0, 0)
                if not own:
                    needed = needs() if needed is None else needed
                    if r.qc not in needed:
                        continue
                    need = needed[r.qc]
                window = self._windows.setdefault(r.qc, {}).setdefault(name, Window())
                entry = Entry(
                    first, slot,
                    generated=min(r.generated_bytes, most) if own else 0,
                    requested=min(r.requested_bytes, most),
                    used=min(r.used_bytes, most) if own else 0,
                    declared=math.ceil(need.per_slot * (slot - first)),
                    at_once=need.at_once,
                )  # fmt: skip
                window.take(entry, self.now())
                if own and r.stored_bytes is not None:
                    window.stored_bytes = min(r.stored_bytes, _MAX_STORED_BYTES)
            self.changed.notify_all()

    def nodes(self) -> dict[str, Node]:
        """All nodes by name."""
        with self.lock:
            return dict(sorted(self._nodes.items()))

    def reachable(self, names: Iterable[str]) -> dict[str, Node]:
        """Those of `names` whose agents can be reached."""
        with self.lock:
            return {n: self._nodes[n] for n in names if n in self._nodes and self._nodes[n].reachable}

    def links(self) -> dict[str, Link]:
        """All QCs that both ends show, by name."""
        with self.lock:
            return dict(sorted(self._links.items()))

    def topology(self, steady_s: float = 0.0, *, at: float | None = None) -> nx.MultiGraph[str]:
        """A new multigraph of what can be used at that moment (None: now), and could for `steady_s`: nodes by name,
        edges keyed by QC.
        """
        with self.lock:
            at = self.now() if at is None else at
            graph: nx.MultiGraph[str] = nx.MultiGraph()
            graph.add_nodes_from(sorted(n for n in self._nodes if self._is_up("node", n, at, steady_s)))
            for qc, link in sorted(self._links.items()):
                usable = self._is_up("QC", qc, at, steady_s) if steady_s else not self._is_gone("QC", qc, at)
                if link.enabled and usable and link.a in graph and link.b in graph:
                    graph.add_edge(link.a, link.b, key=qc)
            nx.set_node_attributes(graph, {n: self._nodes[n].relays for n in graph}, RELAYS)
            return graph

    def lacking(self, path: Path, *, at: float | None = None) -> tuple[str, ...]:
        """What of a path has been down for a while at that moment (None: now), such as "node b" or "QC a-b/1"."""
        with self.lock:
            at = self.now() if at is None else at
            nodes = {n for n in path.nodes if self._is_gone("node", n, at)}
            # That the QCs of a node that is down are of no use goes without saying.
            qcs = [
                qc for place, qc in enumerate(path.qcs)
                if nodes.isdisjoint(path.joined_by(place)) and self._is_gone("QC", qc, at)
            ]  # fmt: skip
            return (*(f"node {n}" for n in path.nodes if n in nodes), *(f"QC {qc}" for qc in qcs))

    def down(self) -> tuple[str, ...]:
        """All that no new session can use now."""
        with self.lock:
            graph = self.topology()
            nodes = [n for n in sorted(self._nodes) if n not in graph]
            used = {qc for _, _, qc in graph.edges(keys=True)}
            qcs = [qc for qc, link in sorted(self._links.items()) if qc not in used and not set(nodes) & {*link.ends}]
            return (*(f"node {n}" for n in nodes), *(f"QC {qc}" for qc in qcs))

    def _take_note(self) -> None:
        """Nodes or links have changed."""
        self._links = self._named(self._joined())
        found = {("node", name): node.reachable for name, node in self._nodes.items()}
        found |= {("QC", qc): link.live for qc, link in self._links.items()}
        now = self.now()
        unknown = (None, now)
        self._up = {k: (up, since if was is up else now) for k, up in found.items()
                    for was, since in [self._up.get(k, unknown)]}  # fmt: skip
        self.changed.notify_all()

    def _is_up(self, kind: str, name: str, at: float, steady_s: float) -> bool:
        up, since = self._up.get((kind, name), (False, self._begun))
        return up and at - since >= steady_s

    def _is_gone(self, kind: str, name: str, at: float) -> bool:
        """Whether it has been down for a while; what was never seen has been since we look."""
        up, since = self._up.get((kind, name), (False, self._begun))
        return not up and at - since >= self._grace_s

    def views(self, qcs: Sequence[str], slots: int) -> list[QcView]:
        """How each of `qcs` fared over the last `slots` slots."""
        with self.lock:
            return [self._view(qc, self._links[qc].ends if qc in self._links else (), slots) for qc in qcs]

    def _joined(self) -> list[Link]:
        ids = {node.qkdn_id: name for name, node in self._nodes.items()}
        found = []
        for name, node in self._nodes.items():
            for key, end in node.links.items():
                peer = ids.get(end.remote)
                if peer is None or name >= peer:
                    continue
                other = self._nodes[peer].links.get(key)
                if other is not None and other.remote == node.qkdn_id:
                    ends = node.shown(end), self._nodes[peer].shown(other)
                    names = {end.qc, other.qc} - {None}
                    # One end may know only the standard, which has no names; two that differ are none.
                    found.append(Link(str(names.pop()) if len(names) == 1 else key, key, name, peer, *ends))
        return found

    def _named(self, joined: Iterable[Link]) -> dict[str, Link]:
        """Links by QC. No node takes its name from a QC on which both ends agree: what comes second goes by its ID."""

        def rank(link: Link) -> tuple[bool, bool]:
            before = self._links.get(link.qc)
            has_it = before is not None and (before.link_id, before.ends) == (link.link_id, link.ends)
            return link.end_a.qc != link.end_b.qc, not has_it

        found: dict[str, Link] = {}
        for link in sorted(joined, key=rank):
            qc = link.link_id if link.qc in found else link.qc
            found.setdefault(qc, replace(link, qc=qc))
        return found

    def _view(self, qc: str, ends: Sequence[str], slots: int) -> QcView:
        windows, now = self._windows.get(qc, {}), self.now()
        recent = {name: window.recent(slots, now) for name, window in windows.items()}
        own = [recent[name] for name in ends if name in recent]
        # Both ends saw the same blocks; one that started later, or lost some, saw fewer.
        generated = max((r.total(lambda e: e.generated) for r in own), default=Fraction(0))
        requested = believed(
            sum((r.total(lambda e: e.requested) for r in own), start=Fraction(0)),
            [found.claim() for name, found in recent.items() if name not in ends],
            used=max((r.total(lambda e: e.used) for r in own), default=Fraction(0)),
        )
        stored = min((windows[name].stored_bytes for name in ends if name in windows), default=0)
        if not all(self._nodes[name].reachable for name in ends):
            stored = 0  # of no use to anybody
        reported = max((r.reported for r in own), default=0)
        by_slot = max((r.by_slot() for r in own), key=sum, default=[])
        return QcView(qc, math.floor(generated), math.ceil(requested), stored, reported, by_slot=by_slot)


def _end(link: Mapping[str, Any], names: Mapping[int, str]) -> LinkEnd:
    performance = link.get("qkdl_performance", {})
    qber = next((p.get("value") for p in performance.get("phys_perf", []) if p["perf_type"] == gs015.QBER), None)
    return LinkEnd(
        remote=link.get("qkdl_remote", {}).get("qkdn_id", ""),
        qc=names.get(link.get("qkdl_local", {}).get("qkdi_id", 0)),
        enabled=link.get("qkdl_enable", True),
        status=link.get("qkdl_status", gs015.PENDING),
        skr=performance.get("skr", 0),
        eskr=performance.get("eskr", 0),
        expected_consumption=performance.get("expected_consumption", 0),
        qber_percent=qber,
    )
