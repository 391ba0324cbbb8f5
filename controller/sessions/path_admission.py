"""Which path a key session takes, and whether it may: path policy and admission, for one session at a time.

Who holds the graph's lock decides; sessions that have chosen count for those that come after them.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.agents.configuration import Declared, Route, declared_bps, of_bandwidth, updated
from controller.network.graph import Graph
from controller.network.settings import Settings
from controller.sessions.agendas import Agendas
from controller.sessions.key_session import KeySession, SessionError
from controller.sessions.lighting import Lighting
from controller.sessions.registry import Book
from decisions.admission import (
    ADMISSION_POLICIES,
    ALTERNATIVES,
    Demand,
    Need,
    QcView,
    Refused,
    nothing_wanted,
    window_slots,
)
from decisions.calendar import Draw, Wanted
from decisions.choice import Allowed, Chosen, Order, choose, choose_or_light, lacking, usable
from decisions.modes import MODES, ahead
from decisions.paths import PATH_POLICIES, Path, QkdGraph, Verdict, Way, disjoint, fewest_links, judge
from decisions.ranges import promised_slots
from documents.plugged import PluggedFailed
from etsi.gs004 import QoS

_log = logging.getLogger(__name__)


class Choice:
    """Decides by what the graph, the book and the settings say now. Thread-safe."""

    def __init__(
        self, graph: Graph, book: Book, settings: Settings, lighting: Lighting,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._graph = graph
        self._lighting = lighting
        self._book = book
        self._settings = settings
        self._now = now
        self._agendas = Agendas(book)
        self._wanted = Wanted()

    def views(
        self, qcs: Sequence[str], besides: KeySession | None = None, *, slots: int | None = None
    ) -> list[QcView]:
        """How `qcs` fared over the last slots (a TTL of them), and what is reserved there by others than `besides`.

        What new sessions wanted of them is of no concern to one that is open already.
        """
        slots = slots or self._settings.parameters.ttl_slots
        views = [self._lighting.seen(view, slots) for view in self._graph.views(qcs, slots)]
        now_s = self._now()
        with self._graph.lock:
            self._agendas.follow(self._settings.parameters, now_s)
            return [
                replace(
                    view, reserved_per_slot=self._agendas.reserved_per_slot(view.qc, besides),
                    endless_per_slot=self._agendas.endless_per_slot(view.qc, besides),
                    planned=functools.partial(self._planned, view.qc, besides, math.floor(now_s)),
                    wanted=nothing_wanted if besides else functools.partial(self._wanted_of, view.qc, now_s),
                )
                for view in views
            ]  # fmt: skip

    def verdict(self, path: Path, down: Sequence[str], usable: QkdGraph, steady: QkdGraph, way: Way) -> Verdict:
        """Where a session on that path is to go, of which `down` is down, as the mode has it now."""
        mode = MODES[self._settings.parameters.mode]
        return judge(path, down, usable, steady, way, number=mode.paths, enough=mode.enough)

    def settled(self, graph: QkdGraph) -> QkdGraph:
        """What sessions come back to of a graph."""
        return self._lighting.settled(graph)

    def path(self, graph: QkdGraph, source: str, target: str) -> Path | None:
        """The way through `graph` that the path policy takes for one more session; None if there is none."""
        mechanism, on_demand = self._settings.parameters.mechanism, self._lighting.on_demand
        try:
            left = usable(graph, mechanism, (source, target), on_demand)
            return next(iter(self._candidates(left, source, target)), None)
        except PluggedFailed as failure:
            _log.warning("path of an open session: %s", failure)
            return None

    def choose(self, session: KeySession) -> Path:
        """Give the session a path, which is reserved for it from now on; SessionError."""
        try:
            return self._choose(session)
        except PluggedFailed as failure:
            raise SessionError(503, f"a policy of the user's fails: {failure}", cause="policy_failed") from None

    def other_way(self, session: KeySession) -> Path:
        """A path for a held session whose own is down; SessionError: there is none, or it is refused.

        The QCs on it that are to be lit are reserved until `Lighting.let_go` of them.
        """
        try:
            with self._graph.lock:
                path = self._found(session, besides=session)
                self._lighting.reserve(path.qcs, for_move=True)
                return path
        except PluggedFailed as failure:
            raise SessionError(503, f"a policy of the user's fails: {failure}", cause="policy_failed") from None

    def _choose(self, session: KeySession) -> Path:
        parameters = self._settings.parameters
        with self._graph.lock:
            path = self._found(session)
            session.chosen(path, self._route(path))
            self._lighting.reserve(path.qcs)
            session.mode = parameters.mode
            session.bandwidth = self.bandwidth(session)
            self._book.path_chosen()
            return path

    def _found(self, session: KeySession, besides: KeySession | None = None) -> Path:
        """A path on which it is admitted; SessionError."""
        graph = self._lighting.for_new(self._graph.topology())
        unknown = sorted(set(session.nodes.values()) - set(graph))
        if unknown:
            text = f"the controller does not reach node {unknown[0]} (yet)"
            raise SessionError(503, text, cause="unknown_node", node=unknown[0])
        path = self._over_lit_or_dark(session, graph, besides)
        if path is None:
            raise self._no_path(graph, session.nodes["master"], session.nodes["slave"])
        if isinstance(path, Refused):
            raise _refusal(path)
        return path

    def _over_lit_or_dark(self, session: KeySession, graph: QkdGraph, besides: KeySession | None) -> Chosen:
        parameters, ends = self._settings.parameters, (session.nodes["master"], session.nodes["slave"])
        left_s = session.left_s(time.time())

        def over(graph: QkdGraph, order: Order, allowed: Allowed, most: int) -> Chosen:
            return choose(
                order(self._candidates(graph, *ends)),
                lambda candidate: self._short(session.qos, candidate, besides, duration_s=left_s),
                lambda a, b: sorted(graph[a][b]),
                most=most, allowed=allowed, wanted=note,
            )  # fmt: skip

        def note(candidate: Path) -> None:
            if besides is None:
                self._wanted.add(candidate.qcs, self._draws(session.qos, candidate, left_s), self._now())

        return choose_or_light(
            over, graph, self._lighting.on_demand, self._lighting.dark(), free=self._lighting.free(),
            mechanism=parameters.mechanism, ends=ends, most=ALTERNATIVES.get(parameters.admission, 1),
            shares=lambda path: self._demand(session.qos, path).shares(self.views(path.qcs)),
        )  # fmt: skip

    def _no_path(self, graph: QkdGraph, master: str, slave: str) -> SessionError:
        """What a session is refused with between whose nodes there is none, or too few."""
        down = self._graph.down()
        also = f"; down: {', '.join(down)}" if down else ""
        for qc in self._lighting.dark():
            one = self._lighting.on_demand[qc]
            if {one.a, one.b} == {master, slave} and (short := lacking(one, self._lighting.free())):
                also += f"; QC {qc} could be lit, but no {' and no '.join(short)} is to spare"
        mode = MODES[self._settings.parameters.mode]
        there = len(fewest_links(graph, master, slave, mode.paths)) if mode.paths > 1 else 0
        if not there:
            return SessionError(503, f"there is no path of QCs between {master} and {slave}{also}", cause="no_path")
        text = f"mode {mode.name} needs {mode.paths} node-disjoint paths between {master} and {slave}"
        facts: dict[str, Any] = {"cause": "too_few_paths", "needed": mode.paths, "paths": there}
        return SessionError(503, f"{text}; there {'is' if there == 1 else 'are'} {there}{also}", **facts)

    def aim(self, session: KeySession, path: Path) -> KeySession | None:
        """A held session as it will be on `path`, which is reserved for it; None if that cannot be.

        SessionError: refused.
        """
        with self._graph.lock:
            if not set(path.qcs) <= set(self._graph.links()):
                return None
            self._admit(session.qos, path, session)
            number = self._book.aim(session, path)
            if number is None:
                return None
            moved = replace(session, path=path, route=self._route(path, number))
            return replace(moved, bandwidth=self.bandwidth(moved))

    def change(self, session: KeySession, now: Declared) -> None:
        """Have a held session be as its node declares it now; SessionError if its path cannot carry that."""
        what, qos = updated(session.declared, now), session.qos
        if declared_bps(what) != declared_bps(session.declared):
            qos = of_bandwidth(declared_bps(what))
        with self._graph.lock:
            if session.path is not None:
                self._admit(qos, session.path, session)
            self._book.changed(session, qos, what)

    def bandwidth(self, session: KeySession) -> int:
        """What the session needs now of each link on its path, bit/s."""
        if session.path is None:
            return 0
        parameters = self._settings.parameters
        return _bandwidth(session.qos, len(session.path.qcs), parameters.mode, self._ahead(session.qos))

    def needs_of(self, node: str) -> dict[str, Need]:
        """What sessions whose master is at that node have declared to need of each QC; a moving one of both ways.

        Of one that ended lately a request may be told of only now.
        """
        window_s = window_slots("eq1", self._settings.parameters.ttl_slots)
        found: dict[str, Need] = {}
        there, over = self._book.with_master_at(node, over_s=window_s)
        mode = self._settings.parameters.mode
        for session, goes_on in (*((s, True) for s in there), *((s, False) for s in over)):
            paths = [path for path in (session.path, session.target) if path is not None]
            mine = {
                qc: need
                for path in paths
                for qc, need in _needs(session.qos, path, mode, self._ahead(session.qos)).items()
            }
            for qc, need in mine.items():
                others = found.get(qc, Need(0, 0))
                found[qc] = Need(others.per_slot + goes_on * need.per_slot, others.at_once + need.at_once)
        return found

    def _candidates(self, graph: QkdGraph, source: str, target: str) -> Iterable[Path]:
        """Paths that the path policy takes, the best first."""
        parameters = self._settings.parameters
        policy = disjoint(PATH_POLICIES[parameters.path_policy], MODES[parameters.mode].paths)
        return policy(graph, source, target, lambda qc: self.views([qc])[0])

    def _admit(self, qos: QoS, path: Path, session: KeySession) -> None:
        """SessionError if a QC of the path cannot carry an open session, with that QoS, beside all others."""
        try:
            short = self._short(qos, path, session, duration_s=session.left_s(time.time()))
        except PluggedFailed as failure:
            raise SessionError(503, f"a policy of the user's fails: {failure}", cause="policy_failed") from None
        if short is not None:
            raise _refusal(short)

    def _short(
        self, qos: QoS, path: Path, besides: KeySession | None = None, *, duration_s: float | None
    ) -> Refused | None:
        """What a session of that QoS, which lasts so long, lacks on the path, beside all others but `besides`."""
        parameters = self._settings.parameters
        views = self.views(path.qcs, besides, slots=window_slots(parameters.admission, parameters.ttl_slots))
        waits_slots = math.floor(promised_slots(parameters.ttl_slots))
        demand = replace(
            self._demand(qos, path), draws=self._draws(qos, path, duration_s), waits_slots=waits_slots
        )
        return ADMISSION_POLICIES[parameters.admission](views, demand)

    def _draws(self, qos: QoS, path: Path, duration_s: float | None) -> Sequence[Draw]:
        """What a session of that QoS, which lasts so long, takes of the path's QCs from now on."""
        parameters, now_s = self._settings.parameters, self._now()
        begun_s = now_s - math.floor(now_s)
        end_s = math.inf if duration_s is None else begun_s + duration_s
        return MODES[parameters.mode].draws(
            path.qcs, qos.key_size_bits // 8, interval_s=qos.interval_s, keys_ahead=self._ahead(qos),
            waits_s=promised_slots(parameters.ttl_slots), when=Draw(0, 1.0, begun_s, end_s),
            double_at_last=path.double_at_last,
        )  # fmt: skip

    def _planned(self, qc: str, besides: KeySession | None, first: int, slots: int) -> Sequence[int]:
        with self._graph.lock:
            return self._agendas.planned(qc, besides, first, slots)

    def _wanted_of(self, qc: str, now_s: float) -> tuple[Sequence[int], float]:
        with self._graph.lock:
            return self._wanted.of(qc, now_s)

    def _route(self, path: Path, number: int = 0) -> Route:
        nodes, links = self._graph.nodes(), self._graph.links()
        ids = self._lighting.link_ids(path.qcs) | {qc: links[qc].link_id for qc in path.qcs if qc in links}
        return Route(
            [nodes[n].qkdn_id for n in path.nodes], [ids[qc] for qc in path.qcs], number,
            from_last=path.double_at_last, hops=path.hops,
        )  # fmt: skip

    def _demand(self, qos: QoS, path: Path) -> Demand:
        mode, keys_ahead = self._settings.parameters.mode, self._ahead(qos)
        return _demand(qos, len(path.qcs), mode, keys_ahead, double_at_last=path.double_at_last)

    def _ahead(self, qos: QoS) -> int:
        """How many keys a session of that QoS makes at once."""
        parameters = self._settings.parameters
        return ahead(parameters.keys_ahead, qos.interval_s, parameters.ttl_slots)


