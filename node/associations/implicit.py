"""Key sessions that nobody opened: GS QKD 014 has none, so a first request for keys opens one, and idleness ends it.

The first request of a pair waits until the controller has admitted and configured the session; those that come
meanwhile wait for the same one. The slave's node is asked to register its side, too: to the controller it is an
association like any other.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from decisions.rhythm import Rhythm
from etsi.gs004 import QoS
from mtls import deadline
from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from mtls.serve import Problem
from node.associations.registrations import Registrations
from node.associations.sessions import Association, Sessions
from node.failures import NoSession, PathDown, SessionRefused
from node.limits import ANSWER_S, LED_PART, OPENING_S, SESSIONS_PER_PARTY
from node.waiting_limits import Once, Places

_LOOK_S = 0.05  # between two looks at whether the controller has led a session another way
_MOST_PAIRS = 1 << 14  # whose rhythm is remembered, also when their session has ended


class ImplicitSessions:
    """The sessions of this node's SAEs as masters, opened where there is none. Thread-safe.

    `now` gives seconds that only grow.
    """

    def __init__(
        self,
        node: str,
        sessions: Sessions,
        registrations: Registrations,
        *,
        nodes: Mapping[str, str],
        caller: Caller,
        openings: Places,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._sessions = sessions
        self._registrations = registrations
        self._nodes = nodes
        self._caller = caller
        self._now = now
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}  # KSID -> last request
        self._rhythms: collections.OrderedDict[tuple[str, str], Rhythm] = collections.OrderedDict()
        self._opening: Once[None] = Once()
        self._openings = openings

    def session(self, master: str, slave: str, slave_node: str, wanted: QoS) -> Association:
        """The open session of the pair, in use from now on; SessionRefused if there is none and none is admitted."""
        self._note_request((master, slave))
        found = self._in_use(master, slave)
        if found is None:
            full = SessionRefused("too many key sessions are being opened here at once: try again", cause="opening")
            with self._openings.taken(master, full=full):
                # What is refused to the first one is refused to all who waited.
                self._opening.do((master, slave), lambda: self._open_unless_open(master, slave, slave_node, wanted))
            found = self._in_use(master, slave)
        if found is None:
            raise NoSession("the key session ended as soon as it was open", master_sae=master, slave_sae=slave)
        return found

    def ksid(self, master: str, slave: str) -> str | None:
        """The KSID of the pair's session, if there is one."""
        found = self._sessions.of_pair(master, slave)
        return None if found is None else found.ksid

    def max_bps(self, ksid: str) -> int | None:
        """The maximum bandwidth of that session, if it has one."""
        found = self._sessions.get(ksid)
        return None if found is None else found.max_bps

    def min_bps(self, ksid: str) -> int | None:
        """The bandwidth that the session has declared to need, if it has."""
        found = self._sessions.get(ksid)
        return None if found is None else found.min_bps

    def led(self, ksid: str, links: int) -> Association | None:
        """That session once so many links feed it; None if the controller has no way for it, or takes too long.

        It leads open sessions over as many paths as a mode takes that was set a moment ago.
        """
        found, until = self._sessions.get(ksid), time.monotonic() + LED_PART * deadline.left(OPENING_S)
        if found is None or not self._openings.take(master := found.master_sae):
            return None
        try:
            while found is not None and len(found.backing) < links:
                if time.monotonic() >= until or not self._registrations.may_be_led(*found.pair):
                    return None
                time.sleep(_LOOK_S)
                found = self._sessions.get(ksid)
            return found
        finally:
            self._openings.give_back(master)

    def check_path(self, master: str, slave: str) -> None:
        """PathDown if the controller has no path for the pair's session now."""
        problem = self._registrations.interruption(master, slave)
        if problem is not None:
            facts = {k: v for k, v in problem.details.items() if k != "cause"}
            raise PathDown(problem.message, **facts)

    def idle(self, idle_s: float) -> Iterator[Association]:
        """Implicit sessions that nobody has used for `idle_s` seconds, or for what the rhythm of their pair needs.

        Each is judged when it is asked for.
        """
        for session in self._sessions.all():
            if (
                self._sessions.is_implicit(session.ksid)
                and session.master_node == self._node
                and self._is_idle(session, idle_s)
            ):
                yield session

    def _open_unless_open(self, master: str, slave: str, slave_node: str, wanted: QoS) -> None:
        if self._in_use(master, slave) is None:  # it may have been opened a moment ago
            self._open(master, slave, slave_node, wanted)

    def _open(self, master: str, slave: str, slave_node: str, wanted: QoS) -> None:
        if self._sessions.number_of(master) >= SESSIONS_PER_PARTY:
            text = f"SAE {master} has {SESSIONS_PER_PARTY} key sessions: end one, or wait until some have been idle"
            raise SessionRefused(text, cause="too_many_sessions", who=f"SAE {master}", most=SESSIONS_PER_PARTY)
        body = {"master_sae": master, "slave_sae": slave, "qos": wanted.to_json()}
        try:
            url = f"{self._nodes[slave_node]}/qkd/v1/applications"
            to = Identity(Role.NODE, slave_node)
            reply = self._caller.request("POST", url, to=to, body=body, timeout_s=ANSWER_S)
        except Unreachable as error:
            text = f"no key session: node {slave_node} cannot be reached: {error.reason}"
            raise SessionRefused(text, cause="agent_unreachable", node=slave_node) from None
        if not reply.ok:
            cause = str(reply.detail("cause") or "refused")
            raise SessionRefused(f"no key session: {reply.message}", cause=cause, node=slave_node)
        try:
            found = self._registrations.ask(master, slave, "master", wanted, implicit=True)
        except Problem as problem:
            facts = {"cause": "refused", **problem.details}
            # GS QKD 014 knows 400 and 503; a conflict with another session may be over at the next try.
            status = 400 if problem.status == 400 else 503
            raise SessionRefused(f"no key session: {problem.message}", status=status, **facts) from None
        if found is not None and self._sessions.of_pair(master, slave) == found:
            with self._lock:
                self._used[found.ksid] = self._now()

    def _in_use(self, master: str, slave: str) -> Association | None:
        with self._lock:
            found = self._sessions.of_pair(master, slave)
            if found is not None and self._sessions.is_implicit(found.ksid):
                self._used[found.ksid] = self._now()
            return found

    def _note_request(self, pair: tuple[str, str]) -> None:
        with self._lock:
            now = self._now()
            known = self._rhythms.pop(pair, None)
            self._rhythms[pair] = Rhythm(now) if known is None else known.asked(now)
            if len(self._rhythms) > _MOST_PAIRS:
                self._rhythms.popitem(last=False)

    def _is_idle(self, session: Association, idle_s: float) -> bool:
        with self._lock:
            # A session kept from before a restart counts as used when this node first sees it.
            idle = self._now() - self._used.setdefault(session.ksid, self._now())
            rhythm = self._rhythms.get(session.pair)
            if idle < (idle_s if rhythm is None else rhythm.patience_s(idle_s)):
                return False
            del self._used[session.ksid]
            known = {s.ksid for s in self._sessions.all()}
            self._used = {ksid: at for ksid, at in self._used.items() if ksid in known}
        return True
