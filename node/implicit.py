"""Key sessions that nobody opened: GS QKD 014 has none, so a first request for keys opens one, and idleness ends it.

The first request of a pair waits until the controller has admitted and configured the session; those that come
meanwhile wait for the same one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from etsi.gs004 import QoS
from mtls.serve import Problem
from node.controller_client import ControllerClient
from node.failures import NoSession, SessionRefused
from node.sessions import Session, Sessions

_log = logging.getLogger(__name__)
# Each takes one of the server's threads until the controller has answered; the others serve sessions that are open.
_MAX_WAITING = 16


class ImplicitSessions:
    """The sessions of this node's SAEs as masters, opened where there is none. Thread-safe.

    `now` gives seconds that only grow.
    """

    def __init__(
        self,
        node: str,
        sessions: Sessions,
        controller: ControllerClient,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._sessions = sessions
        self._controller = controller
        self._now = now
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}  # KSID -> last request
        self._ended: set[str] = set()  # KSIDs that the controller has yet to hear of
        self._opening: dict[tuple[str, str], threading.Lock] = {}
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)

    def session(self, master: str, slave: str, slave_node: str, wanted: QoS) -> Session:
        """The open session of the pair, in use from now on; SessionRefused if there is none and none is admitted."""
        found = self._in_use(master, slave)
        if found is None:
            with self._turn(master, slave):
                found = self._in_use(master, slave)
                if found is None:
                    self._controller.open_implicit(master, slave, slave_node, wanted)
                    found = self._in_use(master, slave)
        if found is None:
            raise NoSession("the key session ended as soon as it was open", master_sae=master, slave_sae=slave)
        return found

    def end_idle(self, idle_s: float) -> list[Session]:
        """End implicit sessions that nobody has used for `idle_s` seconds; those that ended now."""
        ended = []
        for session in self._sessions.all():
            if session.implicit and session.path[0] == self._node and self._end_if_idle(session, idle_s):
                ended.append(session)
        self._tell_controller()
        return ended

    def _in_use(self, master: str, slave: str) -> Session | None:
        with self._lock:
            found = self._sessions.of_pair(master, slave)
            if found is not None and found.implicit:
                self._used[found.ksid] = self._now()
            return found

    def _end_if_idle(self, session: Session, idle_s: float) -> bool:
        with self._lock:
            # A session kept from before a restart counts as used when this node first sees it.
            idle = self._now() - self._used.setdefault(session.ksid, self._now())
            if idle < idle_s or self._sessions.remove(session.ksid) is None:
                return False
            del self._used[session.ksid]
            self._ended.add(session.ksid)
            return True

    def _tell_controller(self) -> None:
        with self._lock:
            known = {s.ksid for s in self._sessions.all()}
            self._used = {ksid: at for ksid, at in self._used.items() if ksid in known}
            # A session that came back meanwhile, because a new request found it still open there, lives on.
            self._ended -= known
            ended = sorted(self._ended)
        for ksid in ended:
            try:
                self._controller.close(ksid)
            except Problem as problem:
                _log.info("end of session %s: %s", ksid, problem)
                return  # another time
            with self._lock:
                self._ended.discard(ksid)

    @contextmanager
    def _turn(self, master: str, slave: str) -> Iterator[None]:
        """One at a time for each pair."""
        if not self._waiting.acquire(blocking=False):
            raise SessionRefused("too many key sessions are being opened here at once: try again", cause="opening")
        try:
            with self._lock:
                turn = self._opening.setdefault((master, slave), threading.Lock())
            with turn:
                yield
        finally:
            self._waiting.release()
