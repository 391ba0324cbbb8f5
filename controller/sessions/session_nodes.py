"""What nodes are told of key sessions: to have them, to forget them, how they fare; and what keeps open ones so there.

That is moves, interruptions, bandwidths, and nodes that come again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller import limits
from controller.agents import configuration
from controller.agents.agents import AgentFailed, Agents, ended, interrupted, refusal, waiting, withdrawn
from controller.agents.configuration import Declared
from controller.network.graph import Graph
from controller.network.nodes import Agent
from controller.sessions.application_answers import Words
from controller.sessions.key_session import MASTER, OPEN, SLAVE, KeySession, Pair, SessionError
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from decisions.admission import Need
from decisions.paths import Path
from telemetry.journal import Journal


class SessionAgents:
    """The agents of the nodes of sessions, as far as they can be reached. Thread-safe."""

    def __init__(self, graph: Graph, agents: Agents, words: Words) -> None:
        self._graph = graph
        self._agents = agents
        self._words = words

    def configure(
        self,
        session: KeySession,
        names: Iterable[str],
        *,
        without_ksid_at: Iterable[str] = (),
    ) -> None:
        """Tell nodes of the path, all at once, what they are to have of the session; AgentFailed."""
        documents = session.to_nodes()
        agents = self.reachable(names)
        missing = sorted(set(names) - set(agents))
        if missing:
            raise AgentFailed(missing[0], "it cannot be reached")
        for name in without_ksid_at:
            documents[name] = configuration.without_application(documents[name], session.ksid)
        self._agents.configure({agent: documents[name] for name, agent in agents.items() if documents[name]})

    def configure_anew(self, session: KeySession, node: str) -> None:
        """Tell a node that may have something else of the session what it is to have; AgentFailed."""
        self.configure(session, [node], without_ksid_at=[node])
        if node in session.nodes.values():
            self.put_application(session, node)

    def tell_bandwidth(self, session: KeySession) -> None:
        """Tell nodes of the path that can be reached what the session needs of the links there; AgentFailed."""
        documents = {name: configuration.bandwidths(document) for name, document in session.to_nodes().items()}
        agents = self.reachable(documents)
        self._agents.configure({agent: documents[name] for name, agent in agents.items() if documents[name]})

    def put_application(self, session: KeySession, node: str) -> None:
        """Have an end's application be as it is to be; AgentFailed."""
        agent = self.reachable([node]).get(node)
        if agent is None:
            raise AgentFailed(node, "it cannot be reached")
        wanted = configuration.application_of(session.to_nodes()[node], session.ksid)
        assert wanted is not None  # noqa: S101 - it is an end
        self._agents.put_application(agent, wanted)

    def has(self, session: KeySession, node: str, document: Mapping[str, object]) -> bool:
        """Whether a node of the path, as `document` (qkd_node) shows it, has all that it is to have of the session."""
        return configuration.is_complete(document, session.to_nodes()[node])

    def lacks_application(self, session: KeySession, node: str) -> bool:
        """Whether that node can be asked, and does not have the session's application; AgentFailed."""
        agent = self.reachable([node]).get(node)
        return agent is not None and not self._agents.application(agent, session.ksid)

    def remove(self, resources: Mapping[str, Sequence[str]]) -> set[str]:
        """Delete resources below qkd_node, by node; the names of those that said that it is done."""
        agents = self.reachable(resources)
        return set(agents) - self._agents.remove({agent: resources[name] for name, agent in agents.items()})

    def refuse(self, node: str, pair: Pair, requests: Sequence[str], error: SessionError, *, implicit: bool) -> None:
        """Have a node whose applications wait with those requests know why there is no session."""
        document = refusal(
            *pair, implicit=implicit, requests=requests, status=error.status, message=str(error), facts=error.facts
        )
        self._words.say(node, _about(pair, implicit, requests), document, for_s=limits.ASKED_S)

    def await_other(self, node: str, pair: Pair, requests: Sequence[str], *, implicit: bool) -> None:
        """Have a node whose applications wait with those requests know that the other side is awaited."""
        document = waiting(*pair, implicit=implicit, requests=requests)
        self._words.say(node, _about(pair, implicit, requests), document, for_s=limits.ASKED_S)

    def confirm_end(self, node: str, ksid: str) -> None:
        """Have a node that told of an application's end know that it need not tell of it again."""
        self._words.say(node, (ksid, "ended"), ended(ksid), for_s=limits.ASKED_S)

    def confirm_withdrawal(self, node: str, pair: Pair, request: str) -> None:
        """Have a node that took a registration back know that it need not tell of that again."""
        self._words.say(node, (pair, "withdrawn"), withdrawn(*pair, request=request), for_s=limits.ASKED_S)

    def interrupt(self, session: KeySession) -> None:
        """Have the master's node, which makes the keys, know how the path fares."""
        document = interrupted(session.ksid, session.interruption, session.down)
        self._words.say(session.nodes[MASTER], session.ksid, document)

    def forget(self, session: KeySession) -> None:
        """The session is over: nobody need know how it fares."""
        self._words.forget(session.nodes[MASTER], session.ksid)

    def later(self, node: str, step: Callable[..., None], *arguments: object, **named: object) -> bool:
        """Have `step` done by a thread, for that node; False if too much waits for it already."""
        return self._agents.later(node, step, *arguments, **named)

    def on_the_way_s(self, names: Iterable[str]) -> float:
        """Seconds that the round trips of a call to the farthest of those nodes take."""
        return max((self._agents.on_the_way_s(agent) for agent in self.reachable(names).values()), default=0.0)

    def reachable(self, names: Iterable[str]) -> dict[str, Agent]:
        """The agents of those nodes that can be reached now."""
        return {name: node.agent for name, node in self._graph.reachable(names).items()}


