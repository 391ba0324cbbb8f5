"""The life of a key session, from the registration of its first side until its end (GS QKD 015, clause 5.2).

    (nothing) --first side--> waiting --second side--> configuring --agents informed--> open --closed--> (nothing)
                              waiting --withdrawn, or too late--> (nothing)
                                                       configuring --refused, no path, agent silent--> (nothing)

An implicit session serves applications that know GS QKD 014 and no sessions: their nodes register both sides. It gives
way to one that the applications register. Path and admission are decided one session at a time. Where a QC is to be lit
for the session, it is opened at the next try, when that QC makes key (lighting.py). Then agents are informed: first the
nodes of the path and the slave's, all at once, and then the master's node gets the KSID, so that it never asks for keys
that the others know nothing of.
"""

from __future__ import annotations

import collections
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from controller import limits
from controller.agents.agents import AgentFailed
from controller.agents.configuration import Wants
from controller.network.graph import Graph
from controller.network.store import NotKept
from controller.sessions.key_session import CONFIGURING, MASTER, OPEN, KeySession, Pair, SessionError
from controller.sessions.lighting import BEING_LIT, Lighting
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_nodes import SessionAgents, Upkeep
from decisions.paths import Path
from mtls import deadline
from telemetry import trace
from telemetry.journal import Journal
from telemetry.metrics import ControllerMetrics


