"""The SDN agent: registers this node, reports its QCs once a slot, passes applications on to the controller.

Two threads do the reporting and wake when a slot begins: one says to the shared database what this end now holds, the
other to the controller how its QCs fare. Either may be away for a while: the node serves on with what is agreed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from etsi.checks import integer, mapping, sequence
from etsi.errors import Malformed
from etsi.gs004 import QoS
from mtls.serve import Problem
from node.blocks import MAX_PAYLOAD_BYTES
from node.config import NodeConfig
from node.controller_client import ControllerClient
from node.failures import KeyFailure
from node.implicit import ImplicitSessions
from node.key_stream import Held, KeyStore
from node.kme import Kme, Requested, Unauthorized
from node.parameters import Current, Parameters, parse
from node.sessions import Session, Sessions
from node.shared_db import SharedDatabase
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
_MAX_RATE = MAX_PAYLOAD_BYTES


class Agent:
    """The SDN agent of the node described by `config`."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        controller: ControllerClient,
        store: KeyStore,
        shared: SharedDatabase,
        sessions: Sessions,
        implicit: ImplicitSessions,
        requested: Requested,
        journal: Journal,
        parameters: Current,
        kme: Kme,
        set_rate: Callable[[str, int, int], None],
    ) -> None:
        self._config = config
        self._controller = controller
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._implicit = implicit
        self._requested = requested
        self._journal = journal
        self._parameters = parameters
        self._kme = kme
        self._set_rate = set_rate  # of the QKD devices, by way of the quantum module
        self._rates: dict[str, tuple[int, int]] = {}
        self._in_database = False
        self._at_controller = False
        self._reported: dict[str, Held] = {}
        # Apart, so that one that does not answer holds up only itself: without the controller running sessions still
        # get keys, and the other way round.
        self._workers = [_Worker(self._serve_database), _Worker(self._serve_controller)]

    @property
    def registered(self) -> bool:
        """Whether the shared database and the controller know this node."""
        return self._in_database and self._at_controller

    @property
    def parameters(self) -> Parameters:
        """The parameters that this node follows now."""
        return self._parameters()

    def start(self) -> None:
        """Register and report in threads, again and again until it works."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.stop()

    def on_slot(self, qc: str, slot: int) -> None:
        """A QC began a slot: there is something to report, and pooled keys grew older."""
        self._kme.on_slot(qc, slot)
        for worker in self._workers:
            worker.wake()

    def open_key_session(self, master: str, slave: str, side: str, wanted: QoS) -> tuple[dict[str, Any], int]:
        """The paper's new_app: 202 and waiting for the first of a pair, 200 and the KSID for the second; or Problem."""
        self._journal.event("new_app", master_sae=master, slave_sae=slave, side=side)
        reply = self._controller.register_side(master, slave, side, wanted)
        return dict(reply.body), reply.status

    def withdraw(self, master: str, slave: str) -> None:
        """Take back the slave's registration of a session that never came to be."""
        self._controller.withdraw(master, slave)

    def close_key_session(self, ksid: str, sae: str) -> None:
        """End a session of `sae`; Problem 404 if there is none."""
        session = self._sessions.get(ksid)
        if session is None:
            raise Problem(404, "no key session of this KSID", ksid=ksid)
        if sae not in (session.master_sae, session.slave_sae):
            raise Unauthorized("a key session is closed by one of its SAEs")
        if not self._controller.close(ksid):  # the controller has lost it: then it is over here, too
            self.remove_session(ksid)

    def put_session(self, session: Session) -> None:
        """The controller configured a session over this node. Malformed if it does not lead from SAE to SAE.

        A node could register SAEs that are not its own: keys for them would end up with it.
        """
        saes = self._config.saes
        if saes.get(session.master_sae) != session.path[0] or saes.get(session.slave_sae) != session.path[-1]:
            raise Malformed("path", "to lead from the master's node to the slave's")
        self._sessions.put(session)
        self._journal.event("session_configured", ksid=session.ksid, path=list(session.path), mode=session.mode)

    def remove_session(self, ksid: str) -> None:
        """The controller removed a session."""
        self._kme.end_session(ksid)
        if self._sessions.remove(ksid) is not None:
            self._journal.event("session_removed", ksid=ksid)

    def _serve_database(self) -> None:
        held = self._store.held()
        self._in_database = self._in_database or self._quietly(self._register_qcs)
        if self._in_database:
            self._quietly(self._report_held, held)
            self._quietly(self._kme.collect)

    def _serve_controller(self) -> None:
        held = self._store.held()
        self._at_controller = self._at_controller or self._quietly(self._register)
        if self._at_controller:
            self._quietly(self._report_status, held)
        self._quietly(self._end_idle)

    def _quietly(self, step: Callable[..., None], *arguments: object) -> bool:
        """Whether `step` worked. What is away now may be back later; a bug must not end the thread in silence."""
        try:
            step(*arguments)
        except (KeyFailure, Problem, Malformed) as error:
            _log.info("%s: %s", step.__name__, error)
            return False
        except Exception as error:
            _log.error("%s failed: %s", step.__name__, type(error).__name__)
            self._journal.event("agent_error", step=step.__name__, error=type(error).__name__)
            return False
        return True

    def _end_idle(self) -> None:
        for session in self._implicit.end_idle(self._parameters().implicit_idle_s):
            self._kme.end_session(session.ksid)
            self._journal.event("session_idle", ksid=session.ksid)

    def _register_qcs(self) -> None:
        for neighbour in self._config.qcs:
            self._shared.register_qc(neighbour.qc, neighbour.peer)

    def _report_held(self, held: Sequence[Held]) -> None:
        if held:
            self._shared.report(held)

    def _register(self) -> None:
        links = [{"qc": n.qc, "peer": n.peer} for n in self._config.qcs]
        reply = self._controller.register_node(self._config.nodes[self._config.name], links)
        self._journal.event("registered")
        self._obey(reply.body)

    def _report_status(self, held: Sequence[Held]) -> None:
        requested = self._requested.drain()
        entries = [
            {
                "qc": h.qc,
                "generated_bytes": h.generated - (self._reported[h.qc].generated if h.qc in self._reported else 0),
                "requested_bytes": requested.pop(h.qc, 0),
                "stored_bytes": h.stored,
            }
            for h in held
        ]
        entries += [
            {"qc": qc, "generated_bytes": 0, "requested_bytes": n, "stored_bytes": 0} for qc, n in requested.items()
        ]
        self._reported = {h.qc: h for h in held}
        slot = max((h.slot for h in held), default=0)
        reply = self._controller.report(slot, entries)
        if reply.status == 404:  # the controller was restarted and does not know us any more
            self._at_controller = False
        elif reply.ok:
            self._obey(reply.body)

    def _obey(self, answer: Any) -> None:
        """Take over what the controller wants: parameters, and rates of this node's QCs.

        It says so with every answer, so a node that was away needs no catching up.
        """
        given = mapping(answer, "answer")
        wanted = parse(mapping(given.get("parameters", {}), "parameters"), self._parameters())
        if wanted != self._parameters():
            self._store.put_parameters(wanted.to_json())
            self._store.ttl_slots = wanted.ttl_slots
            self._parameters.value = wanted
            self._journal.event("parameters", **wanted.to_json())
        for qc, rate in mapping(given.get("rates", {}), "rates").items():
            low, high = (integer(r, f"rates.{qc}", low=0, high=_MAX_RATE) for r in sequence(rate, "rates", longest=2))
            if self._rates.get(qc) != (low, high):
                self._rates[qc] = low, high
                self._set_rate(qc, low, high)
                self._journal.event("rate", qc=qc, low=low, high=high)


class _Worker:
    """Takes a step in a thread of its own whenever it is woken, and once a second at least."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"agent{step.__name__}", daemon=True)

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
            self._woken.wait(_RETRY_S)
            self._woken.clear()
