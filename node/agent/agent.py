"""The SDN agent (GS QKD 015): carries out what controllers configure, and has what is owed to others told.

Two threads wake when a slot begins: one says to the shared database what this end now holds, the other to the
listeners what has changed. Either side may be away for a while: the node serves on with what is agreed. A third one
erases once a slot what is too old, whatever QCs do; a fourth one counts for the database the keys that were handed out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from documents.checks import Malformed
from etsi import gs015, gs015_testbed
from ietf.restconf import Tree
from mtls.serve import Problem
from node.agent.key_sessions import KeySessions
from node.agent.reporting import Reporting
from node.associations.ended_sessions import Ends
from node.associations.sessions import Sessions
from node.config import Current, NodeConfig, Parameters, parse_parameters
from node.failures import DatabaseChanged, KeyFailure
from node.material.block_comparison import Agreement
from node.material.key_store import KeyStore
from node.material.quantum_module import QuantumModule
from node.material.shared_db import SharedDatabase
from node.serving.kme import Kme
from node.tree.datastore import Datastore
from node.tree.model import Change, apps, qcs_in_use
from node.tree.notifications import Streams
from node.tree.operational_state import live
from node.tree.performance import Performance
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_RETRY_S = 1.0


class Agent:
    """The SDN agent of a node. `parameters` are the node's; the agent changes them as controllers say."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        datastore: Datastore,
        store: KeyStore,
        shared: SharedDatabase,
        sessions: Sessions,
        key_sessions: KeySessions,
        ends: Ends,
        streams: Streams,
        performance: Performance,
        reporting: Reporting,
        parameters: Current,
        kme: Kme,
        blocks: QuantumModule,
        journal: Journal,
    ) -> None:
        self._config = config
        self._datastore = datastore
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._key_sessions = key_sessions
        self._ends = ends
        self._streams = streams
        self._performance = performance
        self._reporting = reporting
        self._parameters = parameters
        self._kme = kme
        self._blocks = blocks
        self._journal = journal
        self._in_database = False
        self._agreement = Agreement([n.qc for n in config.qcs], store, shared, journal)
        # Apart, so that one that does not answer holds up only itself: without the controller running sessions still
        # get keys, and the other way round.
        self._slot_workers = [
            # What is held grows older though no block comes.
            _Worker(self._serve_database, lambda: min(_RETRY_S, store.spare_s)),
            _Worker(self._serve_listeners, lambda: _RETRY_S),
        ]
        self._counting = _Worker(self._serve_count, lambda: _RETRY_S)
        self._workers = [*self._slot_workers, _Worker(self._expire, lambda: config.slot_s), self._counting]
        self._handed_out = False
        kme.on_hand_out(self._hand_out)
        shared.on_other_server(self._slot_workers[0].wake)
        streams.on_controller(self._slot_workers[1].wake)  # it is told at once what there is
        datastore.on_change(self._carry_out)
        for app in apps(datastore.tree):
            performance.app_made(app["app_id"])
        self._set_qcs({}, datastore.tree)

    @property
    def in_database(self) -> bool:
        """Whether the shared database knows this node."""
        return self._in_database

    @property
    def registered(self) -> bool:
        """Whether the shared database knows this node, and a controller listens to it."""
        return self._in_database and self._streams.controlled is not None

    @property
    def parameters(self) -> Parameters:
        """The parameters that this node follows now."""
        return self._parameters()

    def start(self) -> None:
        """Report in threads, again and again until it works."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """End the threads, when the shared database knows all that it has to know."""
        for worker in self._workers:
            worker.stop()
        self._serve_count()
        self._quietly(self._kme.settle_losses)

    def on_block(self, qc: str, slot: int, n_bytes: int, qber_percent: float | None) -> None:
        """A QC began a slot: there is something to report."""
        self._reporting.on_slot(slot)
        self._performance.block(qc, n_bytes, qber_percent)
        for worker in self._slot_workers:
            worker.wake()

    def live(self) -> dict[str, Any]:
        """Configuration and state of this node."""
        state = self._performance.state(self._store.ttl_slots)
        return live(self._datastore.tree, self._config, state, self._ends.unconfirmed())

    def _carry_out(self, change: Change) -> None:
        """The configuration has changed."""
        wanted = parse_parameters(change.new[gs015_testbed.NODE]["parameters"], self._config.parameters)
        if wanted != self._parameters():
            self._store.ttl_slots = wanted.ttl_slots
            self._parameters.value = wanted
            self._journal.event("parameters", **wanted.to_json())
        self._set_qcs(change.old, change.new)
        for ksid, (was, now) in change.apps.items():
            if now is None and was is not None:
                self._performance.app_gone(ksid)
                self._kme.end_session(ksid)
                if was.get("app_type") != gs015.INTERNAL:
                    self._journal.event("session_removed", ksid=ksid)
        for ksid, (was, now) in change.apps.items():
            if now is not None:
                self._performance.app_made(ksid)
                if (found := self._sessions.get(ksid)) is not None:
                    self._key_sessions.configured(found, anew=was is None)

    def _set_qcs(self, old: Tree, new: Tree) -> None:
        own = [n.qc for n in self._config.qcs]
        in_use = qcs_in_use(new, own)
        for qc in own:
            self._blocks.set_enabled(qc, qc in in_use and in_use[qc]["qkdl_enable"])
        before, after = (
            {qc["name"]: qc.get("rate") for qc in tree.get(gs015_testbed.NODE, {}).get("qcs", {}).get("qc", [])}
            for tree in (old, new)
        )
        for qc, rate in after.items():
            if rate is not None and rate != before.get(qc):
                self._blocks.set_rate(qc, rate["low"], rate["high"])
                self._journal.event("rate", qc=qc, low=rate["low"], high=rate["high"])

    def _expire(self) -> None:
        self._quietly(self._kme.expire)

    def _serve_database(self) -> None:
        self._in_database = self._in_database or self._quietly(self._enter_database)
        if self._in_database:
            self._quietly(self._report)
            self._quietly(self._kme.collect)
            self._quietly(self._kme.settle_losses)

    def _serve_listeners(self) -> None:
        self._quietly(self._reporting.report_slot)
        self._quietly(self._reporting.report_changes)
        self._quietly(self._key_sessions.end_idle, self._parameters().implicit_idle_s)
        self._quietly(self._key_sessions.end_expired)
        self._quietly(self._key_sessions.tell_again)

    def _quietly(self, step: Callable[..., None], *arguments: object) -> bool:
        """Whether `step` worked. What is away now may be back later; a bug must not end the thread in silence."""
        try:
            step(*arguments)
        except (KeyFailure, Problem, Malformed) as error:
            _log.info("%s: %s", step.__name__, error)
            return False
        except Exception as error:
            bugs.report(_log, f"step {step.__name__}", error, self._journal)
            return False
        return True

    def _enter_database(self) -> None:
        server, counted = self._shared.enter({n.qc: n.peer for n in self._config.qcs})
        if self._store.catch_up(counted):
            _log.error("the local database is an older copy: what it held is erased, for it may have been used")
            self._journal.event("older_copy_erased")
        self._store.follow(server)

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
        self._shared.count(self._store.counted)

    def _report(self) -> None:
        try:
            self._agreement.report()
        except DatabaseChanged:  # another server answers than before
            self._enter_database()
            self._agreement.report()


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
