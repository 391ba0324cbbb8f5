"""Follows the agents: reads what each node is, listens to its notifications, and has it settled when it comes (again).

A thread for each agent. When its event stream breaks, the node counts as unreachable until it is read anew; nothing is
replayed, because everything is in what is read then.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from controller import declared
from controller.agents import Agent, AgentFailed, Agents, waiting
from controller.graph import Graph, Report
from controller.key_session import SessionError
from controller.key_sessions import KeySessions
from controller.settings import Settings
from controller.upkeep import Upkeep
from etsi import gs015, gs015_testbed
from etsi.errors import Malformed
from etsi.yang import Refusal
from mtls import trace
from mtls.call import Unreachable
from mtls.events import Listener
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_RETRY_S = 0.5
# A node that knows only the standard is asked how its links fare, once a slot.
_SLOT_S = 1.0
_ENVELOPE = "ietf-restconf:notification"
_NEW = f"{gs015.MODULE}:sdqkdn_application_new"


class Followers:
    """The threads that follow agents. Thread-safe."""

    def __init__(
        self,
        graph: Graph,
        agents: Agents,
        journal: Journal,
        *,
        sessions: KeySessions,
        settings: Settings,
        upkeep: Upkeep,
    ) -> None:
        self._make = functools.partial(
            Follower,
            graph=graph,
            agents=agents,
            journal=journal,
            sessions=sessions,
            settings=settings,
            upkeep=upkeep,
        )
        self._graph = graph
        self._agents = agents
        self._lock = threading.Lock()
        self._followers: dict[str, Follower] = {}
        settings.on_change(self._settings_changed)

    def follow(self, agent: Agent) -> None:
        """Follow an agent from now on, in place of any other of that name."""
        follower = self._make(agent)
        with self._lock:
            old = self._followers.get(agent.name)
            self._followers[agent.name] = follower
        if old is not None:
            old.stop()
        follower.start()

    def forget(self, name: str) -> bool:
        """Follow an agent no more; False if it was not followed."""
        with self._lock:
            follower = self._followers.pop(name, None)
        if follower is None:
            return False
        follower.stop()
        self._graph.remove(name)
        return True

    def agents(self) -> dict[str, Agent]:
        """All agents that are followed, by name."""
        with self._lock:
            return {name: f.agent for name, f in sorted(self._followers.items())}

    def stop(self) -> None:
        """Follow nobody any more."""
        with self._lock:
            followers, self._followers = self._followers, {}
        for follower in followers.values():
            follower.stop()

    def _settings_changed(self) -> None:
        with self._lock:
            followers = list(self._followers.values())
        pushed = [self._agents.later(f.push) for f in followers]
        for done in pushed:
            done.result()


class Follower:
    """Follows one agent."""

    def __init__(
        self,
        agent: Agent,
        *,
        graph: Graph,
        agents: Agents,
        journal: Journal,
        sessions: KeySessions,
        settings: Settings,
        upkeep: Upkeep,
    ) -> None:
        self.agent = agent
        self._graph = graph
        self._agents = agents
        self._sessions = sessions
        self._settings = settings
        self._upkeep = upkeep
        self._journal = journal
        self._stopping = threading.Event()
        self._listener: Listener | None = None
        self._extended = False
        self._names: dict[int, str] = {}
        self._connected = False
        # A change of settings reaches a node from before it is told them for the first time: none falls in between.
        self._tellable = False
        self._telling = threading.Lock()
        self._thread = bugs.vital_thread(self._run, name=f"follow-{agent.name}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for what is under way."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.close()

    def push(self) -> None:
        """Have the node follow the parameters and rates of now; if it cannot be told, it will when it comes again."""
        if not self._tellable:
            return
        try:
            self._push()
        except AgentFailed as error:
            _log.info("settings of %s: %s", self.agent.name, error.reason)
            if self._listener is not None:
                self._listener.close()

    def _push(self) -> None:
        with self._telling:  # the last to tell tells of the latest
            rates = self._settings.rates
            qcs = [
                {"name": name, "rate": {"low": rates[name][0], "high": rates[name][1]}}
                for name in self._names.values()
                if name in rates
            ]
            document: dict[str, Any] = {"parameters": self._settings.parameters.for_nodes()}
            if qcs:
                document["qcs"] = {"qc": qcs}
            self._agents.set_additions(self.agent, document)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (Unreachable, Refusal, Malformed, AgentFailed) as error:
                _log.info("agent of %s: %s", self.agent.name, error)
                if isinstance(error, Refusal | Malformed):
                    self._journal.event("agent_misbehaves", node=self.agent.name, error=str(error)[:200])
            except Exception as error:
                bugs.report(_log, "following a node", error, self._journal, node=self.agent.name)
            self._tellable = False
            if self._connected:
                self._connected = False
                self._journal.event("agent_lost", node=self.agent.name)
            if not self._stopping.is_set():
                self._graph.lost(self.agent.name)
            self._stopping.wait(_RETRY_S)

    def _follow(self) -> None:
        # Listening comes first: what changes while the node is read is not missed.
        listener, self._extended = self._agents.listen(self.agent)
        self._listener = listener
        try:
            node = self._read()
            if self._extended:
                self._tellable = True
                self._push()
            for ksid in self._upkeep.settle(self.agent.name, node):
                with trace.begin():
                    self._sessions.close(ksid, node=self.agent.name)
            self._connected = True
            self._journal.event("agent_found", node=self.agent.name, qkdn_id=node["qkdn_id"], extended=self._extended)
            if not self._extended:
                threading.Thread(target=self._poll, args=(listener,), name="poll", daemon=True).start()
            for event in listener.events():
                if self._stopping.is_set():
                    return
                self._notified(event)
        finally:
            listener.close()

    def _read(self) -> dict[str, Any]:
        """The node as it is now, into the graph."""
        node = self._agents.node(self.agent)
        if "qkdn_id" not in node:
            raise Refusal("missing-element", "expected qkdn_id", path=f"/{gs015.NODE}")
        if self._graph.name(node["qkdn_id"]) not in (None, self.agent.name):
            # Links would lead to it that are another's.
            raise Refusal("invalid-value", "expected an ID that no other node has", path=f"/{gs015.NODE}/qkdn_id")
        if self._extended:
            extra = self._agents.additions(self.agent)
            qcs = extra.get("qcs", {}).get("qc", [])
            self._names = {qc["qkdi_id"]: qc["name"] for qc in qcs if "qkdi_id" in qc}
        self._graph.put(self.agent, node, self._names, extended=self._extended)
        return node

    def _poll(self, listener: Listener) -> None:
        """Read the links' performance each slot, as long as `listener` is the one that counts."""
        slot = 0
        while self._listener is listener and self._connected and not self._stopping.wait(_SLOT_S):
            slot += 1
            try:
                node = self._read()
            except (Unreachable, Refusal):
                continue
            reports = []
            ends = self._graph.nodes()[self.agent.name].links
            names = {link.link_id: link.qc for link in self._graph.links().values()}
            for key, end in ends.items():
                # What is left of the rate is all that the standard says of consumption.
                made, left = end.skr // 8, end.eskr // 8
                reports.append(Report(names.get(key, key), made, made - min(made, left), None))
            self._graph.report(self.agent.name, slot, reports)
            self._sessions.expire()
            del node

    def _notified(self, event: Any) -> None:
        envelope = event.get(_ENVELOPE) if isinstance(event, Mapping) else None
        if not isinstance(envelope, Mapping):
            raise Malformed(_ENVELOPE, "an object")
        for name, content in envelope.items():
            if name != "eventTime":
                self._handle(name, content)

    def _handle(self, name: str, content: Any) -> None:
        module, _, own = name.partition(":")
        if name == _NEW:
            application = gs015_testbed.read_notification(name, content).get("qkd_application", {})
            with trace.received(application.get("qkd-testbed:traceparent")):
                self._agents.later(self._register, application)
        elif module == gs015_testbed.MODULE:
            handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {
                "slot_report": self._report, "application_withdrawn": self._withdraw,
            }  # fmt: skip
            if own in handlers:
                handlers[own](gs015_testbed.read_notification(name, content))
        elif module == gs015.MODULE and own == "sdqkdn_application_disconnected":
            application = gs015.read_notification(own, content).get("qkd_application", {})
            if "app_id" in application:
                with trace.begin():
                    self._sessions.close(application["app_id"], node=self.agent.name)
        elif module == gs015.MODULE and own == "sdqkdn_application_qos_update":
            application = gs015.read_notification(own, content).get("qkd_application", {})
            if "app_id" in application:
                with trace.begin():
                    self._agents.later(self._change, application)
        elif module == gs015.MODULE and own in gs015.NOTIFICATIONS and "application" not in own:
            self._read()

    def _report(self, content: Mapping[str, Any]) -> None:
        reports = [
            Report(
                qc["name"], int(qc.get("generated", 0)), int(qc.get("requested", 0)),
                int(qc["stored"]) if "stored" in qc else None,
            )
            for qc in content.get("qc", [])
        ]  # fmt: skip
        slot, since = int(content.get("slot", 0)), content.get("since")
        self._graph.report(self.agent.name, slot, reports, since=None if since is None else int(since))
        self._sessions.expire()

    def _withdraw(self, content: Mapping[str, Any]) -> None:
        self._sessions.withdraw(self.agent.name, declared.pair(content))

    def _change(self, application: Mapping[str, Any]) -> None:
        """An application at this node wants something else."""
        try:
            self._upkeep.change(application["app_id"], self.agent.name, declared.declared(application))
        except AgentFailed as error:
            _log.info("application %s: %s", application["app_id"], error)  # told again soon (mover.py)
        except Exception as error:
            bugs.report(_log, "a change of QoS", error, self._journal, node=self.agent.name)

    def _register(self, application: Mapping[str, Any]) -> None:
        """An application asks for an association; the agent hears how that fares, if it can."""
        implicit = bool(application.get("qkd-testbed:implicit", False))
        try:
            pair, side = declared.pair(application), application.get("qkd-testbed:side")
            wants = declared.wanted(application)
            session = self._sessions.register(self.agent.name, pair, side, wants, implicit=implicit)
        except (SessionError, Malformed) as error:
            # Those whom the session concerned have been told; a document that is wrong concerns nobody.
            _log.info("application at %s: %s", self.agent.name, error)
            return
        except Exception as error:
            bugs.report(_log, "a registration", error, self._journal, node=self.agent.name)
            return
        if not session.complete and self._extended:
            self._agents.answer(self.agent, waiting(*pair, implicit=implicit))
