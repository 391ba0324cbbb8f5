"""Has the figures that nodes have of open sessions follow what those need now, which changes with the mode.

A change concerns all sessions over several hops at once. So it is told a few at a time, in the background, behind
moves; nodes change figures alone, and keys are made all the while.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from controller import limits
from controller.agents.agents import AgentFailed
from controller.sessions.key_session import KeySession
from controller.sessions.registry import Book
from controller.sessions.session_nodes import Upkeep
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)


class Reweigher:
    """A thread that looks for such sessions, and those that tell their nodes."""

    def __init__(self, book: Book, upkeep: Upkeep, journal: Journal) -> None:
        self._book = book
        self._upkeep = upkeep
        self._journal = journal
        self._stopping = threading.Event()
        self._thread = bugs.vital_thread(self._run, name="reweigher", stopped=self._stopping.is_set)
        self._pool = ThreadPoolExecutor(limits.REWEIGHED_AT_ONCE, thread_name_prefix="reweigh")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for what is under way."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        pause_s = limits.LOOK_S
        while not self._stopping.wait(pause_s):
            pause_s = limits.LOOK_S if self._guarded() else limits.AGAIN_S

    def _guarded(self) -> bool:
        """Whether all is told; a bug must not end the thread in silence."""
        try:
            return self._look()
        except Exception as error:
            if not self._stopping.is_set():
                bugs.report(_log, "reweighing", error, self._journal)
            return False

    def _look(self) -> bool:
        outdated = [session for session in self._book.open() if self._upkeep.outdated(session)]
        if not outdated:
            return True
        started = time.monotonic()
        told = sum(self._pool.map(self._reweigh, outdated))
        duration_ms = round((time.monotonic() - started) * 1000, 3)
        self._journal.event("sessions_reweighed", sessions=told, duration_ms=duration_ms)
        return told == len(outdated)

    def _reweigh(self, session: KeySession) -> bool:
        """Whether all nodes of the session that can be reached know now what it needs, or it is over."""
        try:
            with self._book.holding(session) as is_open:
                if is_open:
                    self._upkeep.reweigh(session)
        except AgentFailed as error:
            _log.info("session %s: %s", session.ksid, error)
            return False
        return True
