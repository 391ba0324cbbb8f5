"""The SDN agent: registers this node, reports its QCs once a slot, passes applications on to the controller.

A thread of its own does the reporting. It wakes when a slot begins, says to the shared database what this end now
holds, then to the controller how its QCs fare. Both may be away for a while: the node serves on with what is agreed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from etsi.checks import integer, mapping, sequence
from etsi.errors import Malformed
from etsi.gs004 import QoS
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from mtls.serve import Problem
from node.blocks import MAX_PAYLOAD_BYTES
from node.config import NodeConfig
from node.key_stream import Held, KeyStore
from node.kme import Kme, Requested, Unauthorized
from node.parameters import Current, parse
from node.sessions import Session, Sessions
from node.shared_db import DatabaseUnreachable, SharedDatabase
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
_MAX_RATE = MAX_PAYLOAD_BYTES
# Opening a session informs all agents of the path and waits for them; a refusal comes sooner.
_OPEN_TIMEOUT_S = 15.0


class Agent:
    """The SDN agent of the node described by `config`."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        caller: Caller,
        store: KeyStore,
        shared: SharedDatabase,
        sessions: Sessions,
        requested: Requested,
        journal: Journal,
        parameters: Current,
        kme: Kme,
    ) -> None:
        self._config = config
        self._caller = caller
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._requested = requested
        self._journal = journal
        self._parameters = parameters
        self._kme = kme
        # Where rates for QCs go: to the QKD devices, by way of the quantum module.
        self.set_rate: Callable[[str, int, int], None] = lambda *_: None
        self._rates: dict[str, tuple[int, int]] = {}
        self._controller = Identity(Role.CONTROLLER, config.controller_name)
        self._wake = threading.Event()
        self._stopping = False
        self._in_database = False
        self._at_controller = False
        self._reported: dict[str, Held] = {}
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    @property
    def registered(self) -> bool:
        """Whether the shared database and the controller know this node."""
        return self._in_database and self._at_controller

    def start(self) -> None:
        """Register and report in a thread, again and again until it works."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=5)

    def on_slot(self, qc: str, slot: int) -> None:
        """A QC began a slot: there is something to report, and pooled keys grew older."""
        self._kme.on_slot(qc, slot)
        self._wake.set()

    def open_key_session(self, master: str, slave: str, side: str, wanted: QoS) -> tuple[dict[str, Any], int]:
        """The paper's new_app: 202 and waiting for the first of a pair, 200 and the KSID for the second; or Problem."""
        body = {
            "node": self._config.name, "master_sae": master, "slave_sae": slave, "side": side, "qos": wanted.to_json(),
        }  # fmt: skip
        self._journal.event("new_app", master_sae=master, slave_sae=slave, side=side)
        reply = self._call("POST", "/qkd/v1/applications", body, timeout_s=_OPEN_TIMEOUT_S)
        if not reply.ok:
            raise _passed_on(reply)
        return dict(reply.body), reply.status

    def withdraw(self, master: str, slave: str) -> None:
        """Take back the slave's registration of a session that never came to be."""
        self._call("DELETE", f"/qkd/v1/applications?master_sae={master}&slave_sae={slave}")

    def close_key_session(self, ksid: str, sae: str) -> None:
        """End a session of `sae`; Problem 404 if there is none."""
        session = self._sessions.get(ksid)
        if session is None:
            raise Problem(404, "no key session of this KSID", ksid=ksid)
        if sae not in (session.master_sae, session.slave_sae):
            raise Unauthorized("a key session is closed by one of its SAEs")
        reply = self._call("DELETE", f"/qkd/v1/key_sessions/{ksid}")
        if reply.status == 404:  # the controller has lost it: then it is over here, too
            self.remove_session(ksid)
        elif not reply.ok:
            raise _passed_on(reply)

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

    def _run(self) -> None:
        # The two are independent: without the controller running sessions still get keys, and the other way round.
        while not self._stopping:
            held = self._store.held()
            self._in_database = self._in_database or self._quietly(self._register_qcs)
            if self._in_database:
                self._quietly(self._report_held, held)
            self._at_controller = self._at_controller or self._quietly(self._register)
            if self._at_controller:
                self._quietly(self._report_status, held)
            self._wake.wait(_RETRY_S)
            self._wake.clear()

    def _quietly(self, step: Callable[..., None], *arguments: object) -> bool:
        """Whether `step` worked. What is away now may be back later; a bug must not end the thread in silence."""
        try:
            step(*arguments)
        except (DatabaseUnreachable, Problem, Malformed) as error:
            _log.info("%s: %s", step.__name__, error)
            return False
        except Exception as error:
            _log.error("%s failed: %s", step.__name__, type(error).__name__)
            self._journal.event("agent_error", step=step.__name__, error=type(error).__name__)
            return False
        return True

    def _register_qcs(self) -> None:
        for neighbour in self._config.qcs:
            self._shared.register_qc(neighbour.qc, neighbour.peer)

    def _report_held(self, held: Sequence[Held]) -> None:
        if held:
            self._shared.report(held)

    def _register(self) -> None:
        links = [{"qc": n.qc, "peer": n.peer} for n in self._config.qcs]
        body = {"agent_url": self._config.nodes[self._config.name], "links": links}
        reply = self._call("PUT", f"/qkd/v1/nodes/{self._config.name}", body)
        if not reply.ok:
            raise _passed_on(reply)
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
        reply = self._call("POST", f"/qkd/v1/nodes/{self._config.name}/qc_status", {"slot": slot, "qcs": entries})
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
                self.set_rate(qc, low, high)
                self._journal.event("rate", qc=qc, low=low, high=high)

    def _call(self, method: str, path: str, body: Any = None, *, timeout_s: float = 5.0) -> Reply:
        try:
            return self._caller.request(
                method, self._config.controller_url + path, to=self._controller, body=body, timeout_s=timeout_s
            )
        except Unreachable as error:
            text = f"the controller cannot be reached: {error.reason}"
            raise Problem(503, text, cause="controller_unreachable") from None


def _passed_on(reply: Reply) -> Problem:
    """The controller's refusal, for the SAE to read: the same status and the same facts."""
    facts: dict[str, Any] = {}
    details = reply.body.get("details") if isinstance(reply.body, dict) else None
    for entry in details if isinstance(details, list) else []:
        if isinstance(entry, dict):
            facts |= {str(k): v for k, v in entry.items() if k not in ("status", "message")}
    status = reply.status if reply.status in (400, 409, 503) else 503
    return Problem(status, reply.message, **facts)
