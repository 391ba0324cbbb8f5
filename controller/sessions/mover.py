"""Looks after open key sessions: one whose path died moves to another, one that has no other waits, and all come back.

A move keeps the KSID. All nodes of the new path get a new virtual link first. Then the session is written down as going
over it, and from there on the move is only ever completed: the ends are told what feeds their application now, first
the slave's, and the old link is removed. A controller that is killed before that finds a link left over, one that is
killed behind it finds ends that are not told yet; both are put right when the nodes are found again
(Upkeep.settle).
Keys are made over the one link or the other, never over parts of both, for each has its own ID. Those that are under
way over the old one when the session moves come to their end: for LINGERS_S the slave's end takes keys over both, and
the old link stays.

Where QCs can be lit, some are for a session whose path is down and that has no other way, or none on which it is
admitted. They are chosen as for a new session, of modules and channels that there are to spare. The session waits until
they make key.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time

from controller import limits
from controller.agents.agents import AgentFailed
from controller.network.graph import Graph
from controller.sessions.key_session import MASTER, KeySession, SessionError
from controller.sessions.lighting import BEING_LIT, Lighting
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_nodes import Upkeep
from decisions.paths import Verdict
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_ALL = ""  # steps that are of no one node's


class Mover:
    """A thread that has sessions moved that need it, or for which a shorter path has been up for `steady_s`."""

    def __init__(
        self, graph: Graph, book: Book, choice: Choice, upkeep: Upkeep, journal: Journal, *, lighting: Lighting,
        steady_s: float,
    ) -> None:  # fmt: skip
        self._graph = graph
        self._book = book
        self._choice = choice
        self._upkeep = upkeep
        self._lighting = lighting
        self._journal = journal
        self._steady_s = steady_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._busy: dict[str, float] = {}  # KSID -> when it may be looked at again; infinity while it is worked at
        self._thread = bugs.vital_thread(self._run, name="mover", stopped=self._stopping.is_set)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for what is under way."""
        self._stopping.set()

    def _run(self) -> None:
        begun = swept = cleaned = time.monotonic()
        while not self._stopping.wait(limits.LOOK_S):
            self._guarded()
            now = time.monotonic()
            if now >= cleaned + limits.AGAIN_S:
                cleaned = now
                self._upkeep.later(_ALL, self._upkeep.clean_again)
            if swept <= begun + limits.ARRIVED_S and now >= swept + limits.AGAIN_S:
                swept = now
                self._upkeep.later(_ALL, self._upkeep.sweep, now > begun + limits.ARRIVED_S)

    def _guarded(self) -> None:
        """A bug must not end the thread."""
        try:
            self._look()
        except Exception as error:
            bugs.report(_log, "looking for sessions to be moved", error, self._journal)

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._busy = {ksid: until for ksid, until in self._busy.items() if until > now}
            found = [s for s in self._book.open() if s.ksid not in self._busy]
        if not found:
            return
        # All is judged by the same, and at one moment: else a grace could end between two judgements, and a session be
        # led to where it is.
        graph = self._graph
        with graph.lock:
            at = graph.now()
            usable, steady = graph.topology(at=at), self._choice.settled(graph.topology(self._steady_s, at=at))
            downs = {path: graph.lacking(path, at=at) for path in {s.path for s in found if s.path is not None}}
        # Sessions on the same path have the same verdict, and those between the same nodes the same ways.
        way = functools.cache(self._choice.path)
        verdicts = {path: self._choice.verdict(path, down, usable, steady, way) for path, down in downs.items()}
        for session in found:
            if session.path is None or (verdict := verdicts.get(session.path)) is None:
                continue
            told = tuple(verdict.down) == session.down
            if self._has_way(verdict) or not told or self._upkeep.untidy(session):
                self._next_look(session, math.inf)
                if not self._upkeep.later(session.nodes[MASTER], self._tend, session, verdict):
                    self._next_look(session, now + limits.AGAIN_S)

    def _has_way(self, verdict: Verdict) -> bool:
        """Whether it can be tried to have the session go another way."""
        return verdict.path is not None or bool(verdict.down and self._lighting.on_demand)

    def _next_look(self, session: KeySession, at: float) -> None:
        with self._lock:
            self._busy[session.ksid] = at

    def _tend(self, session: KeySession, verdict: Verdict) -> None:
        done = False
        try:
            done = self._put_right_alone(session, verdict)
        except AgentFailed as error:
            _log.info("session %s: %s", session.ksid, error)
        except Exception as error:
            bugs.report(_log, "moving a session", error, self._journal, ksid=session.ksid)
        finally:
            again_s = limits.RETRY_LIT_S if session.stays_for == BEING_LIT else limits.AGAIN_S
            self._next_look(session, time.monotonic() + (0.0 if done else again_s))

    def _put_right_alone(self, session: KeySession, verdict: Verdict) -> bool:
        with self._book.holding(session) as is_open:
            return not is_open or self._put_right(session, verdict)

    def _put_right(self, session: KeySession, verdict: Verdict) -> bool:
        """Whether the session is where it is to be; AgentFailed."""
        if not self._upkeep.lingers(session):
            session.lingers = ()
        try:
            stays = self._move(session, verdict)
            if stays is None:
                return True
            if verdict.down:
                text = f"the path of the key session is down at {', '.join(verdict.down)}; {stays}"
                cause = str(stays.facts.get("cause", ""))
                self._upkeep.interrupt(session, text, verdict.down, cause)
            self._upkeep.tell_ends(session)
            if not verdict.down:  # keys are made again once the ends know over what
                self._upkeep.interrupt(session, "", ())
        finally:
            self._upkeep.tidy(session)
        return not self._has_way(verdict)

    def _move(self, session: KeySession, verdict: Verdict) -> SessionError | None:
        """Move a session to where it is to go; why it stays, if it does. AgentFailed: it went, an end has not heard."""
        started, before = time.monotonic(), () if session.path is None else session.path.nodes
        try:
            moved = self._start(session, verdict)
            if moved is None:
                return None
            self._upkeep.add_links(moved)
        except SessionError as error:
            return error
        except AgentFailed as error:
            return SessionError(503, f"the other way fails: node {error.node} does not take part", cause="other_way")
        path = moved.path
        if path is not None and self._upkeep.commit_move(session, moved):
            self._journal.event(
                "session_moved", ksid=session.ksid, master_sae=session.pair[0], slave_sae=session.pair[1],
                before=list(before), path=list(path.nodes), paths=[list(one.nodes) for one in path.paths],
                down=list(verdict.down),
                duration_ms=round((time.monotonic() - started) * 1000, 3),
            )  # fmt: skip
            self._upkeep.tell_ends(session)
            self._upkeep.interrupt(session, "", ())
        return None

    def _start(self, session: KeySession, verdict: Verdict) -> KeySession | None:
        """The session as it will be, as of `Upkeep.start_move`. SessionError: why it stays, in words that go on."""
        if not self._has_way(verdict):
            raise SessionError(503, "there is no other way", cause="no_path")
        refused = ""
        try:
            if verdict.path is not None:
                self._lighting.light(verdict.path.qcs)
                return self._upkeep.start_move(session, verdict.path)
        except SessionError as error:
            if error.facts.get("cause") == BEING_LIT or not self._has_way(Verdict(None, verdict.down)):
                raise _in_words(error) from None
            refused = str(error)
        try:
            path = self._choice.other_way(session)
            try:
                self._lighting.light(path.qcs)
                return self._upkeep.start_move(session, path)
            finally:
                self._lighting.let_go(path.qcs)
        except SessionError as error:
            raise _in_words(error, refused) from None


def _in_words(error: SessionError, before: str = "") -> SessionError:
    """Why a session stays where it is; `before`: why it does not go where it might have gone at once."""
    if error.facts.get("cause") == BEING_LIT:  # the ends are not told again how long that takes from now on
        return SessionError(error.status, f"QC {error.facts['qc']} is being lit for it", **error.facts)
    words = [text for text in (before, str(error)) if text]
    return SessionError(error.status, f"the other way is refused: {'; '.join(dict.fromkeys(words))}", **error.facts)