def _refusal(short: Refused) -> SessionError:
    """What a session is refused with."""
    tried = [" - ".join(nodes) for nodes in short.tried[1:]]
    seen = f": {short.seen}" if short.seen else ""
    also = f"; nor can another way: {', '.join(tried)}" if tried else ""
    return SessionError(
        503,
        f"QC {short.qc} cannot carry the session: it needs {short.needed_bytes} bytes,"
        f" {short.available_bytes} are available{seen}{also}",
        cause="refused", qc=short.qc, needed_bytes=short.needed_bytes, available_bytes=short.available_bytes,
    )  # fmt: skip


# Of many sessions few differ in these.
@functools.lru_cache(4096)
def _demand(qos: QoS, hops: int, mode: str, keys_ahead: int, *, double_at_last: bool) -> Demand:
    key_bytes = qos.key_size_bits // 8
    cost = MODES[mode].per_key(hops, key_bytes, keys_ahead, double_at_last=double_at_last)
    return Demand(key_bytes, qos.interval_s, cost)


@functools.lru_cache(4096)
def _bandwidth(qos: QoS, hops: int, mode: str, keys_ahead: int) -> int:
    demand = _demand(qos, hops, mode, keys_ahead, double_at_last=False)  # whichever end it is, the most is the same
    return math.ceil(8 * max(demand.per_slot(hop) for hop in range(hops)))


@functools.lru_cache(4096)
def _needs(qos: QoS, path: Path, mode: str, keys_ahead: int) -> Mapping[str, Need]:
    demand = _demand(qos, len(path.qcs), mode, keys_ahead, double_at_last=path.double_at_last)
    # Where keys are made ahead, a request may be for many of them.
    at_once = MODES[mode].needs(
        path.qcs, qos.key_size_bits // 8, MODES[mode].number_at_once(1, keys_ahead), double_at_last=path.double_at_last
    )
    return {qc: Need(demand.per_slot(hop), taken) for hop, (qc, taken) in enumerate(at_once)}
