"""The SDN agent (GS QKD 015): carries out what controllers configure, and tells those who listen how the node fares.

Two threads wake when a slot begins: one says to the shared database what this end now holds, the other to the
listeners what has changed. Either side may be away for a while: the node serves on with what is agreed. A third one
erases once a slot what is too old, whatever QCs do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from documents.errors import Malformed
from etsi import gs015, gs015_testbed
from etsi.gs004 import QoS
from ietf.restconf import Tree
from mtls.serve import Problem
from node.agent.slot_reports import Reports, Totals
from node.associations.ended_sessions import Ends
from node.associations.implicit import ImplicitSessions
from node.associations.registrations import Registrations
from node.associations.sessions import Sessions
from node.config import NodeConfig
from node.failures import DatabaseChanged, KeyFailure, NoSession, RelayBroken
from node.limits import HALF_OPEN_PER_PARTY, SESSIONS_PER_PARTY
from node.material.block_comparison import Agreement
from node.material.key_stream import KeyStore
from node.material.quantum_module import QuantumModule
from node.material.shared_db import SharedDatabase
from node.parameters import Current, Parameters, parse
from node.relaying.routes import Routes
from node.serving.kme import Kme, Unauthorized
from node.serving.requested_bytes import Requested
from node.tree.datastore import Datastore
from node.tree.model import apps, capability, qcs_in_use
from node.tree.notifications import EXTENDED, Streams
from node.tree.operational_state import link_states, live
from node.tree.performance import Performance, Watch
from node.waiting_limits import HalfOpen, Places
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
_MASTER = "master"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent works with."""

    config: NodeConfig
    datastore: Datastore
    store: KeyStore
    shared: SharedDatabase
    sessions: Sessions
    implicit: ImplicitSessions
    registrations: Registrations
    ends: Ends
    openings: Places
    half_open: HalfOpen
    routes: Routes
    streams: Streams
    performance: Performance
    requested: Requested
    parameters: Current
    kme: Kme
    blocks: QuantumModule
    journal: Journal


