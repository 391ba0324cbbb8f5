"""The life of a key session, from the registration of its first side until its end.

    (nothing) --first side--> waiting --second side--> configuring --agents informed--> open --closed--> (nothing)
                              waiting --withdrawn, or too late--> (nothing)
    (nothing) --a master's first request for keys--> configuring, for both sides at once: an implicit session
                                                       configuring --refused, no path, agent silent--> (nothing)

What is configured and what is open is kept in a store: a controller that is killed goes on with the open sessions, and
has the agents forget those that it was about to open or to end.

An implicit session serves applications that know GS QKD 014 and no sessions. It gives way to one that both sides
register. Path and admission are decided one session at a time, under the graph's lock; agents are informed outside of
it.
"""

from __future__ import annotations

import collections
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controller.admission import ADMISSION_POLICIES, MODES, Demand, QcView, Refused
from controller.agents import AgentFailed, Agents
from controller.graph import Graph, UnknownNode
from controller.parameters import Parameters, changed
from controller.paths import PATH_POLICIES, Path
from controller.store import Store
from etsi.gs004 import QoS
from etsi.gs004 import qos as qos_of
from telemetry.journal import Journal
from telemetry.metrics import ControllerMetrics

Pair = tuple[str, str]  # master SAE, slave SAE
Place = tuple[Pair, bool]  # whether implicit

WAITING, CONFIGURING, OPEN, ENDING = "waiting", "configuring", "open", "ending"
_PARAMETERS, _RATES = "parameters", "rates"
_KEPT_REFUSALS = 100


