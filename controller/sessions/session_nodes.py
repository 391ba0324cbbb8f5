"""Keeps open sessions at their nodes as they are to be: moves, interruptions, bandwidths, nodes that come again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller import limits
from controller.agents import configuration
from controller.agents.agents import AgentFailed
from controller.agents.configuration import Declared
from controller.sessions.key_session import MASTER, OPEN, SLAVE, KeySession, SessionError
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_agents import SessionAgents
from decisions.admission import Need
from decisions.paths import Path
from telemetry.journal import Journal


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
        """Tell the ends that are not sure, the slave's first, what feeds the session now; AgentFailed."""
        for node in (session.nodes[SLAVE], session.nodes[MASTER]):
            if node in session.unsure:
                self._agents.put_application(session, node)
                session.unsure.discard(node)

    def tidy(self, session: KeySession) -> None:
        """Remove virtual links that the session does not go over, from nodes that can be reached."""
        done = self._agents.remove({name: session.leftovers(name) for name in session.elsewhere})
        self._book.tidied(session, done)

    def untidy(self, session: KeySession) -> bool:
        """Whether nodes that can be reached have to be told something of a session that was moved."""
        return bool(self._agents.reachable({*session.elsewhere, *session.unsure}))

    def interrupt(self, session: KeySession, message: str, down: Sequence[str]) -> None:
        """There is no path for an open session, or, without a message, one again: its master's node is told."""
        if tuple(down) == session.down:
            return
        session.interruption, session.down = message, tuple(down)
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