class Agent:
    """The SDN agent made of `parts`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._in_database = False
        self._agreement = Agreement([n.qc for n in parts.config.qcs], parts.store, parts.shared, parts.journal)
        # What listeners know; nothing before there was a slot.
        held = parts.store.held()
        made, used = {h.qc: h.generated for h in held}, {h.qc: h.used for h in held}
        self._reports = Reports(Totals(max(h.slot for h in held), made, used=used)) if held else None
        self._watch = Watch()
        # Apart, so that one that does not answer holds up only itself: without the controller running sessions still
        # get keys, and the other way round.
        self._workers = [
            # What is held grows older though no block comes.
            _Worker(self._serve_database, lambda: min(_RETRY_S, parts.store.spare_s)),
            _Worker(self._serve_listeners, lambda: _RETRY_S),
        ]
        self._expiry = _Worker(self._expire, lambda: parts.config.slot_s)
        self._counting = _Worker(self._serve_count, lambda: _RETRY_S)
        self._handed_out = False
        parts.kme.on_hand_out(self._hand_out)
        parts.shared.on_other_server(self._workers[0].wake)
        parts.datastore.on_change(self._carry_out)
        for app in apps(parts.datastore.tree):
            parts.performance.app_made(app["app_id"])
        self._set_qcs({}, parts.datastore.tree)

    @property
    def in_database(self) -> bool:
        """Whether the shared database knows this node."""
        return self._in_database

    @property
    def registered(self) -> bool:
        """Whether the shared database knows this node, and a controller listens to it."""
        return self._in_database and self._parts.streams.controlled is not None

    @property
    def parameters(self) -> Parameters:
        """The parameters that this node follows now."""
        return self._parts.parameters()

    def start(self) -> None:
        """Report in threads, again and again until it works."""
        for worker in (*self._workers, self._expiry, self._counting):
            worker.start()

    def stop(self) -> None:
        """End the threads, when the shared database knows all that it has to know."""
        for worker in (*self._workers, self._expiry, self._counting):
            worker.stop()
        self._serve_count()
        self._quietly(self._parts.kme.settle_losses)

    def on_block(self, qc: str, slot: int, n_bytes: int, qber_percent: float | None) -> None:
        """A QC began a slot: there is something to report."""
        if self._reports is None:
            self._reports = Reports(Totals(slot - 1))
        self._parts.performance.block(qc, n_bytes, qber_percent)
        for worker in self._workers:
            worker.wake()

    def live(self) -> dict[str, Any]:
        """Configuration and state of this node."""
        parts = self._parts
        return live(parts.datastore.tree, parts.config, parts.performance.state(), parts.ends.unconfirmed())

    def sessions(self) -> list[dict[str, Any]]:
        """The key sessions that end here."""
        sessions = self._parts.sessions
        return [
            {"ksid": s.ksid, "master_sae": s.master_sae, "slave_sae": s.slave_sae, "master_node": s.master_node,
             "slave_node": s.slave_node, "implicit": sessions.is_implicit(s.ksid)}
            for s in sessions.all()
        ]  # fmt: skip

    def open_key_session(self, master: str, slave: str, side: str, wanted: QoS) -> tuple[dict[str, Any], int]:
        """The paper's new_app: 202 and waiting for the first of a pair, 200 and the KSID for the second.

        Problem; Malformed if the other SAE is none of this network.
        """
        sae, peer = (master, slave) if side == _MASTER else (slave, master)
        if peer not in self._parts.config.saes:
            raise Malformed("peer", "the ID of another SAE of this network")
        self._check_room(f"SAE {sae}", sum(sae in session.pair for session in self._parts.sessions.all()))
        self._parts.half_open.add(sae, (master, slave), full=_too_many_wait(f"SAE {sae}"))
        self._parts.journal.event("new_app", master_sae=master, slave_sae=slave, side=side)
        full = Problem(503, "too many key sessions are being opened here at once: try again", cause="opening")
        started = time.monotonic()
        try:
            with self._parts.openings.taken(sae, full=full):
                found = self._parts.registrations.ask(master, slave, side, wanted)
        except Problem as problem:
            if problem.details.get("cause") != "controller_unreachable":  # which may have heard of it all the same
                self._parts.half_open.remove((master, slave), sae)
            raise
        # A controller that goes by the standard alone acknowledges nothing: there is only the association itself.
        if found is not None or self._parts.streams.controlled == EXTENDED:
            self._parts.journal.event(
                "new_app_answered", master_sae=master, slave_sae=slave, side=side,
                duration_ms=round((time.monotonic() - started) * 1000, 3),
            )  # fmt: skip
        if found is None:
            return {"status": "waiting"}, 202
        answer: dict[str, Any] = {"ksid": found.ksid}
        if side == _MASTER:
            try:
                route = self._parts.routes.of(found)
            except (NoSession, RelayBroken) as failure:  # the session is open all the same; the first key tries again
                _log.info("route of %s: %s", found.ksid, failure)
            else:
                answer |= {"path": list(route.path), "qcs": list(route.qcs)}
        return answer, 200

    def register_slave(self, node: str, master: str, slave: str, wanted: QoS) -> None:
        """The node of a master asks to register the slave's side of a session that keys are asked for in.

        Problem, Malformed.
        """
        saes = self._parts.config.saes
        if saes.get(master) != node:
            raise Malformed("master_sae", "an SAE of the calling node")
        if saes.get(slave) != self._parts.config.name:
            raise Malformed("slave_sae", "an SAE of this node")
        number = sum(node in (s.master_node, s.slave_node) for s in self._parts.sessions.all())
        self._check_room(f"node {node}", number)
        self._parts.half_open.add(node, (master, slave), full=_too_many_wait(f"node {node}"))
        self._parts.journal.event("new_app", master_sae=master, slave_sae=slave, side="slave")
        self._parts.registrations.announce(master, slave, wanted)

    def withdraw(self, master: str, slave: str) -> None:
        """Take back the slave's registration; the controller ends a session that it has opened meanwhile."""
        waits = self._parts.half_open.remove((master, slave), slave)
        # Of neither nothing is told, or an SAE could tell the controller without end.
        if waits or self._parts.sessions.of_pair(master, slave) is not None:
            self._parts.registrations.withdraw(master, slave)

    def close_key_session(self, ksid: str, sae: str) -> None:
        """End a session of `sae`; Problem 404 if there is none."""
        session = self._parts.sessions.get(ksid)
        if session is None:
            raise Problem(404, "no key session of this KSID", ksid=ksid)
        if sae not in session.pair:
            raise Unauthorized("a key session is closed by one of its SAEs")
        self._end(ksid)

    def _end(self, ksid: str) -> None:
        self._parts.ends.begin(ksid)
        if self._parts.sessions.end(ksid):
            self._parts.ends.tell(ksid)

    def _check_room(self, who: str, number: int) -> None:
        """Problem if that SAE, or other node, which has so many key sessions here, can have no more."""
        if number >= SESSIONS_PER_PARTY:
            text = f"{who} has {number} key sessions at this node: expected fewer than {SESSIONS_PER_PARTY}"
            raise Problem(503, text, cause="too_many_sessions", who=who, most=SESSIONS_PER_PARTY)

    def _carry_out(self, old: Tree, new: Tree) -> None:
        """The configuration has changed."""
        parts = self._parts
        wanted = parse(new[gs015_testbed.NODE]["parameters"], parts.config.parameters)
        if wanted != parts.parameters():
            parts.store.ttl_slots = wanted.ttl_slots
            parts.parameters.value = wanted
            parts.journal.event("parameters", **wanted.to_json())
        self._set_qcs(old, new)
        before, after = ({a["app_id"]: a for a in apps(tree)} for tree in (old, new))
        for ksid in before.keys() - after.keys():
            parts.performance.app_gone(ksid)
            parts.kme.end_session(ksid)
            if before[ksid].get("app_type") != gs015.INTERNAL:
                parts.journal.event("session_removed", ksid=ksid)
        for ksid, app in after.items():
            if before.get(ksid) == app:
                continue
            parts.performance.app_made(ksid)
            found = parts.sessions.get(ksid)
            if found is None:
                continue
            if ksid not in before:
                parts.journal.event("session_configured", ksid=ksid, master_sae=found.master_sae,
                                    slave_sae=found.slave_sae)  # fmt: skip
            if not parts.ends.came_back(ksid):
                continue
            parts.half_open.remove(found.pair)
            if ksid not in before and parts.registrations.asked_implicitly(found.pair):
                parts.sessions.mark_implicit(ksid)
            parts.registrations.on_association(found)

    def _set_qcs(self, old: Tree, new: Tree) -> None:
        own = [n.qc for n in self._parts.config.qcs]
        in_use = qcs_in_use(new, own)
        for qc in own:
            self._parts.blocks.set_enabled(qc, qc in in_use and in_use[qc]["qkdl_enable"])
        before, after = (
            {qc["name"]: qc.get("rate") for qc in tree.get(gs015_testbed.NODE, {}).get("qcs", {}).get("qc", [])}
            for tree in (old, new)
        )
        for qc, rate in after.items():
            if rate is not None and rate != before.get(qc):
                self._parts.blocks.set_rate(qc, rate["low"], rate["high"])
                self._parts.journal.event("rate", qc=qc, low=rate["low"], high=rate["high"])

    def _expire(self) -> None:
        self._quietly(self._parts.kme.expire)

    def _serve_database(self) -> None:
        self._in_database = self._in_database or self._quietly(self._enter_database)
        if self._in_database:
            self._quietly(self._report)
            self._quietly(self._parts.kme.collect)
            self._quietly(self._parts.kme.settle_losses)

    def _serve_listeners(self) -> None:
        self._quietly(self._report_slot)
        self._quietly(self._report_changes)
        self._quietly(self._end_idle)
        self._quietly(self._end_expired)
        self._quietly(self._parts.ends.tell)  # again, what has not been confirmed
        self._quietly(self._parts.registrations.withdrawals.tell)

    def _quietly(self, step: Callable[..., None], *arguments: object) -> bool:
        """Whether `step` worked. What is away now may be back later; a bug must not end the thread in silence."""
        try:
            step(*arguments)
        except (KeyFailure, Problem, Malformed) as error:
            _log.info("%s: %s", step.__name__, error)
            return False
        except Exception as error:
            bugs.report(_log, f"step {step.__name__}", error, self._parts.journal)
            return False
        return True

    def _end_idle(self) -> None:
        for session in self._parts.implicit.idle(self._parts.parameters().implicit_idle_s):
            self._parts.journal.event("session_idle", ksid=session.ksid)
            self._end(session.ksid)

    def _end_expired(self) -> None:
        """Applications whose expiration_time has come are over; INTERNAL ones last as long as their link."""
        now = time.time()
        for app in apps(self._parts.datastore.tree):
            if app.get("app_type") == gs015.INTERNAL or "expiration_time" not in app:
                continue
            if gs015.seconds(app["expiration_time"]) <= now:
                self._parts.journal.event("session_expired", ksid=app["app_id"])
                self._end(app["app_id"])

    def _enter_database(self) -> None:
        parts = self._parts
        server, counted = parts.shared.enter({n.qc: n.peer for n in parts.config.qcs})
        if parts.store.catch_up(counted):
            _log.error("the local database is an older copy: what it held is erased, for it may have been used")
            parts.journal.event("older_copy_erased")
        parts.store.follow(server)

    def _hand_out(self) -> None:
        self._handed_out = True
        self._counting.wake()

    def _serve_count(self) -> None:
        """Have the shared database know of keys that were handed out."""
        if self._handed_out and self._in_database:
            self._handed_out = False  # before the count is read: what is handed out from now on is counted next time
            if not self._quietly(self._count):
                self._handed_out = True

    def _count(self) -> None:
        self._parts.shared.count(self._parts.store.counted)

    def _report(self) -> None:
        try:
            self._agreement.report()
        except DatabaseChanged:  # another server answers than before
            self._enter_database()
            self._agreement.report()

    def _report_slot(self) -> None:
        """What admission control counts: made, asked for, taken, since the last report; and in stock."""
        if self._parts.streams.controlled is None or self._reports is None:
            return  # what was made and asked for waits for somebody who wants to know
        held = self._parts.store.held()
        slot = max((h.slot for h in held), default=0)
        now = Totals(
            slot, {h.qc: h.generated for h in held}, self._parts.requested.totals(), {h.qc: h.used for h in held}
        )
        before = self._reports.since(now, self._parts.streams.controllers)
        requested = {qc: n - before.requested.get(qc, 0) for qc, n in now.requested.items()}
        entries = [
            _figures(h.qc, h.generated - before.generated.get(h.qc, 0), requested.pop(h.qc, 0))
            | {"stored": str(h.stored), "used": str(max(0, h.used - before.used.get(h.qc, 0)))}
            for h in held
        ]
        entries += [_figures(qc, 0, n) for qc, n in requested.items() if n]
        since = max(0, min(before.slot, slot - 1))
        self._parts.streams.notify_own("slot_report", {"since": str(since), "slot": str(slot), "qc": entries})

    def _report_changes(self) -> None:
        """The standard's notifications of links and interfaces."""
        tree, config, streams = self._parts.datastore.tree, self._parts.config, self._parts.streams
        state, figures_wanted = self._parts.performance.state(), capability(tree, "link_stats_support")
        physical = {link["qkdl_id"]: qc for qc, link in qcs_in_use(tree, [n.qc for n in config.qcs]).items()}
        found = {k: v for k, v in link_states(tree, config, state).items() if k in physical}
        for kind, key in self._watch.changes(found):
            link, qc = found[key], physical[key]
            performance = link["qkdl_performance"]
            if kind == "status":
                status = link["qkdl_status"]
                silent = qc in state.qcs and not state.qcs[qc].alive
                if silent:
                    interface = [n.qc for n in config.qcs].index(qc) + 1
                    reason = "no block has come for some slots"
                    streams.notify("sdqkdn_interface_down", {"qkd_interface": {"qkdi_id": interface, "reason": reason}})
                    streams.notify("sdqkdn_link_down", {"qkd_link": {"qkdl_id": key, "reason": reason}})
                severity = gs015.MINOR if status in (gs015.ACTIVE, gs015.PENDING) else gs015.MAJOR
                text = f"the link is {gs015.bare(status)}"
                entry = {"qkdl_id": key, "qkdl_status": status, "message": text, "severity": severity}
                streams.notify("alarm" if severity == gs015.MAJOR else "event", {"link": entry})
                self._parts.journal.event("link_status", qc=qc, status=gs015.bare(status))
            elif not figures_wanted:
                continue
            elif kind == "performance":
                streams.notify(
                    "sdqkdn_link_perf_update", {"qkd_link": {"qkdl_id": key, "performance": dict(performance)}}
                )
            else:
                common = {m: performance[m] for m in ("expected_consumption", "skr", "eskr")}
                streams.notify("sdqkdn_link_overloaded", {"qkd_link": {"qkdl_id": key, "performance": common}})


def _too_many_wait(who: str) -> Problem:
    text = f"{HALF_OPEN_PER_PARTY} registrations of {who} wait for their other side: try again when fewer do"
    return Problem(503, text, cause="opening")


def _figures(qc: str, generated: int, requested: int) -> dict[str, str]:
    return {"name": qc, "generated": str(max(0, generated)), "requested": str(requested)}


class _Worker:
    """Takes a step in a thread of its own whenever it is woken, and every `every_s` seconds at least."""

    def __init__(self, step: Callable[[], None], every_s: Callable[[], float]) -> None:
        self._step = step
        self._every_s = every_s
        self._woken = threading.Event()
        self._stopping = False
        self._thread = bugs.vital_thread(self._run, name=f"agent{step.__name__}", stopped=lambda: self._stopping)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._stopping = True
        self._woken.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping:
            self._step()
            self._woken.wait(self._every_s())
            self._woken.clear()