class SessionError(Exception):
    """A session that does not come to be: `status` as HTTP has it, `facts` for programs, with a `cause`."""

    def __init__(self, status: int, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.facts = facts


@dataclass(slots=True)
class KeySession:
    """A key session; `nodes` holds the node of each side ("master", "slave") that has registered.

    `implicit`: nobody registered it, a request for keys called for it.
    """

    ksid: str
    pair: Pair
    qos: QoS
    since: float
    nodes: dict[str, str] = field(default_factory=dict)
    implicit: bool = False
    state: str = WAITING
    mode: str = ""
    path: Path | None = None
    opened_at: float | None = None  # wall clock

    @classmethod
    def stored(cls, document: Mapping[str, Any], since: float) -> KeySession:
        """A session out of the store."""
        path = Path(tuple(document["path"]), tuple(document["qcs"]))
        return cls(
            document["ksid"], (document["master_sae"], document["slave_sae"]), qos_of(document["qos"]), since,
            nodes={"master": path.nodes[0], "slave": path.nodes[-1]}, implicit=document["implicit"],
            state=document["state"], mode=document["mode"], path=path, opened_at=document["opened_at"],
        )  # fmt: skip

    @property
    def place(self) -> Place:
        """Where the book of sessions has it."""
        return self.pair, self.implicit

    def to_agents(self) -> dict[str, Any]:
        """The document that agents get."""
        assert self.path is not None  # noqa: S101 - it is configured after its path was chosen
        return {
            "ksid": self.ksid, "master_sae": self.pair[0], "slave_sae": self.pair[1], "path": list(self.path.nodes),
            "qcs": list(self.path.qcs), "mode": self.mode, "qos": self.qos.to_json(),
            "implicit": self.implicit,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        path = None if self.path is None else list(self.path.nodes)
        return {
            "ksid": self.ksid, "master_sae": self.pair[0], "slave_sae": self.pair[1], "state": self.state,
            "mode": self.mode, "path": path, "qcs": [] if self.path is None else list(self.path.qcs),
            "qos": self.qos.to_json(), "opened_at": self.opened_at, "implicit": self.implicit,
        }  # fmt: skip


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
        self.metrics = ControllerMetrics(self.states, lambda: len(graph.nodes()))
        self._lock = threading.Condition()
        self._book: dict[Place, KeySession] = {}
        self._refusals: collections.deque[dict[str, Any]] = collections.deque(maxlen=_KEPT_REFUSALS)
        self._unsettled: dict[str, set[str]] = {}  # KSIDs that are not open, and the nodes that may think otherwise
        self._recall()

    def register(self, node: str, pair: Pair, side: str, qos: QoS) -> tuple[KeySession, dict[str, float] | None]:
        """One side's registration: the session, and how long its steps took in ms once it is open; SessionError."""
        arrived = self._now()
        self.expire()
        with self._lock:
            session = self._book.get((pair, False))
            if session is None:
                session = KeySession(str(uuid.uuid4()), pair, qos, arrived)
                self._book[session.place] = session
            if session.state != WAITING:
                raise SessionError(409, "a key session of this pair is open already", cause="exists", ksid=session.ksid)
            if session.nodes.get(side, node) != node:
                raise SessionError(409, "another node has registered this SAE", cause="foreign")
            if any(other == node for s, other in session.nodes.items() if s != side):
                raise SessionError(400, "both SAEs are at the same node, which needs no QKD", cause="same_node")
            if side == "master":
                session.qos = qos  # the one who asks for keys says of which size and how often
            session.nodes[side] = node
            complete = len(session.nodes) == 2
            if complete:
                session.state = CONFIGURING
        self._journal.event("application_registered", master_sae=pair[0], slave_sae=pair[1], side=side, node=node)
        if complete:
            self._give_way(pair)
        return session, self._open(session) if complete else None

    def open_implicit(self, node: str, pair: Pair, slave_node: str, qos: QoS) -> KeySession:
        """A session for keys that the master at `node` asked for, or the open one of this pair; SessionError."""
        nodes = {"master": node, "slave": slave_node}
        if node == slave_node:
            raise SessionError(400, "both SAEs are at the same node, which needs no QKD", cause="same_node")
        with self._lock:
            known = [s for s in (self._book.get((pair, False)), self._book.get((pair, True))) if s is not None]
            found = next((s for s in known if s.state == OPEN), None)
            if found is None and any(s.state == CONFIGURING for s in known):
                raise SessionError(503, "a key session of this pair is being opened: try again", cause="opening")
            if found is None:
                session = KeySession(str(uuid.uuid4()), pair, qos, self._now(), nodes, implicit=True, state=CONFIGURING)
                self._book[session.place] = session
        if found is None:
            self._open(session)
            return session
        if found.nodes != nodes:
            raise SessionError(503, "another node has registered one of these SAEs", cause="foreign")
        try:  # the node has lost it, or it would not ask
            self._agents.tell(node, self._graph.node(node).agent_url, found.ksid, found.to_agents())
        except AgentFailed as error:
            raise SessionError(503, str(error), cause="agent_unreachable", node=error.node) from None
        return found

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
        """End a session, on behalf of one of its ends or (None) the operator; False if there is no such session."""
        with self._lock:
            session = next((s for s in self._book.values() if s.ksid == ksid and s.state == OPEN), None)
            if session is None or (node is not None and node not in session.nodes.values()):
                return False
            del self._book[session.place]
        self._end(session, by=node or "operator")
        return True

    def _end(self, session: KeySession, *, by: str) -> None:
        self._store.put_session(session.ksid, session.to_json() | {"state": ENDING})
        self._agents.remove(self._urls(session), session.ksid)
        self._store.remove_session(session.ksid)
        self._journal.event("ksid_released", ksid=session.ksid, by=by)

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
        return self.parameters

    def set_rate(self, qc: str, low: int, high: int) -> bool:
        """Have a QC make low to high bytes a slot; False if there is no such QC."""
        known = self._graph.set_rate(qc, low, high)
        if known:
            self._store.put_setting(_RATES, self._store.setting(_RATES) | {qc: [low, high]})
            self._journal.event("rate", qc=qc, low=low, high=high)
        return known

    def views(self, qcs: Sequence[str]) -> list[QcView]:
        """How each of `qcs` fared over the last TTL slots, and what is reserved there."""
        views = self._graph.views(qcs, self.parameters.ttl_slots)
        return [replace(view, reserved_per_slot=self._reserved_per_slot(view.qc)) for view in views]

    def remind(self, node: str) -> None:
        """Tell a node that registered (again) of the open sessions over it."""
        url = self._graph.node(node).agent_url
        for ksid in self._to_recall(node):
            self._agents.recall(node, url, ksid)
        for session in self.all():
            if session.state == OPEN and session.path is not None and node in session.path.nodes:
                self._agents.remind(node, url, session.ksid, session.to_agents())

    def _to_recall(self, node: str) -> list[str]:
        """Sessions that the node is to forget; those that all nodes of their path were told of are settled."""
        with self._lock:
            found = [ksid for ksid, nodes in self._unsettled.items() if node in nodes]
            for ksid in found:
                self._unsettled[ksid].discard(node)
                if not self._unsettled[ksid]:
                    del self._unsettled[ksid]
                    self._store.remove_session(ksid)
        return found

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
        for qc, (low, high) in self._store.setting(_RATES).items():
            self._graph.want_rate(qc, low, high)
        for document in self._store.sessions():
            if document["state"] == OPEN:
                session = KeySession.stored(document, self._now())
                self._book[session.place] = session
            else:
                self._unsettled[document["ksid"]] = set(document["path"])

    def _open(self, session: KeySession) -> dict[str, float]:
        started = self._now()
        try:
            self._choose(session)
            chosen = self._now()
            self._store.put_session(session.ksid, session.to_json())
            self._agents.configure(self._urls(session), session.ksid, session.to_agents())
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
        informed = self._now()
        with self._lock:
            session.state = OPEN
            session.opened_at = time.time()
            self._store.put_session(session.ksid, session.to_json())
            self._lock.notify_all()
        self.metrics.admitted(informed - started)
        timings_ms = {
            "path_chosen": round((chosen - started) * 1000, 3),
            "agents_informed": round((informed - started) * 1000, 3),
        }
        self._journal.event(
            "ksid_assigned", ksid=session.ksid, master_sae=session.pair[0], slave_sae=session.pair[1],
            path=list(session.path.nodes if session.path else ()), mode=session.mode, implicit=session.implicit,
            **timings_ms,
        )  # fmt: skip
        return timings_ms

    def _choose(self, session: KeySession) -> None:
        """Path and admission, for one session at a time."""
        parameters = self.parameters
        with self._graph.lock:
            graph = self._graph.topology()
            unknown = sorted(set(session.nodes.values()) - set(graph))
            if unknown:
                raise SessionError(503, f"node {unknown[0]} is not known to the controller (yet)", cause="unknown_node")
            path = PATH_POLICIES[parameters.path_policy](graph, session.nodes["master"], session.nodes["slave"])
            if path is None:
                ends = f"{session.nodes['master']} and {session.nodes['slave']}"
                raise SessionError(503, f"there is no path of QCs between {ends}", cause="no_path")
            demand = self._demand(session.qos, path)
            short = ADMISSION_POLICIES[parameters.admission](self.views(path.qcs), demand)
            if isinstance(short, Refused):
                raise SessionError(
                    503,
                    f"QC {short.qc} cannot carry the session: it needs {short.needed_bytes} bytes,"
                    f" {short.available_bytes} are available",
                    cause="refused", qc=short.qc, needed_bytes=short.needed_bytes,
                    available_bytes=short.available_bytes,
                )  # fmt: skip
            session.path, session.mode = path, parameters.mode

    def _demand(self, qos: QoS, path: Path) -> Demand:
        return Demand(qos, MODES[self.parameters.mode](len(path.qcs), self.parameters.keys_ahead))

    def _reserved_per_slot(self, qc: str) -> float:
        """What the sessions that hold a path have declared to need of that QC, in bytes a slot."""
        return sum(
            self._demand(s.qos, s.path).per_slot(s.path.qcs.index(qc))
            for s in self.all()
            if s.path is not None and qc in s.path.qcs
        )

    def _refuse(self, session: KeySession, error: SessionError) -> None:
        facts = {"master_sae": session.pair[0], "slave_sae": session.pair[1], "message": str(error), **error.facts}
        with self._lock:
            self._book.pop(session.place, None)
            self._store.remove_session(session.ksid)
            self._lock.notify_all()
            self._refusals.append({"time": time.time(), **facts})
        self._journal.event("application_refused", **facts)
        self.metrics.refused(str(error.facts.get("cause", "unknown")))

    def _urls(self, session: KeySession) -> dict[str, str]:
        urls = {}
        for name in session.path.nodes if session.path else ():
            try:
                urls[name] = self._graph.node(name).agent_url
            except UnknownNode:  # it has not come back since the controller started
                continue
        return urls
