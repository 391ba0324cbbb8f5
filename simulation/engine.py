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
from collections.abc import Callable, Mapping, Sequence

from decisions.admission import ADMISSION_POLICIES, ALTERNATIVES, QcView, Refused, window_slots
from decisions.calendar import Wanted
from decisions.choice import IDLE_S, RELAY, Allowed, Order, choose, choose_or_light
from decisions.choice import usable as allowed_to
from decisions.modes import MODES
from decisions.paths import PATH_POLICIES, Path, QkdGraph, Verdict, disjoint, fewest_links, judge
from decisions.ranges import Shortage, promised_slots
from decisions.rekey import APPLICATION, Pace, goes_on, next_due
from documents.plugged import PluggedFailed
from scenario.outages import EVE, Outage
from scenario.scenario import Scenario
from simulation.demands import Demands
from simulation.network import GRACE_S, STEADY_S, Network
from simulation.qcs import Passive, make_qcs
from simulation.sessions import Result, Session, Witness
from simulation.supply import Supply

AGAIN_S = 3.0  # between two tries to move a session, as the controller has it
NO_PATH, REFUSED, SHORT, PATH_DOWN, NODE_DOWN = "no_path", "refused", "short_of_material", "path_down", "node_down"
POLICY_FAILED, TOO_FEW_PATHS = "policy_failed", "too_few_paths"
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
        self._demands = Demands(scenario)
        self._admission: str = scenario.parameter("admission")
        self._policy = disjoint(PATH_POLICIES[scenario.parameter("path_policy")], self._mode.paths)
        self._most_paths = ALTERNATIVES.get(self._admission, 1)
        self._window = window_slots(self._admission, self._ttl_slots)
        self._mechanism: str = scenario.parameter("mechanism")
        self._network = Network(scenario.topology)
        self.qcs = make_qcs(scenario, supplies or {}, dark=self._network.on_demand)
        self._network.passive = Passive(self.qcs, self._ttl_slots, GRACE_S)
        self._follows = False  # what nodes tell of QCs that may pause, as sessions go by it
        self._wanted = Wanted()
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

    def _at(self, at_s: float, event: Callable[[float], None]) -> None:
        if self.scenario.lasts_s is None or at_s <= self.scenario.lasts_s:
            heapq.heappush(self._heap, (at_s, next(self._order), event))

    def _arrive(self, session: Session, now_s: float) -> None:
        self._hear(now_s)
        try:
            found = self._choose(session, now_s, self._wanted)
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
        self._light(found.qcs, now_s)
        self._hold(session, found, now_s)
        ready_s = self._network.ready_s(found.qcs)
        if ready_s > now_s:
            self._at(ready_s, functools.partial(self._opened, session))
        else:
            self._opened(session, now_s)

    def _opened(self, session: Session, now_s: float) -> None:
        """All QCs of its path make key: it is open from now on."""
        self._open[session.number] = session
        if not self._follows:
            self._follow(now_s)
        if self.witness is not None:
            self.witness.opened(session, now_s)
        if session.end_s < math.inf:
            self._at(max(now_s, session.end_s), functools.partial(self._end, session))
        if session.number in self._asks:
            for at_s in self._asks[session.number]:
                self._ask_later(session, at_s)
        elif self.scenario.pace == APPLICATION:
            self._ask_later(session, self._turn(session, now_s))
        else:
            self._ask(session, now_s)

    def _hear(self, now_s: float) -> None:
        """Which QCs generate nothing any more, or again; sessions go by that."""
        if self._network.passive.look(now_s):
            self._at(now_s, self._look)
            self._at(now_s + STEADY_S, self._look)

    def _follow(self, now_s: float) -> None:
        """Hear of it as long as there are sessions."""
        self._hear(now_s)
        due_s = self._network.passive.due_s
        self._follows = bool(self._open) and due_s < math.inf
        if self._follows:
            self._at(due_s, self._follow)

    def _disjoint_paths(self, session: Session) -> int:
        """How many node-disjoint paths there are for a session that found too few; 0 if its mode needs one alone."""
        ends = session.arrival.master.node, session.arrival.slave.node
        return len(fewest_links(self._network.graph(), *ends, self._mode.paths)) if self._mode.paths > 1 else 0

    def _choose(self, session: Session, now_s: float, wanted: Wanted | None) -> Path | Refused | None:
        """Its path, of which some QCs may be dark yet; what it wants is noted in `wanted`."""
        ends, network = (session.arrival.master.node, session.arrival.slave.node), self._network
        lit = network.graph()
        if any(end not in lit for end in ends):
            return None

        def over(graph: QkdGraph, order: Order, allowed: Allowed, most: int) -> Path | Refused | None:
            return choose(
                order(self._policy(graph, *ends, view)),
                lambda path: self._admit(session, path, now_s, wanted), lambda a, b: sorted(graph[a][b]),
                most=most, allowed=allowed, wanted=note,
            )  # fmt: skip

        def note(path: Path) -> None:
            if wanted is not None:
                wanted.add(path.qcs, self._demands.from_now_on(session, path, now_s), now_s)

        def shares(path: Path) -> list[float]:
            return self._demands.of(session, path, now_s).shares([view(qc) for qc in path.qcs])

        view = functools.partial(self._view, now_s)
        return choose_or_light(
            over, lit, network.on_demand, network.can_be_lit(), free=network.free,
            mechanism=self._mechanism, ends=ends, shares=shares, most=self._most_paths,
        )  # fmt: skip

    def _view(self, now_s: float, qc: str) -> QcView:
        """A QC as a path policy sees it."""
        return self._network.seen(self.qcs[qc].view(now_s, self._ttl_slots), now_s, self._ttl_slots)

    def _admit(
        self, session: Session, path: Path, now_s: float, wanted: Wanted | None = None
    ) -> Refused | None:
        views = [
            self._network.seen(self.qcs[qc].view(now_s, self._window, wanted), now_s, self._window) for qc in path.qcs
        ]
        return ADMISSION_POLICIES[self._admission](views, self._demands.of(session, path, now_s))

    def _hold(self, session: Session, path: Path, now_s: float) -> None:
        """The session takes that path."""
        session.path = path
        session.qcs = [self.qcs[qc] for qc in path.qcs]
        session.sources = dict(zip(path.qcs, session.qcs, strict=True))
        session.tries = self._demands.tries(session, path)
        session.draws = self._demands.draws(session, path, now_s, session.end_s)
        self._network.use(path.qcs)
        for qc, draw, cost in zip(session.qcs, session.draws, self._demands.costs(session, path), strict=True):
            qc.reserved[session.number] = cost / session.arrival.qos.interval_s
            qc.agenda.add(draw, now_s)

    def _release(self, session: Session, now_s: float) -> None:
        for qc, draw in zip(session.qcs, session.draws, strict=True):
            del qc.reserved[session.number]
            qc.agenda.remove(draw, now_s)
        for qc_name, dark_s in self._network.leave([qc.name for qc in session.qcs], now_s).items():
            self._at(dark_s, functools.partial(self._darken, qc_name))

    def _light(self, qcs: Sequence[str], now_s: float, idle_s: float = math.inf) -> None:
        """Those that are dark, of which each makes key from its time on, and goes dark if nobody uses it by then."""
        for qc, ready_s in self._network.light(qcs, now_s, idle_s).items():
            self.result.lit += 1
            self._at(ready_s, functools.partial(self._set_supply, qc))
            if idle_s < math.inf:
                self._at(ready_s + idle_s, functools.partial(self._darken, qc))
            if self.witness is not None:
                self.witness.switched(qc, now_s, lit=True)

    def _darken(self, qc: str, now_s: float) -> None:
        """Nobody uses it, or somebody does again."""
        if self._network.darken(qc, now_s):
            self._set_supply(qc, now_s)
            if self.witness is not None:
                self.witness.switched(qc, now_s, lit=False)

    def _set_supply(self, qc: str, now_s: float) -> None:
        """Have a QC make key, as much as an eavesdropper leaves, or nothing."""
        self.qcs[qc].switch(now_s, on=self._network.makes_key(qc), eve=self._network.eve(qc))

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
        pool, arrival = session.pool, session.arrival
        while pool and pool[0] <= now_s - self._promised_s:
            pool.popleft()
            self.result.expired += 1
        # Keys that wait do so at both ends: they need no path any more.
        if pool and self._network.dead.isdisjoint((arrival.master.node, arrival.slave.node)):
            pool.popleft()
            self.result.from_pool += 1
            if self.witness is not None:
                self.witness.served(session, now_s, (), 0)
            return None
        if session.down:
            return PATH_DOWN, None
        if self._network.dead and session.path is not None:
            alive = sum(self._network.dead.isdisjoint(path.nodes) for path in session.path.paths)
            if alive < self._mode.enough:
                return NODE_DOWN, None
        for qc in session.qcs:
            qc.at(now_s)
        short: Shortage | None = None
        for number, needs in session.tries:
            found = session.allocated(needs, self._mode.enough)
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

    @staticmethod
    def _count(session: Session, needs: Sequence[tuple[str, int]], now_s: float) -> None:
        for qc, (_, n_bytes) in zip(session.qcs, needs, strict=True):
            qc.ask(now_s, n_bytes)

    def _switch(self, outage: Outage, change: int, now_s: float) -> None:
        """An outage begins, or ends."""
        for qc in self._network.switch(outage, change, now_s):
            self._set_supply(qc, now_s)
            if outage.kind == EVE and self.witness is not None:
                self.witness.intercepted(qc, now_s, self._network.eve(qc))
        self._at(now_s + (GRACE_S if change > 0 else 0.0), self._look)
        if change < 0:
            self._at(now_s + STEADY_S, self._look)

    def _look(self, now_s: float) -> None:
        """Have sessions leave a path that is down, and come back to a shorter one."""
        usable = self._network.graph()
        # A QC past others is lit for those that it is for.
        steady = allowed_to(self._network.steady(now_s), RELAY, ("", ""), self._network.on_demand)

        @functools.cache
        def way(graph: QkdGraph, source: str, target: str) -> Path | None:
            left = allowed_to(graph, self._mechanism, (source, target), self._network.on_demand)
            try:
                return next(iter(self._policy(left, source, target, functools.partial(self._view, now_s))), None)
            except PluggedFailed as failure:
                self.result.policy_failures[str(failure)] += 1
                return None

        again = False
        for session in list(self._open.values()):
            assert session.path is not None  # noqa: S101 - it is open
            verdict = judge(
                session.path, self._network.lacking(session.path), usable, steady, way,
                number=self._mode.paths, enough=self._mode.enough,
            )  # fmt: skip
            stays = verdict.path is None and not verdict.down
            moved = not stays and self._move(session, verdict, now_s)
            session.down = () if moved else verdict.down
            again |= not moved and (verdict.path is not None or bool(verdict.down and self._network.on_demand))
        if again:
            self._at(now_s + AGAIN_S, self._look)

    def _move(self, session: Session, verdict: Verdict, now_s: float) -> bool:
        """The session goes another way, if it is admitted there beside all others, once all QCs of it make key."""
        before = session.path
        assert before is not None  # noqa: S101 - it is open
        self._release(session, now_s)
        try:
            path = self._other_way(session, verdict, now_s)
        except PluggedFailed as failure:
            self.result.policy_failures[str(failure)] += 1
            path = None
        if path is not None:
            self._light(path.qcs, now_s, idle_s=IDLE_S)
            if (ready_s := self._network.ready_s(path.qcs)) > now_s:
                self._at(ready_s, self._look)
                path = None
        self._hold(session, before if path is None else path, now_s)
        if path is None:
            return False
        self.result.moves += 1
        if self.witness is not None:
            self.witness.moved(session, now_s, before)
        return True

    def _other_way(self, session: Session, verdict: Verdict, now_s: float) -> Path | None:
        """That of the verdict, or, for a session that has none, one for which QCs are to be lit."""
        if verdict.path is not None and self._admit(session, verdict.path, now_s) is None:
            return verdict.path
        if not verdict.down or not self._network.on_demand:
            return None
        found = self._choose(session, now_s, None)
        return found if isinstance(found, Path) else None
