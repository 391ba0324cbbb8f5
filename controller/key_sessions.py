"""The life of a key session, from the registration of its first side until its end (GS QKD 015, clause 5.2).

    (nothing) --first side--> waiting --second side--> configuring --agents informed--> open --closed--> (nothing)
                              waiting --withdrawn, or too late--> (nothing)
                                                       configuring --refused, no path, agent silent--> (nothing)

What is configured and what is open is kept in a store: a controller that is killed goes on with the open sessions, and
has the agents forget those that it was about to open or to end.

An implicit session serves applications that know GS QKD 014 and no sessions: their nodes register both sides. It gives
way to one that the applications register. Path and admission are decided one session at a time, under the graph's
lock; agents are informed outside of it: first the nodes of the path and the slave's, all at once, and then the
master's node gets the KSID, so that it never asks for keys that the others know nothing of.
"""

from __future__ import annotations

import collections
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller import configuration
from controller.admission import ADMISSION_POLICIES, MODES, Demand, QcView, Refused
from controller.agents import Agent, AgentFailed, Agents, interrupted, refusal
from controller.graph import Graph
from controller.key_session import (
    CONFIGURING,
    ENDING,
    MASTER,
    OPEN,
    SLAVE,
    WAITING,
    KeySession,
    Pair,
    Place,
    SessionError,
)
from controller.parameters import Parameters, changed
from controller.paths import PATH_POLICIES, Path
from controller.store import Store
from etsi.gs004 import QoS
from telemetry.journal import Journal
from telemetry.metrics import ControllerMetrics

_PARAMETERS, _RATES = "parameters", "rates"
_KEPT_REFUSALS = 100


