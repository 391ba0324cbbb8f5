"""What can be used of a network in virtual time: what is out, which QCs are lit, how many modules are left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import networkx as nx

from decisions.admission import QcView, since_lit
from decisions.choice import IDLE_S, READY_BYTES, OnDemand
from decisions.paths import Path, QkdGraph
from scenario.outages import EVE, NODE, Outage
from scenario.quantum.qc_models import in_a_row, intercepted
from scenario.topology_description import Switched, Topology
from simulation.qcs import Passive

# Seconds for which a node or QC has been down before sessions leave it, as the controller has them.
GRACE_S = 2.0
STEADY_S = 5.0  # for which a node or QC has been up before sessions come back to it, as the controller has it
_GRAPHS = 256  # that are kept, by what is down or dark
Item = tuple[str, str]  # "node" or "QC", and its name


class Network:
    """Nodes and QCs. All are up at first, nobody listens, and all QCs on demand are dark."""

    def __init__(self, topology: Topology) -> None:
        self.on_demand: Mapping[str, OnDemand] = {one.qc: one for one in topology.on_demand()}
        self.free = Counter(dict(topology.spare))  # modules and channels
        self.dead: set[str] = set()  # nodes that are out
        self.passive = Passive({}, 1, GRACE_S)
        self._topology = topology
        self._down: Counter[Item] = Counter()  # what is out, by how many outages
        self._up_since: dict[Item, float] = {}  # of what has been out
        self._models = {qc.name: qc.makes for qc, _, _ in topology.qcs()}
        self._eves: dict[str, list[float]] = {}  # who listens, by QC: the parts that they intercept
        self._switched: Mapping[str, Switched] = {one.qc.name: one for one in topology.switched}
        self._makes_from: dict[str, float] = {}  # of those that are lit: since when they make key
        self._users: Counter[str] = Counter()
        self._dark_at: dict[str, float] = {}  # of those that nobody uses
        self._graphs: dict[frozenset[Item], QkdGraph] = {}

    def switch(self, outage: Outage, change: int, now_s: float) -> Collection[str]:
        """An outage begins (1) or ends (-1); the QCs that it concerns."""
        qcs = outage.qcs(self._topology)
        what: list[Item] = [("QC", qc) for qc in qcs]
        if outage.kind == NODE:
            what.append(("node", outage.name))
        if outage.kind == EVE:  # a QC of which she leaves nothing is as one that is out
            silent = {qc for qc in qcs if not self._left(qc)}
            for qc in qcs:
                eves = self._eves.setdefault(qc, [])
                eves.append(outage.fraction) if change > 0 else eves.remove(outage.fraction)
            what = [("QC", qc) for qc in qcs if (qc in silent) == bool(self._left(qc))]
        self._down.update(dict.fromkeys(what, change))
        self.dead = {name for (kind, name), number in self._down.items() if kind == "node" and number > 0}
        self._up_since |= {item: now_s for item in what if not self._down[item]}
        return qcs

    def eve(self, qc: str) -> float:
        """The part of its pulses that is intercepted."""
        return in_a_row(self._eves.get(qc, ()))

    def _left(self, qc: str) -> float:
        """What it makes in the mean, bytes/s, with those who listen now."""
        return intercepted(self._models[qc], self.eve(qc))[0]

    def is_out(self, kind: str, name: str) -> bool:
        """Whether that node or QC is."""
        return self._down[kind, name] > 0

    def lacking(self, path: Path) -> tuple[str, ...]:
        """What of that path is out, as people are told."""
        items = [*(("node", node) for node in path.nodes), *(("QC", qc) for qc in path.qcs)]
        return tuple(
            f"{kind} {name}" for kind, name in items
            if self.is_out(kind, name) or (kind == "QC" and name in self.passive.qcs)
        )  # fmt: skip

    def makes_key(self, qc: str) -> bool:
        """Whether it does: it is not out, nor dark."""
        return not self.is_out("QC", qc) and (qc not in self.on_demand or qc in self._makes_from)

    def graph(self, besides: Iterable[Item] = ()) -> QkdGraph:
        """What can be used now, as the controller knows it, but for what is named.

        Frozen, so that policies may remember what they found out about it.
        """
        dark = (("QC", qc) for qc in (*self.dark(), *self.passive.qcs))
        key = frozenset(what for what, number in self._down.items() if number > 0).union(besides, dark)
        if key not in self._graphs:
            if len(self._graphs) >= _GRAPHS:
                self._graphs.clear()
            graph: QkdGraph = nx.MultiGraph()
            graph.add_nodes_from(sorted(n.name for n in self._topology.nodes if ("node", n.name) not in key))
            for qc, a, b in sorted((qc.name, a, b) for qc, a, b in self._topology.qcs()):
                if ("QC", qc) not in key and a in graph and b in graph:
                    graph.add_edge(a, b, key=qc)
            self._graphs[key] = nx.freeze(graph)
        return self._graphs[key]

    def steady(self, now_s: float) -> QkdGraph:
        """What can be used now, and could for a while."""
        back = self._up_since | {("QC", qc): since for qc, since in self.passive.since_s.items()}
        return self.graph(item for item, since in back.items() if now_s - since < STEADY_S)

    def dark(self) -> list[str]:
        """The QCs on demand that are not lit."""
        return [qc for qc in self.on_demand if qc not in self._makes_from]

    def can_be_lit(self) -> list[str]:
        """Those of them that are not out."""
        return [qc for qc in self.dark() if not self.is_out("QC", qc)]

    def light(self, qcs: Collection[str], now_s: float, idle_s: float) -> dict[str, float]:
        """Light those of `qcs` that are dark; which they are, and from when on they make key.

        They go dark if nobody uses them for `idle_s` then.
        """
        new = [qc for qc in qcs if qc in self.on_demand and qc not in self._makes_from]
        for qc in new:
            self._makes_from[qc] = now_s + self._switched[qc].setup_s
            self._dark_at[qc] = self._makes_from[qc] + idle_s
            self.free.subtract(self.on_demand[qc].takes)
        return {qc: self._makes_from[qc] for qc in new}

    def ready_s(self, qcs: Iterable[str]) -> float:
        """When all of `qcs` have made enough to begin with."""
        lit = [(self._makes_from[qc], self._switched[qc].qc) for qc in qcs if qc in self._makes_from]
        slots = (math.floor(from_s) + math.ceil(READY_BYTES / qc.mean_bytes_per_slot) for from_s, qc in lit)
        return max(slots, default=-math.inf)

    def use(self, qcs: Iterable[str]) -> None:
        """One session more goes over these."""
        self._users.update(qc for qc in qcs if qc in self.on_demand)

    def leave(self, qcs: Iterable[str], now_s: float) -> dict[str, float]:
        """One session fewer; those on demand that nobody uses any more, and when they go dark if that stays so."""
        mine = [qc for qc in qcs if qc in self.on_demand]
        self._users.subtract(mine)
        idle = dict.fromkeys((qc for qc in mine if not self._users[qc]), now_s + IDLE_S)
        self._dark_at |= idle
        return idle

    def darken(self, qc: str, now_s: float) -> bool:
        """Whether it goes dark now: nobody has used it for long."""
        if qc not in self._makes_from or self._users[qc] or now_s < self._dark_at[qc]:
            return False
        del self._makes_from[qc]
        self.free.update(self.on_demand[qc].takes)
        return True

    def seen(self, view: QcView, now_s: float, slots: int) -> QcView:
        """The view of a QC, as it counts for who chooses."""
        if view.qc not in self.on_demand:
            return view
        lit_slots = math.floor(now_s - self._makes_from.get(view.qc, now_s))
        return since_lit(view, self._switched[view.qc].qc.mean_bytes_per_slot, slots, lit_slots)
