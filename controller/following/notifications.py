"""What an agent's notifications (GS QKD 015, clause 6.3) have the controller do.

Slot reports and withdrawals are heard at once, as they come. Registrations and changes wait for their turn, in steps
beside the thread that listens: they call nodes.
"""

from __future__ import annotations

import functools
import logging
import math
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from controller import limits
from controller.agents import configuration
from controller.agents.agents import AgentFailed, Agents
from controller.network.graph import Graph
from controller.network.nodes import Report
from controller.sessions.key_session import SessionError
from controller.sessions.lifecycle import KeySessions
from controller.sessions.session_nodes import Upkeep
from documents.checks import Malformed
from etsi import gs015, gs015_testbed
from telemetry import trace
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_ENVELOPE = "ietf-restconf:notification"
_NEW = f"{gs015.MODULE}:sdqkdn_application_new"


class _Announced:
    """A pair's registrations that wait for their turn, or are under way.

    `withdrawn`: the node has taken them back; `anew`: and has registered the pair once more since.
    """

    withdrawn = anew = False


class Notifications:
    """Those of one node. In the block of `followed` it is still the node that is followed; AgentFailed if not."""

    def __init__(
        self,
        node: str,
        *,
        graph: Graph,
        agents: Agents,
        sessions: KeySessions,
        upkeep: Upkeep,
        journal: Journal,
        followed: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._node = node
        self._graph = graph
        self._agents = agents
        self._sessions = sessions
        self._upkeep = upkeep
        self._journal = journal
        self._followed = followed
        self._flood_told_at = -math.inf
        # Registrations that wait for their turn, by the pair as the node names it; a withdrawal is heard at once.
        self._announced: weakref.WeakValueDictionary[tuple[str, ...], _Announced] = weakref.WeakValueDictionary()

    def handle(self, event: Any) -> bool:
        """Have done what the node announces; whether it is to be read anew. Malformed, Refusal."""
        envelope = event.get(_ENVELOPE) if isinstance(event, Mapping) else None
        if not isinstance(envelope, Mapping):
            raise Malformed(_ENVELOPE, "an object")
        found = [self._handle(name, content) for name, content in envelope.items() if name != "eventTime"]
        return any(found)

    def _handle(self, name: str, content: Any) -> bool:
        module, _, own = name.partition(":")
        if name == _NEW:
            application = gs015_testbed.read_notification(name, content).get("qkd_application", {})
            with trace.received(application.get("qkd-testbed:traceparent")):
                self._later(functools.partial(self._register, self._announce(application)), application)
        elif module == gs015_testbed.MODULE:
            if own == "slot_report":
                return self._report(gs015_testbed.read_notification(name, content))
            if own == "application_withdrawn":
                self._withdraw(gs015_testbed.read_notification(name, content))
        elif module == gs015.MODULE and own == "sdqkdn_application_disconnected":
            application = gs015.read_notification(own, content).get("qkd_application", {})
            if "app_id" in application:
                self.ended(application["app_id"])
        elif module == gs015.MODULE and own == "sdqkdn_application_qos_update":
            application = gs015.read_notification(own, content).get("qkd_application", {})
            if "app_id" in application:
                with trace.begin():
                    self._later(self._change, application)
        elif module == gs015.MODULE and own in gs015.NOTIFICATIONS and "application" not in own:
            return True
        return False

    def _later(self, step: Callable[[Mapping[str, Any]], None], application: Mapping[str, Any]) -> None:
        if self._agents.later(self._node, step, application):
            return
        now = time.monotonic()
        if now >= self._flood_told_at + limits.MISBEHAVED_S:  # the journal takes no flood
            self._flood_told_at = now
            self._journal.event("agent_misbehaves", node=self._node, error="it announces more than can be done")

    def _report(self, content: Mapping[str, Any]) -> bool:
        reports = [
            Report(
                qc["name"], int(qc.get("generated", 0)), int(qc.get("requested", 0)),
                int(qc["stored"]) if "stored" in qc else None, int(qc.get("used", 0)),
            )
            for qc in content.get("qc", [])
        ]  # fmt: skip
        slot, since = int(content.get("slot", 0)), content.get("since")
        needs = functools.partial(self._upkeep.needs_of, self._node)
        with self._followed():
            self._graph.report(
                self._node, slot, reports, since=None if since is None else int(since), needs=needs
            )
        self._sessions.expire()
        # A node that was read between two looks of its own sees no change of a link, and tells of none.
        made = {report.qc for report in reports if report.generated_bytes}
        node = self._graph.nodes().get(self._node)
        return node is not None and any(e.qc in made and e.enabled and e.dry for e in node.links.values())

    def _announce(self, application: Mapping[str, Any]) -> _Announced:
        if application.get("qkd-testbed:implicit", False):
            return _Announced()  # nobody withdraws such a one
        pair = _pair_named(application)
        found = self._announced.get(pair)
        if found is None or found.withdrawn:
            if found is not None:
                found.anew = True
            found = self._announced[pair] = _Announced()
        return found

    def _withdraw(self, content: Mapping[str, Any]) -> None:
        waiting = self._announced.get(_pair_named(content))
        if waiting is not None:
            waiting.withdrawn = True
        request = content.get("request", "")
        if len(request) > limits.MAX_ID:
            raise Malformed("request", f"at most {limits.MAX_ID} characters")
        with self._followed():
            self._sessions.withdraw(self._node, configuration.pair(content), request=request)

    def ended(self, ksid: str) -> None:
        """A key session ended at the node; AgentFailed if it is followed no more."""
        with trace.begin(), self._followed():
            self._sessions.ended(ksid, node=self._node)

    def _change(self, application: Mapping[str, Any]) -> None:
        """An application at this node wants something else."""
        try:
            self._upkeep.change(application["app_id"], self._node, configuration.declared(application))
        except AgentFailed as error:
            _log.info("application %s: %s", application["app_id"], error)  # told again soon (mover.py)

    def _register(self, announced: _Announced, application: Mapping[str, Any]) -> None:
        """An application asks for an association; the agent hears how that fares."""
        if announced.withdrawn:
            return
        try:
            request = application.get("qkd-testbed:request", "")
            if len(request) > limits.MAX_ID:
                raise Malformed("request", f"at most {limits.MAX_ID} characters")
            pair = configuration.pair(application)
            self._sessions.register(
                self._node, pair, application.get("qkd-testbed:side"), configuration.wanted(application),
                implicit=bool(application.get("qkd-testbed:implicit", False)), request=request,
            )  # fmt: skip
            if announced.withdrawn and not announced.anew:
                # The withdrawal came while this was under way, and found nothing yet.
                self._sessions.withdraw(self._node, pair)
        except (SessionError, Malformed) as error:
            # Those whom the session concerned have been told; a document that is wrong concerns nobody.
            _log.info("application at %s: %s", self._node, error)


def _pair_named(content: Mapping[str, Any]) -> tuple[str, ...]:
    return (content.get("server_app_id", ""), *content.get("client_app_id", []))
