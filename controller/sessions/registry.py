"""The book of key sessions: who has registered, what is being opened, open, held or over; the store has it, too.

What is configured and what is open is kept: a controller that is killed goes on with the open sessions, and knows what
nodes may still have of those that it was about to open or to end.
"""

from __future__ import annotations

import collections
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from controller import limits
from controller.agents.configuration import Declared, Wants
from controller.network.store import Store
from controller.sessions.key_session import (
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
from decisions.paths import Path
from etsi.gs004 import QoS
from mtls import deadline


class Book:
    """All key sessions. Thread-safe. `now` gives seconds that only grow."""

    def __init__(self, store: Store, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Condition()
        # The sessions, by place; and the same by KSID, and by the nodes at which they end.
        self._places: dict[Place, KeySession] = {}
        self._by_ksid: dict[str, KeySession] = {}
        self._at: dict[str, dict[str, KeySession]] = {}
        # What each node may still have of sessions that are not open: resources by KSID, the oldest first.
        self._stale: dict[str, dict[str, list[str]]] = {}
        # What a controller before us may have sent to nodes and that arrives after we have had it removed, by KSID:
        # resources by node.
        self._late: dict[str, dict[str, list[str]]] = {}
        self._held: set[str] = set()  # KSIDs
        self.version = 0  # grows with each change of a session that holds a path
        self._over: collections.deque[tuple[float, KeySession]] = collections.deque(maxlen=limits.OVER_LATELY)
        self._recall()

    def _recall(self) -> None:
        """Take up what the store has."""
        # In the order in which they were opened, which is the one in which they are shown.
        for document in sorted(self._store.sessions(), key=lambda found: found["opened_at"] or 0.0):
            session = KeySession.stored(document, self._now())
            if session.state == OPEN:
                self._enter(session)
                self._late[session.ksid] = {node: session.leftovers(node) for node in session.elsewhere}
            else:
                self._may_have(session.ksid, session.at_nodes())
                self._late[session.ksid] = session.at_nodes()

    def all(self) -> list[KeySession]:
        """All sessions, the oldest first."""
        with self._lock:
            return sorted(self._places.values(), key=lambda s: s.since)

    def path_chosen(self) -> None:
        """A session was given a path: it holds it from now on."""
        with self._lock:
            self.version += 1

    def open(self) -> list[KeySession]:
        """Those that are open."""
        return [session for session in self.all() if session.state == OPEN]

    def register(
        self, node: str, pair: Pair, side: str | None, wants: Wants, *, implicit: bool, request: str = ""
    ) -> tuple[KeySession, bool | None]:
        """The session with that side in it, and whether it is to be opened now; None: it is open. SessionError."""
        with self._lock:
            place: Place = pair, implicit
            if side is None:
                place, side = self._guessed(node, pair), self._side_of(node, pair)
            known = self._known(place)
            if known is not None and known.state == OPEN and implicit and node in known.nodes.values():
                return known, None
            if known is None or node not in known.nodes.values():
                self._check_room(node, half_open=known is None)
            session = known or KeySession(str(uuid.uuid4()), place[0], wants.qos, self._now(), implicit=implicit)
            session.register(node, side, wants, self._now(), implicit=implicit, request=request)
            self._enter(session)
            return session, session.state == CONFIGURING

    def _known(self, place: Place) -> KeySession | None:
        """The session of that place; one that both sides registered serves those who ask for an implicit one, too."""
        pair, implicit = place
        there, registered = self._places.get(place), self._places.get((pair, False))
        if not implicit or registered is None or registered.state != OPEN:
            return there
        if there is not None and there.state == WAITING:  # half of a second session, which nobody needs any more
            self._leave(there)
            there = None
        return there or registered

    def _check_room(self, node: str, *, half_open: bool) -> None:
        """SessionError if no further session, or none whose other side is missing, can end at that node now."""
        here = list(self._at.get(node, {}).values())
        number = len(here) + len(self._stale.get(node, ()))
        if number >= limits.SESSIONS_OF_ONE:
            text = (
                f"node {node} has {number} key sessions, with those that are over and that it has not forgotten:"
                f" expected fewer than {limits.SESSIONS_OF_ONE}"
            )
            raise SessionError(503, text, cause="too_many_sessions", who=f"node {node}", most=limits.SESSIONS_OF_ONE)
        if half_open and sum(s.state == WAITING for s in here) >= limits.HALF_OPEN_OF_ONE:
            text = (
                f"too many applications at node {node} wait for their other side: expected fewer than"
                f" {limits.HALF_OPEN_OF_ONE}, try again"
            )
            raise SessionError(503, text, cause="opening")

    def _guessed(self, node: str, pair: Pair) -> Place:
        """The place of a registration that does not say which side it is: each may name itself first."""
        turned = pair[1], pair[0]
        waits = self._places.get((turned, False))
        if waits is not None and waits.state == WAITING and node not in waits.nodes.values():
            return turned, False
        return pair, False

    def _side_of(self, node: str, pair: Pair) -> str:
        known = self._places.get(self._guessed(node, pair))
        if known is not None and any(s == MASTER and n != node for s, n in known.nodes.items()):
            return SLAVE
        return MASTER

    def withdraw(self, node: str, pair: Pair) -> KeySession | None:
        """Take back a registration that still waits; the session, if the other side has come meanwhile."""
        with self._lock:
            session = self._places.get((pair, False))
            if session is None or node not in session.nodes.values():
                return None
            if session.state != WAITING:
                return session
            self._leave(session)
            return None

    def expire(self, age_s: float) -> list[KeySession]:
        """Drop sessions that only one side registered, the last time more than `age_s` ago: those."""
        oldest = self._now() - age_s
        with self._lock:
            late = [s for s in self._places.values() if s.state == WAITING and s.since < oldest]
            for session in late:
                self._leave(session)
        return late

    def begin(self, session: KeySession) -> None:
        """Its nodes are about to be told of it."""
        self._store.put_session(session.ksid, session.to_store())

    def opened(self, session: KeySession) -> None:
        """All its nodes have it. If one of its ends is done with it already (`over_by`), it is taken at once."""
        with self._lock:
            session.opened_at = time.time()
            self.version += 1
            # First, here and in `take`: what the store does not take has not happened.
            self._store.put_session(session.ksid, session.to_store() | {"state": session.once_open})
            session.open()
            if session.over_by:
                self._leave(session)
            self._lock.notify_all()

    def drop(self, session: KeySession) -> None:
        """It does not come to be."""
        with self._lock:
            if self._has(session):
                self._leave(session)

    def with_master_at(self, node: str, *, over_s: float) -> tuple[list[KeySession], list[KeySession]]:
        """The sessions of masters at that node: those that are there, and those that ended less than `over_s` ago."""
        with self._lock:
            while self._over and self._over[0][0] <= self._now() - over_s:
                self._over.popleft()
            there, over = list(self._at.get(node, {}).values()), [session for _, session in self._over]
        mine, gone = ([s for s in found if s.nodes.get(MASTER) == node] for found in (there, over))
        return mine, gone

    def find(self, ksid: str, states: Sequence[str]) -> KeySession | None:
        """The session of that KSID, if it is in one of `states`."""
        with self._lock:
            found = self._by_ksid.get(ksid)
            return found if found is not None and found.state in states else None

    def take(self, session: KeySession) -> bool:
        """Take an open session out of the book, because it ends; False: it is not there any more."""
        with self._lock:
            if not self._has(session):
                return False
            self._store.put_session(session.ksid, session.to_store() | {"state": ENDING})
            self._leave(session)
            return True

    def over_once_open(self, session: KeySession, node: str) -> bool:
        """An end of a session, at that node, is done with it: False if it is not being opened any more.

        Whoever opens it has its nodes forget it. The store has it as `configuring` meanwhile, never as open: so it is
        over after the death of the controller, too.
        """
        with self._lock:
            return session.over_once_open(node)

    def take_implicit(self, pair: Pair) -> KeySession | None:
        """Take the implicit session of a pair, if it is open; half of one, of which no node knows, goes as well."""
        place = pair, True
        with self._lock:
            # While its agents are being told, wait: they keep the session of a pair that they heard of last.
            self._wait(lambda: place not in self._places or self._places[place].state != CONFIGURING)
            session = self._places.get(place)
            if session is None:
                return None
            if session.state == OPEN:
                self.take(session)
                return session
            self._leave(session)
            return None

    def end(self, session: KeySession) -> bool:
        """Whether its nodes are to be told now to forget a session that ends; False: somebody else has them told.

        It is taken if it was not yet. Waits until nobody tells its nodes anything else any more.
        """
        with self._lock:
            self.take(session)
            # Whoever has not let it go by then never will; its nodes are to hear of the end all the same.
            self._lock.wait_for(lambda: session.ksid not in self._held, limits.HELD_S)
            if session.state == ENDING:
                return False
            session.end()
            return True

    def ended(self, ksid: str, left: Mapping[str, list[str]]) -> list[str]:
        """The nodes were told; `left`: resources at those that could not be.

        Names those that have forgotten far too few sessions: they are not told of their oldest ones any more.
        """
        with self._lock:
            if not left:
                self._store.remove_session(ksid)
            return self._may_have(ksid, left)

    def stale_at(self, node: str) -> dict[str, list[str]]:
        """What a node may still have of sessions that are not open, by KSID."""
        with self._lock:
            return dict(self._stale.get(node, {}))

    def unsettled_nodes(self) -> set[str]:
        """The nodes that may still have something of sessions that are not open."""
        with self._lock:
            return set(self._stale)

    def forgot(self, node: str, ksid: str) -> None:
        """That node has nothing of that session any more, or is not told of it again."""
        with self._lock:
            there = self._stale.get(node, {})
            there.pop(ksid, None)
            if not there:
                self._stale.pop(node, None)
            if not any(ksid in left for left in self._stale.values()):
                self._store.remove_session(ksid)

    def _may_have(self, ksid: str, left: Mapping[str, list[str]]) -> list[str]:
        for node, paths in left.items():
            self._stale.setdefault(node, {})[ksid] = paths
        full = [node for node in left if len(self._stale[node]) > limits.OVER_AT_ONE]
        for node in full:
            self.forgot(node, next(iter(self._stale[node])))
        return full

    def late_at_nodes(self) -> dict[str, list[str]]:
        """Resources by node that no session has or will have, and that a controller before us may have sent for."""
        found: dict[str, list[str]] = {}
        with self._lock:
            for nodes in self._late.values():
                for node, paths in nodes.items():
                    found.setdefault(node, []).extend(paths)
        return found

    def nothing_comes_late(self) -> None:
        """Whatever was under way when the controller before us ended has arrived."""
        with self._lock:
            self._late = {}

    @contextmanager
    def holding(self, session: KeySession) -> Iterator[bool]:
        """In the block nobody else tells the nodes of an open session anything; False if it is over.

        Waits until nobody else does; who has the session must not ask again. All calls in the block have HOLD_S in all.
        """
        with self._lock:
            self._wait(lambda: session.ksid not in self._held)
            is_open = self._has(session)
            if is_open:
                self._held.add(session.ksid)
        try:
            with deadline.until(time.monotonic() + limits.HOLD_S):
                yield is_open
        finally:
            if is_open:
                with self._lock:
                    self.version += session.target is not None
                    session.target = None
                    self._held.discard(session.ksid)
                    self._lock.notify_all()

    def aim(self, session: KeySession, path: Path) -> int | None:
        """A held session is to move to `path`, over a virtual link of that number; None if it is over."""
        with self._lock:
            if not self._has(session):
                return None
            number = session.aim(path)
            self.version += 1
            self._store.put_session(session.ksid, session.to_store())
            return number

    def commit(self, session: KeySession, moved: KeySession) -> bool:
        """From now on the session goes the new way, whatever its ends know; False if it is over."""
        with self._lock:
            if not self._has(session):
                return False
            session.commit(moved, time.monotonic())
            self.version += 1
            self._store.put_session(session.ksid, session.to_store())
            return True

    def changed(self, session: KeySession, qos: QoS, declared: Declared) -> None:
        """A held session is to have that quality of service from now on."""
        with self._lock:
            session.qos, session.declared = qos, declared
            self.version += 1
            if self._has(session):
                self._store.put_session(session.ksid, session.to_store())

    def reweighed(self, session: KeySession, bandwidth: int) -> None:
        """The nodes of a held session know that it needs that much now, bit/s."""
        with self._lock:
            session.bandwidth = bandwidth
            if self._has(session):
                self._store.put_session(session.ksid, session.to_store())

    def tidied(self, session: KeySession, names: Iterable[str]) -> None:
        """Those nodes have no virtual link of the session left over."""
        with self._lock:
            for name in names:
                session.tidied(name)
            if self._has(session):
                self._store.put_session(session.ksid, session.to_store())

    def _has(self, session: KeySession) -> bool:
        return self._places.get(session.place) is session

    def _enter(self, session: KeySession) -> None:
        """The session is in the book, with the nodes that it has by now."""
        self._places[session.place] = self._by_ksid[session.ksid] = session
        self.version += 1
        for node in session.nodes.values():
            self._at.setdefault(node, {})[session.ksid] = session

    def _leave(self, session: KeySession) -> None:
        """The session is out of the book; whoever waited for it to be open, or gone, looks again."""
        del self._places[session.place], self._by_ksid[session.ksid]
        self.version += 1
        for node in session.nodes.values():
            del self._at[node][session.ksid]
            if not self._at[node]:
                del self._at[node]
        if session.state == OPEN:
            self._over.append((self._now(), session))
        self._lock.notify_all()

    def _wait(self, until: Callable[[], bool]) -> None:
        """Wait for another thread, whose steps all have their time-outs; that the bound is passed is a bug of ours."""
        if not self._lock.wait_for(until, limits.HELD_S):
            raise RuntimeError("nobody let go of a key session")
