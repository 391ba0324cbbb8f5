"""A scenario in virtual time: key sessions that come and go, ask for keys, are refused, move.

Every choice is a function of `decisions`, the one that nodes and controller call or that the shared database is checked
against: which path, whether it is admitted, how many keys to make at once, which bytes they are made of, when the next
one is asked for, whether a session goes on after a key error, whether it moves. What there is not is time on the way:
messages arrive as they are sent, and nothing is ever busy.

Theory of operation. Events wait in a heap by their time; two of one time come in the order in which they were put
there. An event is the arrival of a session, a request of one for a key, its end, an outage's beginning or end, or a
look at the sessions that an outage concerns. A QC knows nothing of time: who asks it says what time it is, and it makes
up what it made since it was asked last. So nothing is done for a QC that nobody asks, and the cost of a request is that
of its hops.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import networkx as nx

from decisions.admission import ADMISSION_POLICIES, ALTERNATIVES, Demand, Refused, window_slots
from decisions.calendar import Draw, Wanted
from decisions.choice import choose
from decisions.modes import MODES, ahead
from decisions.paths import PATH_POLICIES, Path, QkdGraph, disjoint, fewest_links, judge, left_without
from decisions.ranges import Range, Shortage, allocate, promised_slots
from decisions.rekey import APPLICATION, Pace, goes_on, next_due
from documents.plugged import PluggedFailed
from scenario.outages import NODE, Outage
from scenario.scenario import Scenario
from scenario.topology_description import Qc
from simulation.qcs import QcState
from simulation.sessions import Result, Session, Witness
from simulation.supply import EachSlot, Modelled, Supply, Uniform

# Seconds for which a node or QC has been down before sessions leave it, up before they come back, and between two tries
# to move one, as the controller has them.
GRACE_S, STEADY_S, AGAIN_S = 2.0, 5.0, 3.0
NO_PATH, REFUSED, SHORT, PATH_DOWN, NODE_DOWN = "no_path", "refused", "short_of_material", "path_down", "node_down"
POLICY_FAILED, TOO_FEW_PATHS = "policy_failed", "too_few_paths"
_MOST_AT_ONCE = 128  # keys a request that a KME serves, unless its topology says otherwise
_EVENTS_A_LOOK = 20_000


class Simulation:
    """One run of `scenario`; `supplies`: what QCs make, where that is known, by name; `asks`: when sessions ask for
    keys, where that is known, by their number among the arrivals.

    `qcs` are its QCs, `witness` is told of all that happens, and `now_s` is the virtual time.
    """

    def __init__(
        self,
        scenario: Scenario,
        supplies: Mapping[str, Supply] | None = None,
        asks: Mapping[int, Sequence[float]] | None = None,
    ) -> None:
        self.scenario = scenario
        self._asks = asks or {}
        self.witness: Witness | None = None
        self.now_s = 0.0
        self._ttl_slots: int = scenario.parameter("ttl_slots")
        self._promised_s = promised_slots(self._ttl_slots)
        self._mode = MODES[scenario.parameter("mode")]
        self._keys_ahead: int = scenario.parameter("keys_ahead")
        self._admission: str = scenario.parameter("admission")
        self._policy = disjoint(PATH_POLICIES[scenario.parameter("path_policy")], self._mode.paths)
        self._most_paths = ALTERNATIVES.get(self._admission, 1)
        self._window = window_slots(self._admission, self._ttl_slots)
        self.qcs = self._make_qcs(supplies or {})
        self._wanted = Wanted()
        self._down: Counter[tuple[str, str]] = Counter()  # nodes and QCs that are out, by how many outages
        self._dead: set[str] = set()  # nodes that are out
        self._up_since: dict[tuple[str, str], float] = {}  # of what has been out
        self._graphs: dict[frozenset[tuple[str, str]], QkdGraph] = {}
        self._open: dict[int, Session] = {}
        self._paces: dict[str, Pace] = {}
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self.result = Result([Session(number, arrival) for number, arrival in enumerate(scenario.arrivals)])

    def run(self, progress: Callable[[float, int], None] | None = None) -> Result:
        """All of it. `progress` is told the virtual time and the number of events now and then."""
        for session in self.result.sessions:
            self._at(session.arrival.at_s, functools.partial(self._arrive, session))
        for outage in self.scenario.outages:
            self._at(outage.at_s, functools.partial(self._switch, outage, 1))
            if outage.for_s is not None:
                self._at(outage.at_s + outage.for_s, functools.partial(self._switch, outage, -1))
        if self.scenario.lasts_s is None and any(
            s.end_s == math.inf and s.number not in self._asks for s in self.result.sessions
        ):
            raise ValueError("lasts_s: expected a number, as a session has no end")
        heap, done = self._heap, 0
        while heap:
            self.now_s, _, event = heapq.heappop(heap)
            event(self.now_s)
            done += 1
            if progress is not None and done % _EVENTS_A_LOOK == 0:
                progress(self.now_s, done)
        return self.result

    def qcs_of(self, number: int) -> Sequence[str]:
        """The QCs over which a session goes, or went last; none if it never had a path."""
        path = self.result.sessions[number].path
        return () if path is None else path.qcs

    def _make_qcs(self, supplies: Mapping[str, Supply]) -> dict[str, QcState]:
        scenario = self.scenario
        warm = self._ttl_slots if scenario.warm_slots is None else scenario.warm_slots
        return {
            qc.name: QcState(
                qc.name,
                supplies.get(qc.name)
                or _supply(qc, f"{scenario.seed}/{qc.name}", warm),
                ttl_slots=self._ttl_slots, promised_slots=self._promised_s,
            )
            for link in scenario.topology.links
            for qc in link.qcs
        }  # fmt: skip

    def _at(self, at_s: float, event: Callable[[float], None]) -> None:
        if self.scenario.lasts_s is None or at_s <= self.scenario.lasts_s:
            heapq.heappush(self._heap, (at_s, next(self._order), event))

    def _arrive(self, session: Session, now_s: float) -> None:
        try:
            found = self._choose(session, now_s)
        except PluggedFailed as failure:
            session.ended = True
            self.result.refused[POLICY_FAILED] += 1
            self.result.policy_failures[str(failure)] += 1
            return
        if not isinstance(found, Path):
            session.ended = True
            paths = 0 if found is not None else self._disjoint_paths(session)
            self.result.refused[REFUSED if found is not None else TOO_FEW_PATHS if paths else NO_PATH] += 1
            if self.witness is not None:
                self.witness.refused(session, now_s, found, paths)
            return
        self._hold(session, found, now_s)
        self._open[session.number] = session
        if self.witness is not None:
            self.witness.opened(session, now_s)
        if session.end_s < math.inf:
            self._at(session.end_s, functools.partial(self._end, session))
        if session.number in self._asks:
            for at_s in self._asks[session.number]:
                self._ask_later(session, at_s)
        elif self.scenario.pace == APPLICATION:
            self._ask_later(session, self._turn(session, now_s))
        else:
            self._ask(session, now_s)

    def _disjoint_paths(self, session: Session) -> int:
        """How many node-disjoint paths there are for a session that found too few; 0 if its mode needs one alone."""
        ends = session.arrival.master.node, session.arrival.slave.node
        return len(fewest_links(self._graph(), *ends, self._mode.paths)) if self._mode.paths > 1 else 0

    def _choose(self, session: Session, now_s: float) -> Path | Refused | None:
        graph = self._graph()
        source, target = session.arrival.master.node, session.arrival.slave.node
        if source not in graph or target not in graph:
            return None
        candidates = self._policy(graph, source, target, lambda qc: self.qcs[qc].view(now_s, self._ttl_slots))
        return choose(
            candidates, lambda path: self._admit(session, path, now_s, self._wanted), lambda a, b: sorted(graph[a][b]),
            most=self._most_paths,
            wanted=lambda path: self._wanted.add(path.qcs, self._from_now_on(session, path, now_s), now_s),
        )  # fmt: skip

    def _admit(
        self, session: Session, path: Path, now_s: float, wanted: Wanted | None = None
    ) -> Refused | None:
        views = [self.qcs[qc].view(now_s, self._window, wanted) for qc in path.qcs]
        demand = Demand(
            session.key_bytes, session.arrival.qos.interval_s, self._costs(session, path),
            self._from_now_on(session, path, now_s), math.floor(self._promised_s),
        )  # fmt: skip
        return ADMISSION_POLICIES[self._admission](views, demand)

    def _draws(self, session: Session, path: Path, first_s: float, end_s: float) -> list[Draw]:
        """What the session takes of each QC of a path."""
        return self._mode.draws(
            path.qcs, session.key_bytes, interval_s=session.arrival.qos.interval_s, keys_ahead=self._ahead(session),
            waits_s=self._promised_s, when=Draw(0, 1.0, first_s, end_s), double_at_last=path.double_at_last,
        )  # fmt: skip

    def _from_now_on(self, session: Session, path: Path, now_s: float) -> list[Draw]:
        """What it takes, in seconds after the beginning of the present slot."""
        slot_s = math.floor(now_s)
        return self._draws(session, path, now_s - slot_s, session.end_s - slot_s)

    def _costs(self, session: Session, path: Path) -> list[float]:
        """What a key of the session costs on each QC of a path, in bytes."""
        return self._mode.per_key(
            len(path.qcs), session.key_bytes, self._ahead(session), double_at_last=path.double_at_last
        )

    def _ahead(self, session: Session) -> int:
        """How many keys it makes at once."""
        return ahead(self._keys_ahead, session.arrival.qos.interval_s, self._ttl_slots)

    def _hold(self, session: Session, path: Path, now_s: float) -> None:
        """The session takes that path."""
        session.path = path
        session.qcs = [self.qcs[qc] for qc in path.qcs]
        session.sources = dict(zip(path.qcs, session.qcs, strict=True))
        session.tries = [
            (number, self._mode.needs(path.qcs, session.key_bytes, number, double_at_last=path.double_at_last))
            for number in self._mode.tries(1, self._ahead(session), _MOST_AT_ONCE)
        ]
        session.draws = self._draws(session, path, now_s, session.end_s)
        for qc, draw, cost in zip(session.qcs, session.draws, self._costs(session, path), strict=True):
            qc.reserved[session.number] = cost / session.arrival.qos.interval_s
            qc.agenda.add(draw, now_s)

    def _release(self, session: Session, now_s: float) -> None:
        for qc, draw in zip(session.qcs, session.draws, strict=True):
            del qc.reserved[session.number]
            qc.agenda.remove(draw, now_s)

    def _end(self, session: Session, now_s: float) -> None:
        if not session.ended:
            session.ended = True
            self._release(session, now_s)
            del self._open[session.number]
            self.result.expired += len(session.pool)
            if self.witness is not None:
                self.witness.ended(session, now_s)

    def _ask_later(self, session: Session, at_s: float) -> None:
        if at_s < session.end_s:
            self._at(at_s, functools.partial(self._ask, session))

    def _turn(self, session: Session, now_s: float) -> float:
        pace = self._paces.setdefault(session.arrival.master.name, Pace())
        return pace.take(now_s, session.arrival.qos.interval_s)

    def _ask(self, session: Session, now_s: float) -> None:
        if session.ended:
            return
        session.requests += 1
        failure = self._key(session, now_s)
        if failure is not None:
            session.failed += 1
            cause, short = failure
            self.result.errors[cause if short is None else f"{cause} {short.qc}"] += 1
            if self.witness is not None:
                self.witness.failed(session, now_s, cause, short)
            if not goes_on(self.scenario.on_key_failure, failed=True):
                self._end(session, now_s)
                return
        if session.number in self._asks:
            return
        if self.scenario.pace == APPLICATION:
            self._ask_later(session, self._turn(session, now_s))
        else:
            self._ask_later(session, next_due(session.arrival.at_s, session.arrival.qos.interval_s, now_s))

    def _key(self, session: Session, now_s: float) -> tuple[str, Shortage | None] | None:
        """Give the session a key: one that waits, or one made now. Why there is none, if there is none."""
        if session.down:
            return PATH_DOWN, None
        if self._dead and session.path is not None:
            alive = sum(self._dead.isdisjoint(path.nodes) for path in session.path.paths)
            if alive < self._mode.enough:
                return NODE_DOWN, None
        pool = session.pool
        while pool and pool[0] <= now_s - self._promised_s:
            pool.popleft()
            self.result.expired += 1
        if pool:
            pool.popleft()
            self.result.from_pool += 1
            if self.witness is not None:
                self.witness.served(session, now_s, (), 0)
            return None
        for qc in session.qcs:
            qc.at(now_s)
        short: Shortage | None = None
        for number, needs in session.tries:
            found = self._allocated(session, needs)
            if isinstance(found, Shortage):
                short = found
                continue
            self._count(session, needs, now_s)
            pool.extend([now_s] * (number - 1))
            self.result.made += number
            if self.witness is not None:
                self.witness.served(session, now_s, found[1], number)
            return None
        self._count(session, session.tries[-1][1], now_s)
        return SHORT, short

    def _allocated(
        self, session: Session, needs: Sequence[tuple[str, int]]
    ) -> tuple[dict[str, QcState], list[Range]] | Shortage:
        """What is made now of these needs; without paths that are short, if enough others are left."""
        found = first = allocate(session.sources, needs)
        left: Sequence[Path] = () if session.path is None else session.path.paths
        while isinstance(found, Shortage):
            left = left_without(left, found.qc, self._mode.enough)
            if not left:
                return first
            qcs = {qc for path in left for qc in path.qcs}
            found = allocate(session.sources, [need for need in needs if need[0] in qcs])
        return found

    @staticmethod
    def _count(session: Session, needs: Sequence[tuple[str, int]], now_s: float) -> None:
        for qc, (_, n_bytes) in zip(session.qcs, needs, strict=True):
            qc.ask(now_s, n_bytes)

    def _switch(self, outage: Outage, change: int, now_s: float) -> None:
        """An outage begins, or ends."""
        what = [("QC", qc) for qc in outage.qcs(self.scenario.topology)]
        if outage.kind == NODE:
            what.append(("node", outage.name))
        self._down.update(dict.fromkeys(what, change))
        self._dead = {name for (kind, name), number in self._down.items() if kind == "node" and number > 0}
        self._up_since |= {item: now_s for item in what if not self._down[item]}
        for kind, name in what:
            supply = self.qcs[name].supply if kind == "QC" else None
            if isinstance(supply, EachSlot):
                supply.switch(now_s, on=not self._down[kind, name])
        self._at(now_s + (GRACE_S if change > 0 else 0.0), self._look)
        if change < 0:
            self._at(now_s + STEADY_S, self._look)

    def _look(self, now_s: float) -> None:
        """Have sessions leave a path that is down, and come back to a shorter one."""
        usable = self._graph()
        steady = self._graph({item for item, since in self._up_since.items() if now_s - since < STEADY_S})

        @functools.cache
        def way(graph: QkdGraph, source: str, target: str) -> Path | None:
            view = lambda qc: self.qcs[qc].view(now_s, self._ttl_slots)  # noqa: E731 - as a policy takes it
            try:
                return next(iter(self._policy(graph, source, target, view)), None)
            except PluggedFailed as failure:
                self.result.policy_failures[str(failure)] += 1
                return None

        again = False
        for session in list(self._open.values()):
            assert session.path is not None  # noqa: S101 - it is open
            path = session.path
            down = tuple(
                f"{kind} {name}"
                for kind, names in (("node", path.nodes), ("QC", path.qcs))
                for name in names
                if self._down[kind, name] > 0
            )
            verdict = judge(
                path, down, usable, steady, way, number=self._mode.paths, enough=self._mode.enough
            )
            moved = verdict.path is not None and self._move(session, verdict.path, now_s)
            session.down = () if moved else verdict.down
            again |= verdict.path is not None and not moved
        if again:
            self._at(now_s + AGAIN_S, self._look)

    def _move(self, session: Session, path: Path, now_s: float) -> bool:
        """The session goes another way, if it is admitted there beside all others."""
        before = session.path
        assert before is not None  # noqa: S101 - it is open
        self._release(session, now_s)
        try:
            short = self._admit(session, path, now_s) is not None
        except PluggedFailed as failure:
            self.result.policy_failures[str(failure)] += 1
            short = True
        self._hold(session, before if short else path, now_s)
        if short:
            return False
        self.result.moves += 1
        if self.witness is not None:
            self.witness.moved(session, now_s, before)
        return True

    def _graph(self, besides: Collection[tuple[str, str]] = ()) -> QkdGraph:
        """What can be used now, as the controller knows it, but for what is named.

        Frozen, so that policies may remember what they found out about it.
        """
        key = frozenset(what for what, number in self._down.items() if number > 0).union(besides)
        if key not in self._graphs:
            graph: QkdGraph = nx.MultiGraph()
            nodes = (node.name for node in self.scenario.topology.nodes)
            graph.add_nodes_from(sorted(name for name in nodes if ("node", name) not in key))
            for qc, a, b in self._ends():
                if ("QC", qc) not in key and a in graph and b in graph:
                    graph.add_edge(a, b, key=qc)
            self._graphs[key] = nx.freeze(graph)
        return self._graphs[key]

    def _ends(self) -> Iterator[tuple[str, str, str]]:
        """QCs with the nodes that they join, by name."""
        return iter(sorted((qc.name, link.a, link.b) for link in self.scenario.topology.links for qc in link.qcs))


def _supply(qc: Qc, seed: str, warm_slots: int) -> Supply:
    """What that QC makes."""
    if qc.model is None:
        return Uniform(qc.low_bytes_per_slot, qc.high_bytes_per_slot, seed, warm_slots)
    return Modelled(qc.model, seed, warm_slots)