class KeySessions:
    """All key sessions. Thread-safe. `now` gives seconds that only grow."""

    def __init__(
        self,
        graph: Graph,
        agents: Agents,
        parameters: Parameters,
        journal: Journal,
        store: Store,
        *,
        half_open_timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        # What was changed while the network ran counts for more than what it was started with.
        self.parameters = changed(parameters, store.setting(_PARAMETERS))
        self._graph = graph
        self._agents = agents
        self._journal = journal
        self._store = store
        self._half_open_timeout_s = half_open_timeout_s
        self._now = now
        self.rates: dict[str, tuple[int, int]] = {}
        self._on_settings: Callable[[], None] = lambda: None
        self.metrics = ControllerMetrics(self.states, lambda: len(graph.reachable(graph.nodes())))
        self._lock = threading.Condition()
        self._book: dict[Place, KeySession] = {}
        self._refusals: collections.deque[dict[str, Any]] = collections.deque(maxlen=_KEPT_REFUSALS)
        # Sessions that are not open, by KSID, and what nodes may still have of them: resources by node.
        self._unsettled: dict[str, dict[str, list[str]]] = {}
        self._held: set[str] = set()  # KSIDs of sessions that are being moved
        self._recall()

    def on_settings(self, step: Callable[[], None]) -> None:
        """Call `step` when parameters or rates have changed."""
        self._on_settings = step

    def register(self, node: str, pair: Pair, side: str | None, qos: QoS, *, implicit: bool = False) -> KeySession:
        """One side's registration: the session, open if this side was the second one; SessionError.

        Without a `side` the first of the two is the master: it was the one that asked ("server").
        """
        self.expire()
        try:
            with self._lock:
                session, opening = self._registered(node, pair, side, qos, implicit=implicit)
        except SessionError as error:
            self._answer({node}, pair, error, implicit=implicit)
            raise
        if opening is None:  # it is open, and this node has lost it
            self._tell_again(node, session)
            return session
        master, slave = session.pair
        self._journal.event("application_registered", master_sae=master, slave_sae=slave, node=node, implicit=implicit)
        if opening:
            if not implicit:
                self._give_way(session.pair)
            self._open(session)
        return session

    def _registered(
        self, node: str, pair: Pair, side: str | None, qos: QoS, *, implicit: bool
    ) -> tuple[KeySession, bool | None]:
        """The session with that side in it, and whether it is to be opened now; None: it is open."""
        place: Place = pair, implicit
        if side is None:
            place, side = self._guessed(node, pair), self._side_of(node, pair)
        known = self._book.get(place)
        if implicit and known is None and (pair, False) in self._book:
            registered = self._book[pair, False]
            if registered.state == OPEN:
                known = registered
        if known is not None and known.state == OPEN and implicit and node in known.nodes.values():
            return known, None
        session = known or KeySession(str(uuid.uuid4()), place[0], qos, self._now(), implicit=implicit)
        if session.state == CONFIGURING and implicit:
            raise SessionError(503, "a key session of this pair is being opened: try again", cause="opening")
        if session.state != WAITING:
            raise SessionError(409, "a key session of this pair is open already", cause="exists", ksid=session.ksid)
        if session.nodes.get(side, node) != node:
            raise SessionError(409, "another node has registered this SAE", cause="foreign")
        if any(other == node for s, other in session.nodes.items() if s != side):
            raise SessionError(400, "both SAEs are at the same node, which needs no QKD", cause="same_node")
        if side == MASTER:
            session.qos = qos  # the one who asks for keys says of which size and how often
        session.nodes[side] = node
        self._book[session.place] = session
        if session.complete:
            session.state = CONFIGURING
        return session, session.complete

    def _guessed(self, node: str, pair: Pair) -> Place:
        """The place of a registration that does not say which side it is: each may name itself first."""
        turned = pair[1], pair[0]
        waits = self._book.get((turned, False))
        if waits is not None and waits.state == WAITING and node not in waits.nodes.values():
            return turned, False
        return pair, False

    def _side_of(self, node: str, pair: Pair) -> str:
        known = self._book.get(self._guessed(node, pair))
        if known is not None and any(s == MASTER and n != node for s, n in known.nodes.items()):
            return SLAVE
        return MASTER

    def _tell_again(self, node: str, session: KeySession) -> None:
        try:
            self._configure_anew(session, node)
        except AgentFailed as error:
            failure = SessionError(503, str(error), cause="agent_unreachable", node=error.node)
            self._answer({node}, session.pair, failure, implicit=True)
            raise failure from None

    def _answer(self, names: Iterable[str], pair: Pair, error: SessionError, *, implicit: bool) -> None:
        """Tell nodes whose applications wait why there is no session, as far as they can be told."""
        for node in self._graph.reachable(names).values():
            if node.extended:
                document = refusal(*pair, implicit=implicit, status=error.status, message=str(error), facts=error.facts)
                self._agents.answer(node.agent, document)

    def _give_way(self, pair: Pair) -> None:
        """End the implicit session of a pair that has registered one."""
        place = pair, True
        with self._lock:
            # While its agents are being told, wait: they keep the session of a pair that they heard of last.
            self._lock.wait_for(lambda: place not in self._book or self._book[place].state == OPEN)
            implicit = self._book.pop(place, None)
        if implicit is not None:
            self._end(implicit, by="registration")

    def withdraw(self, node: str, pair: Pair) -> None:
        """Take back a registration that still waits."""
        with self._lock:
            session = self._book.get((pair, False))
            if session is not None and session.state == WAITING and node in session.nodes.values():
                del self._book[session.place]

    def close(self, ksid: str, *, node: str | None) -> bool:
        """End a session, on behalf of one of its ends or (None) the operator; False if there is no such session.

        The nodes are told when this returns, except for one of the ends: its word is taken, and they are told soon.
        An end may be done with a session before all nodes have said that they took it over.
        """
        states = (OPEN,) if node is None else (OPEN, CONFIGURING)
        with self._lock:
            session = next((s for s in self._book.values() if s.ksid == ksid and s.state in states), None)
            if session is None or (node is not None and node not in session.nodes.values()):
                return False
            opening = session.state == CONFIGURING
            if not opening:
                del self._book[session.place]
                self._store.put_session(session.ksid, session.to_store() | {"state": ENDING})
        if node is None:
            self._end(session, by="operator")
        else:
            self._agents.later(self._end_once_open if opening else self._end, session, by=node)
        return True

    def _end_once_open(self, session: KeySession, *, by: str) -> None:
        """End a session that is being opened; there is nothing to do if it is refused, or the other end was first."""
        with self._lock:
            self._lock.wait_for(lambda: session.state == OPEN or self._book.get(session.place) is not session)
            if self._book.get(session.place) is not session:
                return
            del self._book[session.place]
        self._end(session, by=by)

    def _end(self, session: KeySession, *, by: str) -> None:
        with self._lock:
            # A move under way is the last to write to its nodes.
            self._lock.wait_for(lambda: session.ksid not in self._held)
            self._store.put_session(session.ksid, session.to_store() | {"state": ENDING})
        self._withdraw_from_nodes(session)
        self._journal.event("ksid_released", ksid=session.ksid, by=by)

    def _withdraw_from_nodes(self, session: KeySession) -> None:
        """Have all nodes of its path forget a session; those that cannot be told are when they come again."""
        resources = session.at_nodes()
        agents = self._agents_of(resources)
        done = set(agents) - self._agents.remove({agent: resources[name] for name, agent in agents.items()})
        left = {name: paths for name, paths in resources.items() if name not in done}
        with self._lock:
            if left:
                self._unsettled[session.ksid] = left
        if not left:
            self._store.remove_session(session.ksid)

    def expire(self) -> None:
        """Drop sessions that only one side registered, too long ago."""
        oldest = self._now() - self._half_open_timeout_s
        with self._lock:
            late = [s for s in self._book.values() if s.state == WAITING and s.since < oldest]
            for session in late:
                del self._book[session.place]
        for session in late:
            self._journal.event("application_expired", master_sae=session.pair[0], slave_sae=session.pair[1])

    def set_parameters(self, document: Mapping[str, Any]) -> Parameters:
        """Change what `document` names; Malformed. Running sessions go on under the new parameters."""
        with self._graph.lock:
            self.parameters = changed(self.parameters, document)
            self._store.put_setting(_PARAMETERS, self.parameters.to_json())
        self._journal.event("parameters", **self.parameters.to_json())
        self._on_settings()
        return self.parameters

    def set_rate(self, qc: str, low: int, high: int) -> bool:
        """Have a QC make low to high bytes a slot; False if there is no such QC."""
        if qc not in self._graph.links():
            return False
        with self._lock:
            self.rates = self.rates | {qc: (low, high)}
            self._store.put_setting(_RATES, self.rates)
        self._journal.event("rate", qc=qc, low=low, high=high)
        self._on_settings()
        return True

    def views(self, qcs: Sequence[str], besides: KeySession | None = None) -> list[QcView]:
        """How each of `qcs` fared over the last TTL slots, and what is reserved there by others than `besides`."""
        views = self._graph.views(qcs, self.parameters.ttl_slots)
        return [replace(view, reserved_per_slot=self._reserved_per_slot(view.qc, besides)) for view in views]

    def hold(self, session: KeySession) -> bool:
        """Until `release` nobody else tells the nodes of an open session anything; False if it is over."""
        with self._lock:
            if self._book.get(session.place) is not session:
                return False
            self._held.add(session.ksid)
            return True

    def release(self, session: KeySession) -> None:
        """Whatever was done to it is done."""
        with self._lock:
            session.target = None
            self._held.discard(session.ksid)
            self._lock.notify_all()

    def start_move(self, session: KeySession, path: Path) -> KeySession | None:
        """The session as it will be on `path`, which is reserved for it; None if that cannot be. SessionError: refused.

        It is to be held.
        """
        with self._graph.lock:
            if not set(path.qcs) <= set(self._graph.links()):
                return None
            self._admit(session.qos, path, besides=session)
            with self._lock:
                if self._book.get(session.place) is not session:
                    return None
                session.last_number += 1
                session.left_behind(path, session.last_number)  # until it goes over it
                session.target = path
                self._store.put_session(session.ksid, session.to_store())
            return replace(session, path=path, route=self._route(path, session.last_number))

    def commit_move(self, session: KeySession, moved: KeySession) -> bool:
        """From now on the session goes the new way, whatever its ends know; False if it is over."""
        assert session.route is not None and moved.path is not None and moved.route is not None  # noqa: S101, PT018
        with self._lock:
            if self._book.get(session.place) is not session:
                return False
            session.left_behind(session.path, session.route.number)
            for node in moved.path.nodes:
                session.tidied(node, moved.route.number)
            session.path, session.route = moved.path, moved.route
            session.unsure = {moved.path.nodes[0], moved.path.nodes[-1]}
            self._store.put_session(session.ksid, session.to_store())
            return True

    def add_links(self, moved: KeySession) -> None:
        """Have all nodes of a path have the virtual link, though no application is fed by it yet; AgentFailed."""
        path = moved.path
        assert path is not None  # noqa: S101 - it has been chosen
        ends = path.nodes[0], path.nodes[-1]
        self._configure(moved, path.nodes, without_ksid_at=ends)

    def tell_ends(self, session: KeySession) -> None:
        """Tell the ends that are not sure, the slave's first, what feeds the session now; AgentFailed."""
        for node in (session.nodes[SLAVE], session.nodes[MASTER]):
            if node in session.unsure:
                self._put_application(session, node)
                session.unsure.discard(node)

    def tidy(self, session: KeySession) -> None:
        """Remove virtual links that the session does not go over, from nodes that can be reached."""
        agents = self._agents_of(session.elsewhere)
        failed = self._agents.remove({agent: session.leftovers(name) for name, agent in agents.items()})
        self._tidied(session, set(agents) - failed)

    def _tidied(self, session: KeySession, names: Iterable[str]) -> None:
        with self._lock:
            for name in names:
                session.tidied(name)
            if self._book.get(session.place) is session:
                self._store.put_session(session.ksid, session.to_store())

    def untidy(self, session: KeySession) -> bool:
        """Whether nodes that can be reached have to be told something of a session that was moved."""
        return bool(self._agents_of({*session.elsewhere, *session.unsure}))

    def interrupt(self, session: KeySession, message: str, down: Sequence[str]) -> None:
        """There is no path for an open session; or, without a message, there is one again. AgentFailed."""
        if tuple(down) == session.down:
            return
        self._tell_interruption(session, message, down)
        session.interruption, session.down = message, tuple(down)
        if message:
            self._journal.event("session_interrupted", ksid=session.ksid, message=message, down=list(down))
        else:
            self._journal.event("session_resumed", ksid=session.ksid)

    def _tell_interruption(self, session: KeySession, message: str, down: Sequence[str]) -> None:
        """Tell the master's node, which makes the keys, if it can be reached; AgentFailed."""
        document = interrupted(*session.pair, implicit=session.implicit, message=message, down=down)
        for name, node in self._graph.reachable([session.nodes[MASTER]]).items():
            if node.extended and not self._agents.tell(node.agent, document):
                raise AgentFailed(name, "it was not told of the session's interruption")

    def settle(self, node: str, document: Mapping[str, Any]) -> None:
        """A node came (again), configured as `document` (qkd_node) says: have it forget sessions that are no more.

        Open sessions that it does not have it is told of. AgentFailed.
        """
        agents = self._agents_of([node])
        with self._lock:
            stale = {ksid: nodes[node] for ksid, nodes in self._unsettled.items() if node in nodes}
        for ksid, paths in stale.items():
            if self._agents.remove({agents[node]: paths}):
                raise AgentFailed(node, "a session that is over could not be removed")
            with self._lock:
                left = self._unsettled.get(ksid, {})
                left.pop(node, None)
                if not left:
                    self._unsettled.pop(ksid, None)
                    self._store.remove_session(ksid)
        for session in self.all():
            if session.state == OPEN:
                self._settle(session, node, agents[node], document)

    def _settle(self, session: KeySession, node: str, agent: Agent, document: Mapping[str, Any]) -> None:
        with self._lock:
            self._lock.wait_for(lambda: session.ksid not in self._held)
            path, left = session.path, session.leftovers(node)
        if left:
            if self._agents.remove({agent: left}):
                raise AgentFailed(node, "a link that leads nowhere could not be removed")
            self._tidied(session, [node])
        if path is not None and node in path.nodes:
            wanted = session.to_nodes(self._bandwidth(session))[node]
            if not configuration.is_complete(document, wanted):
                self._configure_anew(session, node)
            session.unsure.discard(node)
        if session.interruption and node == session.nodes[MASTER]:
            self._tell_interruption(session, session.interruption, session.down)

    def all(self) -> list[KeySession]:
        """All sessions, the oldest first."""
        with self._lock:
            return sorted(self._book.values(), key=lambda s: s.since)

    def states(self) -> dict[str, int]:
        """How many sessions are in each state."""
        return dict(collections.Counter(session.state for session in self.all()))

    def refusals(self) -> list[dict[str, Any]]:
        """The last refusals, the oldest first."""
        with self._lock:
            return list(self._refusals)

    def _recall(self) -> None:
        """Take up what the store has."""
        self.rates = {qc: (low, high) for qc, (low, high) in self._store.setting(_RATES).items()}
        # In the order in which they were opened, which is the one in which they are shown.
        for document in sorted(self._store.sessions(), key=lambda found: found["opened_at"] or 0.0):
            session = KeySession.stored(document, self._now())
            if session.state == OPEN:
                self._book[session.place] = session
            else:
                self._unsettled[session.ksid] = session.at_nodes()

    def _open(self, session: KeySession) -> None:
        started = self._now()
        try:
            path = self._choose(session)
            chosen = self._now()
            self._store.put_session(session.ksid, session.to_store())
            # The master's node is told of the path with the others, of the KSID alone when they know it.
            self._configure(session, path.nodes, without_ksid_at=path.nodes[:1])
            informed = self._now()
            self._configure(session, path.nodes[:1])
        except AgentFailed as error:
            failure = SessionError(503, str(error), cause="agent_unreachable", node=error.node)
            self._refuse(session, failure)
            raise failure from None
        except SessionError as error:
            self._refuse(session, error)
            raise
        except BaseException:
            # A bug of ours must not leave the pair blocked for ever.
            self._refuse(session, SessionError(500, "internal error", cause="internal"))
            raise
        assigned = self._now()
        session.timings_ms = {
            "path_chosen": round((chosen - started) * 1000, 3),
            "agents_informed": round((informed - started) * 1000, 3),
            "ksid_assigned": round((assigned - started) * 1000, 3),
        }
        with self._lock:
            session.state = OPEN
            session.opened_at = time.time()
            self._store.put_session(session.ksid, session.to_store())
            self._lock.notify_all()
        self.metrics.admitted(assigned - started)
        self._journal.event(
            "ksid_assigned", ksid=session.ksid, master_sae=session.pair[0], slave_sae=session.pair[1],
            path=list(path.nodes), mode=session.mode, implicit=session.implicit, **session.timings_ms,
        )  # fmt: skip

    def _configure(self, session: KeySession, names: Iterable[str], *, without_ksid_at: Iterable[str] = ()) -> None:
        """Tell nodes of the path, all at once, what they are to have of the session; AgentFailed."""
        documents = session.to_nodes(self._bandwidth(session))
        agents = self._agents_of(names)
        missing = sorted(set(names) - set(agents))
        if missing:
            raise AgentFailed(missing[0], "it cannot be reached")
        for name in without_ksid_at:
            documents[name] = configuration.without_application(documents[name], session.ksid)
        self._agents.configure({agent: documents[name] for name, agent in agents.items() if documents[name]})

    def _configure_anew(self, session: KeySession, node: str) -> None:
        """Tell a node that may have something else of the session what it is to have; AgentFailed."""
        self._configure(session, [node], without_ksid_at=[node])
        if node in session.nodes.values():
            self._put_application(session, node)

    def _put_application(self, session: KeySession, node: str) -> None:
        agent = self._agents_of([node]).get(node)
        if agent is None:
            raise AgentFailed(node, "it cannot be reached")
        wanted = configuration.application_of(session.to_nodes(self._bandwidth(session))[node], session.ksid)
        assert wanted is not None  # noqa: S101 - it is an end
        self._agents.put_application(agent, wanted)

    def _bandwidth(self, session: KeySession) -> int:
        """What the session needs of the links on its path, bit/s."""
        if session.path is None:
            return 0
        demand = self._demand(session.qos, session.path)
        return math.ceil(8 * max(demand.per_slot(hop) for hop in range(len(session.path.qcs))))

    def _choose(self, session: KeySession) -> Path:
        """Path and admission, for one session at a time."""
        parameters = self.parameters
        with self._graph.lock:
            graph = self._graph.topology()
            unknown = sorted(set(session.nodes.values()) - set(graph))
            if unknown:
                text = f"the controller does not reach node {unknown[0]} (yet)"
                raise SessionError(503, text, cause="unknown_node", node=unknown[0])
            path = PATH_POLICIES[parameters.path_policy](graph, session.nodes["master"], session.nodes["slave"])
            if path is None:
                text = f"there is no path of QCs between {session.nodes['master']} and {session.nodes['slave']}"
                down = self._graph.down()
                raise SessionError(503, text + (f"; down: {', '.join(down)}" if down else ""), cause="no_path")
            self._admit(session.qos, path)
            session.route = self._route(path)
            session.path, session.mode = path, parameters.mode
            return path

    def _admit(self, qos: QoS, path: Path, besides: KeySession | None = None) -> None:
        """SessionError if a QC of the path cannot carry a session of that QoS beside all others but `besides`."""
        policy = ADMISSION_POLICIES[self.parameters.admission]
        short = policy(self.views(path.qcs, besides), self._demand(qos, path))
        if isinstance(short, Refused):
            raise SessionError(
                503,
                f"QC {short.qc} cannot carry the session: it needs {short.needed_bytes} bytes,"
                f" {short.available_bytes} are available",
                cause="refused", qc=short.qc, needed_bytes=short.needed_bytes, available_bytes=short.available_bytes,
            )  # fmt: skip

    def _route(self, path: Path, number: int = 0) -> configuration.Route:
        nodes, links = self._graph.nodes(), self._graph.links()
        return configuration.Route(
            [nodes[n].qkdn_id for n in path.nodes], [links[qc].link_id for qc in path.qcs], number
        )

    def _demand(self, qos: QoS, path: Path) -> Demand:
        return Demand(qos, MODES[self.parameters.mode](len(path.qcs), self.parameters.keys_ahead))

    def _reserved_per_slot(self, qc: str, besides: KeySession | None = None) -> float:
        """What the sessions that hold a path have declared to need of that QC, in bytes a slot, but for `besides`.

        A session that moves holds both ways.
        """
        held = ((s, next((p for p in (s.target, s.path) if p is not None and qc in p.qcs), None)) for s in self.all())
        return sum(
            self._demand(session.qos, path).per_slot(path.qcs.index(qc))
            for session, path in held
            if path is not None and session is not besides
        )

    def _refuse(self, session: KeySession, error: SessionError) -> None:
        facts = {"master_sae": session.pair[0], "slave_sae": session.pair[1], "message": str(error), **error.facts}
        if session.path is not None:
            self._withdraw_from_nodes(session)
        with self._lock:
            self._book.pop(session.place, None)
            self._lock.notify_all()
            self._refusals.append({"time": time.time(), **facts})
        self._answer(set(session.nodes.values()), session.pair, error, implicit=session.implicit)
        self._journal.event("application_refused", **facts)
        self.metrics.refused(str(error.facts.get("cause", "unknown")))

    def _agents_of(self, names: Iterable[str]) -> dict[str, Agent]:
        """The agents of those nodes that can be reached now."""
        return {name: node.agent for name, node in self._graph.reachable(names).items()}