def _about(pair: Pair, implicit: bool, requests: Sequence[str]) -> tuple[object, ...]:
    return (pair, implicit, *requests)


class Upkeep:
    """The steps; who takes several of a session holds it (Book.hold). Thread-safe."""

    def __init__(self, book: Book, choice: Choice, agents: SessionAgents, journal: Journal) -> None:
        self._book = book
        self._choice = choice
        self._agents = agents
        self._journal = journal
        self._lock = threading.Lock()
        self._cleaned: set[str] = set()  # nodes for which a step that cleans is under way, or waits

    def later(self, node: str, step: Callable[..., None], *arguments: object) -> bool:
        """Have `step` done by a thread, for that node; False if too much waits for it already."""
        return self._agents.later(node, step, *arguments)

    def start_move(self, session: KeySession, path: Path) -> KeySession | None:
        """The session as it will be on `path`, which is reserved for it; None if that cannot be. SessionError: refused.

        It is to be held.
        """
        return self._choice.aim(session, path)

    def commit_move(self, session: KeySession, moved: KeySession) -> bool:
        """From now on the session goes the new way, whatever its ends know; False if it is over."""
        return self._book.commit(session, moved)

    def add_links(self, moved: KeySession) -> None:
        """Have all nodes of a path have the virtual link, though no application is fed by it yet; AgentFailed."""
        path = moved.path
        assert path is not None  # noqa: S101 - it has been chosen
        self._agents.configure(moved, path.nodes, without_ksid_at=(path.nodes[0], path.nodes[-1]))

    def tell_ends(self, session: KeySession) -> None:
        """Tell the ends that are not sure, the slave's first, what feeds the session now; AgentFailed.

        The slave's is told again, once nothing lingers.
        """
        for node in (session.nodes[SLAVE], session.nodes[MASTER]):
            if node in session.unsure:
                self._agents.put_application(session, node)
                if node == session.nodes[MASTER] or not session.lingers:
                    session.unsure.discard(node)

    def tidy(self, session: KeySession) -> None:
        """Remove virtual links that the session does not go over, from nodes that can be reached; not what lingers."""
        if session.lingers:
            return
        done = self._agents.remove({name: session.leftovers(name) for name in session.elsewhere})
        self._book.tidied(session, done)

    def untidy(self, session: KeySession) -> bool:
        """Whether nodes that can be reached have to be told something of a session that was moved."""
        names = {*session.elsewhere, *session.unsure}
        if self.lingers(session):
            names = session.unsure - {session.nodes[SLAVE]}
        return bool(names) and bool(self._agents.reachable(names))

    def lingers(self, session: KeySession) -> bool:
        """Whether keys may be under way yet that were begun before the session moved."""
        return bool(session.lingers) and time.monotonic() < session.moved_at + limits.LINGERS_S

    def interrupt(self, session: KeySession, message: str, down: Sequence[str], cause: str = "") -> None:
        """There is no path for an open session, or, without a message, one again: its master's node is told.

        It is told again when something else is down, or when the `cause` for which the session stays is another one.
        """
        if (tuple(down), cause) == (session.down, session.stays_for):
            return
        session.interruption, session.down, session.stays_for = message, tuple(down), cause
        self._agents.interrupt(session)
        if message:
            self._journal.event("session_interrupted", ksid=session.ksid, message=message, down=list(down))
        else:
            self._journal.event("session_resumed", ksid=session.ksid)

    def change(self, ksid: str, node: str, now: Declared) -> None:
        """The node of an end of a session declares another quality of service, which counts if it is admitted.

        Both ends are told what counts; AgentFailed. What the links are to carry follows (reweigher.py).
        """
        session = self._book.find(ksid, (OPEN,))
        if session is None or node not in session.nodes.values():
            return
        with self._book.holding(session) as is_open:
            if is_open:
                self._decide_change(session, node, now)
                session.unsure |= set(session.nodes.values())
                self.tell_ends(session)

    def _decide_change(self, session: KeySession, node: str, now: Declared) -> None:
        try:
            self._choice.change(session, now)
        except SessionError as error:
            # The standard has no word of refusal; but the nodes hear what still counts.
            self._journal.event("change_refused", ksid=session.ksid, node=node, message=str(error))
        else:
            self._journal.event("session_changed", ksid=session.ksid, node=node, declared=dict(session.declared))

    def needs_of(self, node: str) -> dict[str, Need]:
        """What that node's sessions, as masters, have declared to need of each QC."""
        return self._choice.needs_of(node)

    def outdated(self, session: KeySession) -> bool:
        """Whether the session needs more or less of its links now than its nodes have been told."""
        return self._choice.bandwidth(session) != session.bandwidth

    def reweigh(self, session: KeySession) -> None:
        """Tell the nodes of a held session what it needs of their links now; AgentFailed.

        Those that cannot be reached are told when they come again.
        """
        bandwidth = self._choice.bandwidth(session)
        self._agents.tell_bandwidth(replace(session, bandwidth=bandwidth))
        self._book.reweighed(session, bandwidth)

    def withdraw(self, session: KeySession) -> None:
        """Have all nodes of its path forget a session; those that cannot be told are told again."""
        resources = session.at_nodes()
        done = self._agents.remove(resources)
        self._over(session, {name: paths for name, paths in resources.items() if name not in done})

    def withdraw_later(self, session: KeySession) -> None:
        """The same, for a session that nobody has; does not wait."""
        resources = session.at_nodes()
        self._over(session, resources)
        for node in resources:
            self._clean_later(node)

    def _over(self, session: KeySession, left: Mapping[str, list[str]]) -> None:
        for node in self._book.ended(session.ksid, left):
            text = f"it has not forgotten {limits.OVER_AT_ONE} key sessions that are over: it may keep the oldest one"
            self._journal.event("agent_misbehaves", node=node, error=text)

    def clean_again(self) -> None:
        """Have nodes that can be reached forget sessions that are no more, as far as they have not done so."""
        for node in self._agents.reachable(self._book.unsettled_nodes()):
            self._clean_later(node)

    def _clean_later(self, node: str) -> None:
        """One step at a time does so: a node that is slow keeps its other steps for those who register there."""
        with self._lock:
            if node not in self._cleaned and self._agents.later(node, self._clean_if_possible, node):
                self._cleaned.add(node)

    def _clean_if_possible(self, node: str) -> None:
        try:
            with contextlib.suppress(AgentFailed):  # it is told again
                while self._book.stale_at(node):  # more may have come meanwhile
                    self._clean(node)
        finally:
            with self._lock:
                self._cleaned.discard(node)

    def _clean(self, node: str) -> None:
        for ksid, paths in self._book.stale_at(node).items():
            if not self._agents.remove({node: paths}):
                raise AgentFailed(node, "a session that is over could not be removed")
            self._book.forgot(node, ksid)

    def sweep(self, at_last: bool) -> None:
        """Remove, again, what a controller before us was about to remove or to configure.

        Its last words may have been on their way to a node for as long as a call takes. No session of ours is touched:
        its links have numbers of their own. `at_last`: nothing can come any more.
        """
        late = self._book.late_at_nodes()
        if late:
            self._agents.remove(late)
        if at_last:
            self._book.nothing_comes_late()

    def settle(self, node: str, document: Mapping[str, Any]) -> list[str]:
        """A node came (again), configured as `document` (qkd_node) says: have it forget sessions that are no more.

        Open sessions that it does not have it is told of; but for implicit ones that end there: KSIDs of those that are
        over. AgentFailed.
        """
        over = []
        self._clean(node)
        for session in self._book.open():
            if not session.concerns(node):
                continue
            with self._book.holding(session) as is_open:
                if is_open and self._is_over(session, node, document):
                    over.append(session.ksid)
                elif is_open:
                    self._settle(session, node, document)
        return over

    def _is_over(self, session: KeySession, node: str, document: Mapping[str, Any]) -> bool:
        """Whether an implicit session ended in idleness at that node, whose word of it was lost.

        Configured again it would be taken for one that was registered, which does not idle; whoever wants keys gets
        another one.
        """
        if not session.implicit or node not in session.nodes.values():
            return False
        if configuration.application_of(document, session.ksid) is not None:
            return False
        # It may have come to be since the node was read.
        return self._agents.lacks_application(session, node)

    def _settle(self, session: KeySession, node: str, document: Mapping[str, Any]) -> None:
        path, left = session.path, session.leftovers(node)
        if left:
            if not self._agents.remove({node: left}):
                raise AgentFailed(node, "a link that leads nowhere could not be removed")
            self._book.tidied(session, [node])
        if path is not None and node in path.nodes:
            if not self._agents.has(session, node, document):
                self._agents.configure_anew(session, node)
            session.unsure.discard(node)
        if session.interruption and node == session.nodes[MASTER]:
            self._agents.interrupt(session)