class KeySessions:
    """Opens and ends the sessions of `book`. Thread-safe. `now` gives seconds that only grow.

    `saes`: the node of each SAE, as far as it is known: no other one can register it.
    """

    def __init__(
        self,
        graph: Graph,
        book: Book,
        choice: Choice,
        agents: SessionAgents,
        journal: Journal,
        *,
        upkeep: Upkeep,
        lighting: Lighting,
        saes: Mapping[str, str],
        half_open_timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._choice = choice
        self._agents = agents
        self._upkeep = upkeep
        self._lighting = lighting
        self._saes = saes
        self._journal = journal
        self._half_open_timeout_s = half_open_timeout_s
        self._now = now
        self.metrics = ControllerMetrics(self.states, lambda: len(graph.reachable(graph.nodes())))
        self._lock = threading.Lock()
        self._refusals: collections.deque[dict[str, Any]] = collections.deque(maxlen=limits.KEPT_REFUSALS)

    def register(
        self, node: str, pair: Pair, side: str | None, wants: Wants, *, implicit: bool = False, request: str = ""
    ) -> KeySession:
        """One side's registration: the session, open if this side was the second one; SessionError.

        Without a `side` the first of the two is the master: it was the one that asked ("server"). The node hears, in
        answer to its `request`, that the other side is awaited, or why the session is refused.
        """
        self.expire()
        try:
            self._check_home(node, pair, side)
            session, opening = self._book.register(node, pair, side, wants, implicit=implicit, request=request)
        except SessionError as error:
            self._agents.refuse(node, pair, [request], error, implicit=implicit)
            self._count_refusal(pair, error)
            raise
        if opening is None:  # it is open, and this node has lost it
            self._tell_again(node, session, request)
            return session
        master, slave = session.pair
        self._journal.event("application_registered", master_sae=master, slave_sae=slave, node=node, implicit=implicit)
        if opening:
            self._open(session)
        else:
            self._agents.await_other(node, pair, [request], implicit=implicit)
        return session

    def _check_home(self, node: str, pair: Pair, side: str | None) -> None:
        """SessionError if the SAE that the node registers is another one's, which could not register it any more."""
        own = pair if side is None else pair[:1] if side == MASTER else pair[1:]
        if not any(self._saes.get(sae, node) == node for sae in own):
            raise SessionError(400, f"expected an SAE of node {node}", cause="foreign")

    def _tell_again(self, node: str, session: KeySession, request: str) -> None:
        try:
            self._agents.configure_anew(session, node)
        except AgentFailed as error:
            failure = SessionError(503, str(error), cause="agent_unreachable", node=error.node)
            self._agents.refuse(node, session.pair, [request], failure, implicit=True)
            self._count_refusal(session.pair, failure)
            raise failure from None

    def _give_way(self, pair: Pair) -> None:
        """End the implicit session of a pair that has registered one."""
        implicit = self._book.take_implicit(pair)
        if implicit is not None:
            self._end(implicit, by="registration")

    def withdraw(self, node: str, pair: Pair, *, request: str = "") -> None:
        """Take back a registration, and end what has become of it; confirmed to the node that calls it by that name."""
        session = self._book.withdraw(node, pair)
        if (session is None or self._end_for(node, session)) and request:
            self._agents.confirm_withdrawal(node, pair, request)

    def ended(self, ksid: str, *, node: str) -> None:
        """A node tells, or has told before, that an application there is over; it is confirmed."""
        if self.end(ksid, node=node):
            self._agents.confirm_end(node, ksid)

    def end(self, ksid: str, *, node: str) -> bool:
        """End a session, if there is one, on behalf of one of its ends; False: it is to be told again.

        Too much waits for that node, or the store takes nothing. An end may be done with a session before all nodes
        have said that they took it over.
        """
        session = self._book.find(ksid, (OPEN, CONFIGURING))
        return session is None or node not in session.nodes.values() or self._end_for(node, session)

    def close(self, ksid: str) -> bool:
        """End an open session on behalf of the operator: the nodes are told. False if there is no such session."""
        session = self._book.find(ksid, (OPEN,))
        if session is None or not self._book.take(session):
            return False
        self._end(session, by="operator")
        return True

    def _end_for(self, node: str, session: KeySession) -> bool:
        if self._book.over_once_open(session, node):
            return True
        # A place for the step comes first: only that step ends what is taken. It is taken here all the same, or the
        # node, which is settled next, would be told of it again.
        if not self._agents.later(node, self._end, session, by=node):
            return False
        try:
            self._book.take(session)
        except (sqlite3.Error, NotKept):  # as on a full disk: the step tries it, too, and tells of it
            return False
        return True

    def _end(self, session: KeySession, *, by: str) -> None:
        if self._book.end(session):
            self._agents.forget(session)
            self._upkeep.withdraw(session)
            self._journal.event("ksid_released", ksid=session.ksid, by=by)

    def expire(self) -> None:
        """Drop sessions that only one side registered, too long ago."""
        for session in self._book.expire(self._half_open_timeout_s):
            self._journal.event("application_expired", master_sae=session.pair[0], slave_sae=session.pair[1])

    def states(self) -> dict[str, int]:
        """How many sessions are in each state."""
        return dict(collections.Counter(session.state for session in self._book.all()))

    def refusals(self) -> list[dict[str, Any]]:
        """The last refusals, the oldest first."""
        with self._lock:
            return list(self._refusals)

    def _open(self, session: KeySession) -> None:
        try:
            if not session.implicit:
                self._give_way(session.pair)
            started = self._now()
            path = self._choice.choose(session)
            self._lighting.light(path.qcs)
            chosen = self._now()
            # Two calls, one after the other.
            with deadline.until(time.monotonic() + limits.OPENING_S + 2 * self._agents.on_the_way_s(path.nodes)):
                informed = self._inform(session, path)
            assigned = self._now()
            session.timings_ms = {
                "path_chosen": round((chosen - started) * 1000, 3),
                "agents_informed": round((informed - started) * 1000, 3),
                "ksid_assigned": round((assigned - started) * 1000, 3),
            }
            self._book.opened(session)
        except AgentFailed as error:
            failure = SessionError(503, str(error), cause="agent_unreachable", node=error.node)
            self._refuse(session, failure)
            raise failure from None
        except SessionError as error:
            self._refuse(session, error)
            raise
        except NotKept as error:
            failure = SessionError(503, str(error), cause="not_kept")
            self._refuse(session, failure)
            raise failure from None
        except BaseException:
            # A bug of ours must not leave the pair blocked for ever.
            self._refuse(session, SessionError(500, "internal error", cause="internal_error"))
            raise
        self.metrics.admitted(assigned - started)
        self._journal.event(
            "ksid_assigned", ksid=session.ksid, master_sae=session.pair[0], slave_sae=session.pair[1],
            path=list(path.nodes), paths=[list(one.nodes) for one in path.paths], mode=session.mode,
            implicit=session.implicit, **session.timings_ms,
        )  # fmt: skip
        if session.over_by:
            self._end(session, by=session.over_by)

    def _inform(self, session: KeySession, path: Path) -> float:
        """Have the nodes of its path take the session over: when all knew the path. AgentFailed."""
        self._book.begin(session)
        # The master's node is told of the path with the others, of the KSID alone when they know it.
        self._agents.configure(session, path.nodes, without_ksid_at=path.nodes[:1])
        informed = self._now()
        self._agents.configure(session, path.nodes[:1])
        return informed

    def _refuse(self, session: KeySession, error: SessionError) -> None:
        self._book.drop(session)
        # Who asked does not wait until all nodes have forgotten the session, and may try again.
        for node, requests in session.requests.items():
            self._agents.refuse(node, session.pair, requests, error, implicit=session.implicit)
        self._count_refusal(session.pair, error)
        if session.path is not None:
            self._upkeep.withdraw_later(session)

    def _count_refusal(self, pair: Pair, error: SessionError) -> None:
        if error.facts.get("cause") == BEING_LIT:  # it will be opened
            self._journal.event("application_waits", master_sae=pair[0], slave_sae=pair[1], **error.facts)
            return
        facts = {"master_sae": pair[0], "slave_sae": pair[1], "message": str(error), **error.facts}
        told = {"trace": span.trace} if (span := trace.current()) is not None else {}
        with self._lock:
            self._refusals.append({"time": time.time(), **facts, **told})
        self._journal.event("application_refused", **facts)
        self.metrics.refused(str(error.facts.get("cause", "unknown")))
