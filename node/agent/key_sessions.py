"""The key sessions that end at this node, as SAEs, other nodes and time have them begin and end."""

from __future__ import annotations

import logging
import time
from typing import Any

from documents.checks import Malformed
from etsi import gs015
from etsi.gs004 import QoS
from mtls.serve import Problem
from node.associations.ended_sessions import Ends
from node.associations.implicit import ImplicitSessions
from node.associations.registrations import Registrations
from node.associations.sessions import Association, Sessions
from node.config import NodeConfig
from node.failures import NoSession, RelayBroken
from node.limits import HALF_OPEN_PER_PARTY, SESSIONS_PER_PARTY
from node.relaying.routes import Routes
from node.serving.fetching import Unauthorized
from node.tree.datastore import Datastore
from node.tree.model import apps
from node.tree.notifications import EXTENDED, Streams
from node.waiting_limits import HalfOpen, Places
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_MASTER = "master"


class KeySessions:
    """Registers SAEs for key sessions, and ends these. Thread-safe. `openings`: who may wait for a session."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        datastore: Datastore,
        sessions: Sessions,
        implicit: ImplicitSessions,
        registrations: Registrations,
        ends: Ends,
        openings: Places,
        half_open: HalfOpen,
        routes: Routes,
        streams: Streams,
        journal: Journal,
    ) -> None:
        self._config = config
        self._datastore = datastore
        self._sessions = sessions
        self._implicit = implicit
        self._registrations = registrations
        self._ends = ends
        self._openings = openings
        self._half_open = half_open
        self._routes = routes
        self._streams = streams
        self._journal = journal

    def all(self) -> list[dict[str, Any]]:
        """The key sessions that end here."""
        return [
            {"ksid": s.ksid, "master_sae": s.master_sae, "slave_sae": s.slave_sae, "master_node": s.master_node,
             "slave_node": s.slave_node, "implicit": self._sessions.is_implicit(s.ksid)}
            for s in self._sessions.all()
        ]  # fmt: skip

    def open(
        self, master: str, slave: str, side: str, wanted: QoS, duration_s: float | None = None
    ) -> tuple[dict[str, Any], int]:
        """The paper's new_app: 202 and waiting for the first of a pair, 200 and the KSID for the second.

        `duration_s`: how long it is to last, as far as that side knows. Problem; Malformed if the other SAE is none of
        this network.
        """
        sae, peer = (master, slave) if side == _MASTER else (slave, master)
        if peer not in self._config.saes:
            raise Malformed("peer", "the ID of another SAE of this network")
        self._check_room(f"SAE {sae}", self._sessions.number_of(sae))
        self._half_open.add(sae, (master, slave), full=_too_many_wait(f"SAE {sae}"))
        self._journal.event("new_app", master_sae=master, slave_sae=slave, side=side)
        full = Problem(503, "too many key sessions are being opened here at once: try again", cause="opening")
        started = time.monotonic()
        try:
            with self._openings.taken(sae, full=full):
                found = self._registrations.ask(master, slave, side, wanted, duration_s=duration_s)
        except Problem as problem:
            if problem.details.get("cause") != "controller_unreachable":  # which may have heard of it all the same
                self._half_open.remove((master, slave), sae)
            raise
        # A controller that goes by the standard alone acknowledges nothing: there is only the association itself.
        if found is not None or self._streams.controlled == EXTENDED:
            self._journal.event(
                "new_app_answered", master_sae=master, slave_sae=slave, side=side,
                duration_ms=round((time.monotonic() - started) * 1000, 3),
            )  # fmt: skip
        if found is None:
            return {"status": "waiting"}, 202
        answer: dict[str, Any] = {"ksid": found.ksid}
        if side == _MASTER:
            try:
                route = self._routes.of(found)
            except (NoSession, RelayBroken) as failure:  # the session is open all the same; the first key tries again
                _log.info("route of %s: %s", found.ksid, failure)
            else:
                paths = [list(path.path) for path in route.paths]
                answer |= {"path": list(route.path), "paths": paths, "qcs": list(route.qcs)}
        return answer, 200

    def register_slave(self, node: str, master: str, slave: str, wanted: QoS) -> None:
        """The node of a master asks to register the slave's side of a session that keys are asked for in.

        Problem, Malformed.
        """
        saes = self._config.saes
        if saes.get(master) != node:
            raise Malformed("master_sae", "an SAE of the calling node")
        if saes.get(slave) != self._config.name:
            raise Malformed("slave_sae", "an SAE of this node")
        self._check_room(f"node {node}", self._sessions.number_of(node))
        self._half_open.add(node, (master, slave), full=_too_many_wait(f"node {node}"))
        self._journal.event("new_app", master_sae=master, slave_sae=slave, side="slave")
        self._registrations.announce(master, slave, wanted)

    def withdraw(self, master: str, slave: str) -> None:
        """Take back the slave's registration; the controller ends a session that it has opened meanwhile."""
        waits = self._half_open.remove((master, slave), slave)
        # Of neither nothing is told, or an SAE could tell the controller without end.
        if waits or self._sessions.of_pair(master, slave) is not None:
            self._registrations.withdraw(master, slave)

    def close(self, ksid: str, sae: str) -> None:
        """End a session of `sae`; Problem 404 if there is none."""
        session = self._sessions.get(ksid)
        if session is None:
            raise Problem(404, "no key session of this KSID", ksid=ksid)
        if sae not in session.pair:
            raise Unauthorized("a key session is closed by one of its SAEs")
        self._end(ksid)

    def configured(self, session: Association, *, anew: bool) -> None:
        """A controller has configured a session here, or changed it; `anew`: it was not here before."""
        if anew:
            self._journal.event("session_configured", ksid=session.ksid, master_sae=session.master_sae,
                                slave_sae=session.slave_sae)  # fmt: skip
        if not self._ends.came_back(session.ksid):
            return
        self._half_open.remove(session.pair)
        if anew and self._registrations.asked_implicitly(session.pair):
            self._sessions.mark_implicit(session.ksid)
        self._registrations.on_association(session)

    def end_idle(self, after_s: int) -> None:
        """End sessions that a request for keys opened, and that nobody has used for so long."""
        for session in self._implicit.idle(after_s):
            self._journal.event("session_idle", ksid=session.ksid)
            self._end(session.ksid)

    def end_expired(self) -> None:
        """Applications whose expiration_time has come are over; INTERNAL ones last as long as their link."""
        now = time.time()
        for app in apps(self._datastore.tree):
            if app.get("app_type") == gs015.INTERNAL or "expiration_time" not in app:
                continue
            if gs015.seconds(app["expiration_time"]) <= now:
                self._journal.event("session_expired", ksid=app["app_id"])
                self._end(app["app_id"])

    def tell_again(self) -> None:
        """Tell controllers of ends and withdrawals that they have not confirmed."""
        self._ends.tell()
        self._registrations.withdrawals.tell()

    def _end(self, ksid: str) -> None:
        self._ends.begin(ksid)
        if self._datastore.end_app(ksid):
            self._ends.tell(ksid)

    def _check_room(self, who: str, number: int) -> None:
        """Problem if that SAE, or other node, which has so many key sessions here, can have no more."""
        if number >= SESSIONS_PER_PARTY:
            text = f"{who} has {number} key sessions at this node: expected fewer than {SESSIONS_PER_PARTY}"
            raise Problem(503, text, cause="too_many_sessions", who=who, most=SESSIONS_PER_PARTY)


def _too_many_wait(who: str) -> Problem:
    text = f"{HALF_OPEN_PER_PARTY} registrations of {who} wait for their other side: try again when fewer do"
    return Problem(503, text, cause="opening")
