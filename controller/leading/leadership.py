"""Whether this controller leads: it asks the database again and again, as a stand-by and as the leader.

A leader whose term is over knows much that is not so any more, and may have calls under way. It ends, and is a stand-by
from its start on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from controller import limits
from controller.leading.lease import Lease, Standing
from controller.leading.shared_store import LeaseCalls, SharedStore
from controller.network.store import NotKept
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)


class Leadership:
    """That of controller `name`, one of `urls`, of which the first one leads where there was no leader yet.

    `on_over` is called, from any thread and perhaps from several, when its term is over; it does not return.
    Thread-safe.
    """

    def __init__(
        self,
        name: str,
        urls: dict[str, str],
        calls: LeaseCalls,
        journal: Journal,
        *,
        lease_s: float,
        on_over: Callable[[], None],
    ) -> None:
        self.name = name
        self._urls = urls
        self._calls = calls
        self._journal = journal
        self._on_over = on_over
        self._lock = threading.Lock()
        started = time.monotonic()
        # As if the database had been silent for long: there may be no way to it before somebody has switches forward.
        self._lease = Lease(name, lease_s, started - limits.ROUTE_S if name == next(iter(urls)) else started)
        self._stopping = False
        self._woken = threading.Event()
        self._store: SharedStore | None = None
        self._thread = bugs.vital_thread(self._lead_on, name="lease", stopped=lambda: self._stopping)

    @property
    def term(self) -> int:
        """Its term; 0 if it stands by."""
        return self._lease.term or 0

    @property
    def last_term(self) -> int:
        """The latest term that it has heard of, its own or another one's."""
        return self._lease.latest

    def sure(self) -> bool:
        """Whether it leads for certain."""
        return self._lease.standing(time.monotonic()) == Standing.LEADS

    def routes(self) -> bool:
        """Whether it has switches forward."""
        return self._lease.routes(time.monotonic(), limits.ROUTE_S)

    def to_json(self) -> dict[str, Any]:
        """The document that operators get: `leader` and its `url` are null if nobody is known to lead."""
        lease, now = self._lease, time.monotonic()
        leader = lease.leader.name if lease.leader is not None and lease.has_leader(now) else None
        return {
            "name": self.name, "standing": str(lease.standing(now)), "leader": leader,
            "term": lease.leader.term if lease.leader else None, "url": self._urls.get(leader or ""),
        }  # fmt: skip

    def try_to_lead(self) -> bool:
        """Ask once; whether this controller leads now."""
        asked_at = time.monotonic()
        take = self._lease.may_take_over(asked_at, limits.DEFER_S)
        try:
            leader, silent_s = self._calls.lead(take=take)
        except NotKept as error:
            _log.info("%s", error)
            with self._lock:
                self._lease = self._lease.unanswered()
            return False
        with self._lock:
            self._lease = self._lease.answered(leader, asked_at)
        if not self.term:
            return False
        self._journal.event("leads", controller=self.name, term=leader.term, silent_s=silent_s)
        return True

    def lead_on(self, store: SharedStore) -> None:
        """Say from now on that it is there; what `store` has missed meanwhile it catches up with."""
        self._store = store
        self._thread.start()

    def spoken_of(self, term: int) -> None:
        """A node has heard of that term, which is not this controller's: is it over?"""
        with self._lock:
            self._lease = self._lease.spoken_of(term)
        self._woken.set()

    def over(self) -> None:
        """The database has said that the term is over."""
        self._on_over()

    def resign(self) -> None:
        """Lead no more, so that the stand-by need not wait."""
        self._stopping = True
        self._woken.set()
        if self._lease.term is not None:
            try:
                self._calls.resign(self._lease.term)
            except NotKept as error:
                _log.info("%s", error)

    def _lead_on(self) -> None:
        while not self._stopping:
            self._renew()
            self._woken.wait(limits.RENEW_S)
            self._woken.clear()

    def _renew(self) -> None:
        lease, asked_at = self._lease, time.monotonic()
        try:
            leader = self._calls.renew(self.term, lease.spoken)
        except NotKept as error:
            _log.info("%s", error)
            return
        with self._lock:
            self._lease = self._lease.answered(leader, asked_at)
        if self._lease.standing(time.monotonic()) == Standing.OVER:
            if not self._stopping:
                self._on_over()
        elif self._store is not None:
            try:
                self._store.catch_up()
            except NotKept as error:
                _log.info("%s", error)
