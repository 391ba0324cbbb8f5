"""QCs on demand: which of them are lit, what there is to spare for them, and how they are lit and go dark.

A QC on demand is an interface at the nodes at both its ends. It is lit by the physical link that is configured on it
there (GS QKD 015, qkd_link), and goes dark when that is removed. So the nodes know what is lit: a controller that was
killed reads it from them. What was chosen for a session and is not lit yet, and what is going dark, is known here
alone; both count as taken, so that never more modules are taken than there are.

A key session over a QC that was dark is not opened yet: who asked is told when to try again, and finds the QC lit and
with enough for a key. So nobody holds a thread while a device sets itself up. Nor does an open session move to it
before. A thread looks after the rest. What no
session has used for a while it has go dark; what a session goes over and a node has lost it lights again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from controller import limits
from controller.agents.agents import AgentFailed, Agents
from controller.network.graph import Graph
from controller.network.nodes import LinkEnd, SwitchedQc
from controller.sessions.key_session import SessionError
from controller.sessions.registry import Book
from decisions.admission import QcView, since_lit
from decisions.choice import IDLE_S, READY_BYTES, RELAY, OnDemand, usable
from decisions.paths import QkdGraph
from etsi import gs015
from telemetry import bugs
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
BEING_LIT = "being_lit"
_ALL = ""  # steps that are of no one node's


class Lighting:
    """The QCs on demand of a network, and `spare`: how many there are of what they take. Thread-safe.

    `now` gives seconds that only grow.
    """

    def __init__(
        self,
        graph: Graph,
        book: Book,
        agents: Agents,
        journal: Journal,
        *,
        switched: Sequence[SwitchedQc] = (),
        spare: Mapping[str, int] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graph = graph
        self._book = book
        self._agents = agents
        self._journal = journal
        self._switched = {one.qc: one for one in switched}
        self._spare = dict(spare or {})
        self._now = now
        self.on_demand: Mapping[str, OnDemand] = {one.qc: one.on_demand for one in switched}
        # All of this under the graph's lock: chosen, and not shown by both ends yet; going dark; since when those that
        # are lit have made key, and have had no session.
        self._chosen: set[str] = set()
        self._going: set[str] = set()
        self._for_moves: Counter[str] = Counter()  # reserved for open sessions that are not on them yet
        self._makes_since: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}
        self._ready_at: dict[str, float] = {}  # when those that are lit are to have made enough for a key
        self._barred: dict[str, float] = {}  # until when what made none in its time is left alone
        self._stopping = threading.Event()
        self._thread = bugs.vital_thread(self._run, name="lighting", stopped=self._stopping.is_set)

    def start(self) -> None:
        """Begin to look after them, if there are any."""
        if self._switched:
            self._thread.start()

    def stop(self) -> None:
        """End; does not wait for what is under way."""
        self._stopping.set()

    def dark(self) -> list[str]:
        """Those that could be lit, as far as there are modules and channels."""
        with self._graph.lock:
            taking, barred = self._taking(), self._barred_now()
            return [qc for qc in self._switched if qc not in taking and qc not in barred]

    def for_new(self, graph: QkdGraph) -> QkdGraph:
        """What there is for a new session of a graph: not what was lit and made no key, nor what is going dark."""
        with self._graph.lock:
            barred = self._barred_now() | self._going
            graph.remove_edges_from([edge for edge in graph.edges(keys=True) if edge[2] in barred])
        return graph

    def _barred_now(self) -> set[str]:
        return {qc for qc, until in self._barred.items() if until > self._now()}

    def free(self) -> Mapping[str, int]:
        """What there is to spare."""
        with self._graph.lock:
            taken = Counter(what for qc in self._taking() for what in self.on_demand[qc].takes)
            return {what: number - taken[what] for what, number in self._spare.items()}

    def link_ids(self, qcs: Iterable[str]) -> dict[str, str]:
        """The IDs of the physical links of those QCs that can be lit."""
        return {qc: self._switched[qc].link_id for qc in qcs if qc in self._switched}

    def settled(self, graph: QkdGraph) -> QkdGraph:
        """What sessions come back to of a graph, from a longer path: a QC past others is lit for those that it is for.
        """
        return usable(graph, RELAY, ("", ""), self.on_demand)

    def seen(self, view: QcView, slots: int) -> QcView:
        """The view of a QC, as it counts for who chooses."""
        one = self._switched.get(view.qc)
        if one is None:
            return view
        with self._graph.lock:
            since = self._makes_since.get(view.qc)
        return since_lit(view, one.bytes_per_slot, slots, 0 if since is None else math.floor(self._now() - since))

    def reserve(self, qcs: Sequence[str], *, for_move: bool = False) -> None:
        """A session has chosen these; those that are dark take what they need from now on.

        One that is to move, and has another path yet, lets go of them afterwards.
        """
        with self._graph.lock:
            self._chosen |= {qc for qc in qcs if qc in self._switched and qc not in self._taking()}
            if for_move:
                self._for_moves.update(qcs)

    def let_go(self, qcs: Iterable[str]) -> None:
        """They are lit, or will not be, or the session that is to move is known to be on its way to them."""
        with self._graph.lock:
            self._for_moves.subtract(qcs)

    def light(self, qcs: Collection[str]) -> None:
        """Have those of the QCs lit that are not; SessionError, unless all have made enough for a key by now.

        It says when to try again. A QC that makes nothing in its time is left alone for a while.
        """
        mine = [self._switched[qc] for qc in qcs if qc in self._switched]
        for one in mine:
            try:
                self._light(one)
            except AgentFailed as error:
                raise SessionError(503, str(error), cause="agent_unreachable", node=error.node) from None
        with self._graph.lock:
            now = self._now()
            waits = {one.qc: self._ready_at.get(one.qc, now) - now for one in mine if not self._is_ready(one.qc)}
            late = sorted(qc for qc, wait_s in waits.items() if wait_s < -limits.LIT_S)
            self._barred |= dict.fromkeys(late, now + limits.BARRED_S)
        if late:
            text = f"QC {late[0]} was lit for the key session, and makes no key"
            raise SessionError(503, text, cause="not_lit", qc=late[0])
        if waits:
            qc = max(waits, key=lambda name: waits[name])
            retry_s = round(max(limits.RETRY_LIT_S, waits[qc]), 1)
            text = f"QC {qc} is being lit for the key session: try again in {retry_s:g} s"
            raise SessionError(503, text, cause=BEING_LIT, qc=qc, retry_s=retry_s)

    def _is_ready(self, qc: str) -> bool:
        """Whether it has enough for a key, or makes key and has had its time: others may use up what it makes."""
        link = self._graph.links().get(qc)
        if link is None:
            return False
        makes_key = link.status == "ACTIVE" and self._now() >= self._ready_at.get(qc, self._now())
        return makes_key or self._graph.views([qc], 1)[0].stored_bytes >= READY_BYTES

    def _taking(self) -> set[str]:
        """Those that take modules and channels: lit, to be lit, or not known to be dark."""
        shown = self._graph.shown()
        return {qc for qc, one in self._switched.items() if one.link_id in shown} | self._chosen | self._going

    def _light(self, one: SwitchedQc) -> None:
        """Have both ends have the physical link; AgentFailed."""
        with self._graph.lock:
            nodes = self._graph.reachable(one.ends)
            if lost := [end for end in one.ends if end not in nodes]:
                raise AgentFailed(lost[0], "it cannot be reached")
            links = {
                end: one.link_at(end, {name: node.qkdn_id for name, node in nodes.items()})
                for end in self._lacking(one)
            }  # fmt: skip
        if links:
            documents = {nodes[end].agent: {"qkd_links": {"qkd_link": [link]}} for end, link in links.items()}
            self._agents.configure(documents)
            for end, link in links.items():  # at once; the agent's notification follows
                shown = LinkEnd(link["qkdl_remote"]["qkdn_id"], one.qc, True, gs015.PENDING, 0, 0, 0, None)
                self._graph.set_link(end, one.link_id, shown)
            self._journal.event("qc_lit", qc=one.qc, past=list(one.on_demand.past))
        with self._graph.lock:
            self._chosen.discard(one.qc)
            if links or one.qc not in self._ready_at:
                self._ready_at[one.qc] = self._now() + one.ready_s

    def _darken(self, one: SwitchedQc) -> None:
        """Have both ends have the physical link no more, as far as they can be reached."""
        try:
            agents = {node.agent: name for name, node in self._graph.reachable(one.ends).items()}
            failed = self._agents.remove({agent: [f"qkd_links/qkd_link={one.link_id}"] for agent in agents})
            for name in set(agents.values()) - failed:
                self._graph.set_link(name, one.link_id, None)
            if len(agents) == len(one.ends) and not failed:
                self._journal.event("qc_dark", qc=one.qc)
        finally:
            with self._graph.lock:
                self._going.discard(one.qc)

    def _run(self) -> None:
        while not self._stopping.wait(limits.LOOK_S):
            try:
                self._look()
            except Exception as error:  # a bug must not end the thread
                bugs.report(_log, "looking after QCs on demand", error, self._journal)

    def _look(self) -> None:
        """See which are lit and not used, used and not lit."""
        with self._graph.lock:
            used = {qc for s in self._book.all() for path in (s.path, s.target) if path is not None for qc in path.qcs}
            used |= set(+self._for_moves)
            shown, now = self._graph.shown(), self._now()
            for qc, one in self._switched.items():
                self._note(one, lit=one.link_id in shown, now=now)
                if qc not in used:
                    self._chosen.discard(qc)
                if qc in used or one.link_id not in shown:
                    self._idle_since.pop(qc, None)
                    if one.link_id not in shown:
                        self._ready_at.pop(qc, None)
                    continue
                idle_s = now - self._idle_since.setdefault(qc, max(now, self._ready_at.get(qc, now)))
                if qc not in self._going and idle_s >= IDLE_S:
                    self._going.add(qc)
                    if not self._agents.later(_ALL, self._darken, one):
                        self._going.discard(qc)
            on_paths = {qc for s in self._book.open() if s.path is not None for qc in s.path.qcs}
            lost = [one for qc, one in self._switched.items() if qc in on_paths and self._lacking(one)]
        for one in lost:
            self._agents.later(_ALL, self._light_again, one)

    def _lacking(self, one: SwitchedQc) -> list[str]:
        """The ends that can be reached and do not show its physical link."""
        return [name for name, node in self._graph.reachable(one.ends).items() if one.link_id not in node.links]

    def _light_again(self, one: SwitchedQc) -> None:
        try:
            self._light(one)
        except AgentFailed as error:
            _log.info("QC %s: %s", one.qc, error)

    def _note(self, one: SwitchedQc, *, lit: bool, now: float) -> None:
        """Since when it has made key."""
        link = self._graph.links().get(one.qc) if lit else None
        if link is None:
            self._makes_since.pop(one.qc, None)
        elif link.status == "ACTIVE":
            self._makes_since.setdefault(one.qc, now)
