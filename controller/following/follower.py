"""Follows the agents: reads what each node is, listens to its notifications, and has it settled when it comes (again).

A thread for each agent. When its event stream breaks, the node counts as unreachable until it is read anew; nothing is
replayed, because everything is in what is read then. What an operator sets is told to each node until it has it, and
what open sessions want of a node that came again, in steps beside the thread: what the node says meanwhile is heard.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from controller import limits
from controller.agents.agents import AgentFailed, Agents
from controller.following.notifications import Notifications
from controller.following.state import Following
from controller.network.graph import Graph
from controller.network.identities import Identities
from controller.network.nodes import Agent, LinkEnd, Report
from controller.network.settings import Settings
from controller.sessions.lifecycle import KeySessions
from controller.sessions.session_nodes import Upkeep
from documents.checks import Malformed
from etsi import gs015
from ietf.yang import Refusal
from mtls.call import Listener, Unreachable
from telemetry import bugs, trace
from telemetry.journal import Journal

_log = logging.getLogger(__name__)


class Followers:
    """The threads that follow agents, and the one that has them told what was set. Thread-safe."""

    def __init__(
        self,
        graph: Graph,
        agents: Agents,
        journal: Journal,
        *,
        identities: Identities,
        sessions: KeySessions,
        settings: Settings,
        upkeep: Upkeep,
    ) -> None:
        self._make = functools.partial(
            Follower,
            graph=graph,
            agents=agents,
            journal=journal,
            identities=identities,
            sessions=sessions,
            settings=settings,
            upkeep=upkeep,
            on_tended=self._wake,
            number=lambda: len(self._followers),
        )
        self._graph = graph
        self._agents = agents
        self._identities = identities
        self._changed = threading.Condition()
        self._followers: dict[str, Follower] = {}
        self._begun = self._stopping = False
        self._thread = bugs.vital_thread(self._keep_tending, name="tending", stopped=lambda: self._stopping)
        settings.on_change(self._wake)

    def start(self) -> None:
        """Begin to follow agents, and to tell nodes what they are to know."""
        with self._changed:
            self._begun = True
            for follower in self._followers.values():
                follower.start()
        self._thread.start()

    def follow(self, agent: Agent) -> None:
        """Follow an agent, once this has begun, in place of any other of that name."""
        follower = self._make(agent)
        with self._changed:
            old = self._followers.get(agent.name)
            self._followers[agent.name] = follower
            if self._begun:
                follower.start()
        if old is not None:
            old.stop()

    def forget(self, name: str) -> bool:
        """Follow an agent no more; False if it was not followed. Another node may have its qkdn_id then."""
        with self._changed:
            follower = self._followers.pop(name, None)
        if follower is None:
            return False
        follower.stop()
        self._graph.remove(name)
        self._identities.forget(name)
        return True

    def agents(self) -> dict[str, Agent]:
        """All agents that are followed, by name."""
        with self._changed:
            return {name: f.agent for name, f in sorted(self._followers.items())}

    def stop(self) -> None:
        """Follow nobody any more."""
        with self._changed:
            self._stopping = True
            followers, self._followers = self._followers, {}
            self._changed.notify_all()
        for follower in followers.values():
            follower.stop()

    def not_yet(self, names: Iterable[str] | None = None) -> list[str]:
        """Those nodes, of `names` or of all, that have not taken over yet what is set; they will when they can be told.

        Waits until those that can be reached have been told once, for a few seconds at most.
        """
        with self._changed:
            self._changed.wait_for(lambda: not any(f.is_to_be_told for f in self._behind(names)), limits.SETTING_S)
            return sorted(f.agent.name for f in self._behind(names))

    def _behind(self, names: Iterable[str] | None = None) -> list[Follower]:
        wanted = self._followers if names is None else set(names)
        return [f for name, f in self._followers.items() if name in wanted and f.is_behind]

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _keep_tending(self) -> None:
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                waiting = [f for f in self._followers.values() if f.needs_tending]
                for follower in waiting:
                    if follower.state.tend_at <= now:
                        # Until it is done, or was dropped because too much waits for that node.
                        follower.tend_next(now + limits.HELD_S)
                        if not self._agents.later(follower.agent.name, follower.tend):
                            follower.tend_next(now + limits.AGAIN_S)
                self._changed.wait(limits.LOOK_S if waiting else None)


class Follower:
    """Follows one agent. `on_tended` is called when what it is to be told, or has been, changes.

    `number` tells how many are followed.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        graph: Graph,
        agents: Agents,
        journal: Journal,
        identities: Identities,
        sessions: KeySessions,
        settings: Settings,
        upkeep: Upkeep,
        on_tended: Callable[[], None],
        number: Callable[[], int],
    ) -> None:
        self.agent = agent
        self._number = number
        self._graph = graph
        self._agents = agents
        self._identities = identities
        self._sessions = sessions
        self._settings = settings
        self._upkeep = upkeep
        self._journal = journal
        self._on_tended = on_tended
        self._stopping = threading.Event()
        self._changing = threading.Lock()  # see `_followed`
        self._state_lock = threading.Lock()
        self.state = Following()
        self._names: dict[int, str] = {}
        self._said = ""  # why it could not be followed, last
        self._notifications = Notifications(
            agent.name, graph=graph, agents=agents, sessions=sessions, upkeep=upkeep, journal=journal,
            followed=self._followed,
        )  # fmt: skip
        self._telling = threading.Lock()
        self._thread = bugs.vital_thread(self._run, name=f"follow-{agent.name}", stopped=self._stopping.is_set)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for what is under way, of which nothing comes any more."""
        with self._changing:
            self._stopping.set()
        if (connection := self.state.connection) is not None:
            connection.close()

    @property
    def is_behind(self) -> bool:
        """Whether the node has not taken over yet all that is set."""
        return self.state.has_not(self._settings.version) or bool(self._settings.wishes(self.agent.name))

    @property
    def is_to_be_told(self) -> bool:
        """Whether it can be told what is set now, and was not."""
        return self.state.is_to_be_told(self._settings.version)

    @property
    def needs_tending(self) -> bool:
        """Whether it can be told something that it does not know yet."""
        return self.state.needs_tending(self._settings.version, wishes=bool(self._wishes()))

    def tend_next(self, at: float) -> None:
        """Have it be told the next time at `at`, monotonic seconds."""
        self._change_state(lambda state: replace(state, tend_at=at))

    def _change_state(self, change: Callable[[Following], Following], *, of: Listener | None = None) -> None:
        """`of`: only as long as that connection is the one that counts."""
        with self._state_lock:
            if of is None or self.state.connection is of:
                self.state = change(self.state)

    def tend(self) -> None:
        """Have the node follow what is set now, and be as open sessions want it; again if it does not take part."""
        version, done = self._settings.version, [False]
        try:
            done = [self._is_done(step) for step in (self._tell, self._settle)]
        finally:  # also when the store takes nothing, as on a full disk
            at = 0.0 if all(done) else time.monotonic() + limits.AGAIN_S
            self._change_state(lambda state: replace(state, tried=version, tend_at=at))
            self._on_tended()

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """The block tells others of the node, as long as this is who follows it; AgentFailed if it is not any more.

        Whoever stops this waits for the block, so no call to a node is made in it.
        """
        with self._changing:
            if self._stopping.is_set():
                raise AgentFailed(self.agent.name, "it is followed no more")
            yield

    def _is_done(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (AgentFailed, Unreachable, Refusal) as error:
            _log.info("agent of %s: %s", self.agent.name, error)
            return False
        return True

    def _settle(self) -> None:
        state = self.state
        if state.settled:
            return
        for ksid in self._upkeep.settle(self.agent.name, self._agents.node(self.agent)):
            with trace.begin():
                if not self._sessions.end(ksid, node=self.agent.name):
                    raise AgentFailed(self.agent.name, "a session that is over there cannot be ended now")
        self._change_state(lambda found: replace(found, settled=True), of=state.connection)

    def _tell(self) -> None:
        with self._telling:  # the last to tell tells of the latest
            version, state = self._settings.version, self.state
            if state.extended:
                self._agents.set_additions(self.agent, self._additions())
            for link_id, enabled in self._wishes().items():
                self._agents.enable(self.agent, link_id, enabled=enabled)
                self._settings.taken_over(self.agent.name, link_id, enabled=enabled)
            self._change_state(lambda found: replace(found, told=version), of=state.connection)

    def _additions(self) -> dict[str, Any]:
        rates = self._settings.rates
        qcs = [
            {"name": name, "rate": {"low": rates[name][0], "high": rates[name][1]}}
            for name in self._names.values()
            if name in rates
        ]
        document: dict[str, Any] = {"parameters": self._settings.parameters.for_nodes()}
        return document | ({"qcs": {"qc": qcs}} if qcs else {})

    def _run(self) -> None:
        known = False
        while not self._stopping.is_set():
            pause_s = 0.0
            try:
                self._follow()
            except (Unreachable, AgentFailed) as error:
                if not self._stopping.is_set() and str(error) != self._said:  # the log takes no flood
                    self._said = str(error)
                    _log.warning("agent of %s: %s", self.agent.name, error)
            except (Refusal, Malformed) as error:
                pause_s = limits.MISBEHAVED_S
                error_text = str(error)[: limits.MAX_TEXT]
                self._journal.event("agent_misbehaves", node=self.agent.name, error=error_text)
            except Exception as error:
                bugs.report(_log, "following a node", error, self._journal, node=self.agent.name)
            was_followed = self.state.followed
            known |= was_followed
            self._change_state(Following.lost)
            if was_followed:
                self._journal.event("agent_lost", node=self.agent.name)
            with suppress(AgentFailed), self._followed():
                self._graph.lost(self.agent.name)
            self._on_tended()
            self._stopping.wait(pause_s or (limits.RETRY_S if known else limits.first_retry_s(self._number())))

    def _follow(self) -> None:
        # Listening comes first: what changes while the node is read is not missed.
        listener, extended = self._agents.listen(self.agent)
        self._change_state(lambda state: state.heard(listener, extended=extended))
        try:
            qkdn_id = self._read()
            self._said = ""
            self._journal.event("agent_found", node=self.agent.name, qkdn_id=qkdn_id, extended=extended)
            self._change_state(Following.read)
            self._on_tended()
            if not extended:
                is_over = functools.partial(self._polled_enough, listener)
                bugs.vital_thread(self._poll, listener, name=f"poll-{self.agent.name}", stopped=is_over).start()
            for event in listener.events():
                if self._stopping.is_set():
                    return
                if self._notifications.handle(event):
                    self._read()
        finally:
            listener.close()

    def _read(self) -> str:
        """The node as it is now, into the graph; applications that it says are over, out of the book. Its qkdn_id."""
        node = self._agents.node(self.agent)
        if "qkdn_id" not in node:
            raise Refusal("missing-element", "expected qkdn_id", path=f"/{gs015.NODE}")
        with self._followed():
            self._identities.check(self.agent.name, node["qkdn_id"])
        if self.state.extended:
            extra = self._agents.additions(self.agent)
            self._names = {qc["qkdi_id"]: qc["name"] for qc in extra.get("qcs", {}).get("qc", []) if "qkdi_id" in qc}
            for ksid in extra.get("ended", [])[: limits.ENDS_OF_ONE]:
                self._notifications.ended(ksid)
        with self._followed():
            self._graph.put(self.agent, node, self._names, extended=self.state.extended)
        if self._wishes():
            self._on_tended()
        return str(node["qkdn_id"])

    def _wishes(self) -> dict[str, bool]:
        """Those that the node can be told: a link that it does not show now may come again."""
        shown = self._links()
        return {key: wish for key, wish in self._settings.wishes(self.agent.name).items() if key in shown}

    def _links(self) -> dict[str, LinkEnd]:
        """The node's physical links; none if it was removed a moment ago."""
        node = self._graph.nodes().get(self.agent.name)
        return {} if node is None else node.links

    def _poll(self, listener: Listener) -> None:
        """Read the links' performance each slot, as long as `listener` is the one that counts and the node answers."""
        heard = time.monotonic()
        while not self._stopping.wait(limits.POLL_S) and not self._polled_enough(listener):
            try:
                self._read()
                # By our own clock, which a new connection does not set back.
                self._report_rates(slot=int(time.monotonic() / limits.POLL_S))
                heard = time.monotonic()
            except (Unreachable, AgentFailed, Refusal, Malformed) as error:
                _log.info("agent of %s: %s", self.agent.name, error)
            except Exception as error:
                bugs.report(_log, "asking a node", error, self._journal, node=self.agent.name)
            if time.monotonic() - heard > limits.DEAF_S:
                listener.close()

    def _polled_enough(self, listener: Listener) -> bool:
        return self._stopping.is_set() or self.state.connection is not listener or not self.state.followed

    def _report_rates(self, slot: int) -> None:
        names = {link.link_id: link.qc for link in self._graph.links().values()}
        reports = []
        for key, end in self._links().items():
            # What is left of the rate is all that the standard says of consumption.
            made, left = end.skr // 8, end.eskr // 8
            reports.append(Report(names.get(key, key), made, made - min(made, left), None))
        with self._followed():
            self._graph.report(self.agent.name, slot, reports)
        self._sessions.expire()
