"""Which path a key session takes, and whether it may: path policy and admission, for one session at a time.

Who holds the graph's lock decides; sessions that have chosen count for those that come after them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from controller.agents.configuration import Declared, Route, declared_bps, of_bandwidth, updated
from controller.network.graph import Graph
from controller.network.settings import Settings
from controller.sessions.key_session import KeySession, SessionError
from controller.sessions.registry import Book
from decisions.admission import ADMISSION_POLICIES, Demand, Need, QcView, Refused, window_slots
from decisions.modes import MODES
from decisions.paths import PATH_POLICIES, Path, QkdGraph
from etsi.gs004 import QoS


class Choice:
    """Decides by what the graph, the book and the settings say now. Thread-safe."""

    def __init__(self, graph: Graph, book: Book, settings: Settings) -> None:
        self._graph = graph
        self._book = book
        self._settings = settings

    def views(
        self, qcs: Sequence[str], besides: KeySession | None = None, *, slots: int | None = None
    ) -> list[QcView]:
        """How `qcs` fared over the last slots (a TTL of them), and what is reserved there by others than `besides`."""
        views = self._graph.views(qcs, slots or self._settings.parameters.ttl_slots)
        return [replace(view, reserved_per_slot=self._reserved_per_slot(view.qc, besides)) for view in views]

    def path(self, graph: QkdGraph, source: str, target: str) -> Path | None:
        """The way through `graph` that the path policy takes for one more session; None if there is none."""
        policy = PATH_POLICIES[self._settings.parameters.path_policy]
        return policy(graph, source, target, lambda qc: self.views([qc])[0].merit)

    def choose(self, session: KeySession) -> Path:
        """Give the session a path, which is reserved for it from now on; SessionError."""
        parameters = self._settings.parameters
        with self._graph.lock:
            graph = self._graph.topology()
            unknown = sorted(set(session.nodes.values()) - set(graph))
            if unknown:
                text = f"the controller does not reach node {unknown[0]} (yet)"
                raise SessionError(503, text, cause="unknown_node", node=unknown[0])
            path = self.path(graph, session.nodes["master"], session.nodes["slave"])
            if path is None:
                text = f"there is no path of QCs between {session.nodes['master']} and {session.nodes['slave']}"
                down = self._graph.down()
                raise SessionError(503, text + (f"; down: {', '.join(down)}" if down else ""), cause="no_path")
            self._admit(session.qos, path)
            session.route = self._route(path)
            session.path, session.mode = path, parameters.mode
            session.bandwidth = self.bandwidth(session)
            return path

    def aim(self, session: KeySession, path: Path) -> KeySession | None:
        """A held session as it will be on `path`, which is reserved for it; None if that cannot be.

        SessionError: refused.
        """
        with self._graph.lock:
            if not set(path.qcs) <= set(self._graph.links()):
                return None
            self._admit(session.qos, path, besides=session)
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
                self._admit(qos, session.path, besides=session)
            self._book.changed(session, qos, what)

    def bandwidth(self, session: KeySession) -> int:
        """What the session needs now of each link on its path, bit/s."""
        if session.path is None:
            return 0
        parameters = self._settings.parameters
        return _bandwidth(session.qos, len(session.path.qcs), parameters.mode, parameters.keys_ahead)

    def needs_of(self, node: str) -> dict[str, Need]:
        """What sessions whose master is at that node have declared to need of each QC; a moving one of both ways.

        Of one that ended lately a request may be told of only now.
        """
        window_s = window_slots("eq1", self._settings.parameters.ttl_slots)
        found: dict[str, Need] = {}
        there, over = self._book.with_master_at(node, over_s=window_s)
        mode, ahead = self._settings.parameters.mode, self._settings.parameters.keys_ahead
        for session, goes_on in (*((s, True) for s in there), *((s, False) for s in over)):
            paths = [path for path in (session.path, session.target) if path is not None]
            mine = {qc: need for path in paths for qc, need in _needs(session.qos, path, mode, ahead).items()}
            for qc, need in mine.items():
                others = found.get(qc, Need(0, 0))
                found[qc] = Need(others.per_slot + goes_on * need.per_slot, others.at_once + need.at_once)
        return found

    def _admit(self, qos: QoS, path: Path, besides: KeySession | None = None) -> None:
        """SessionError if a QC of the path cannot carry a session of that QoS beside all others but `besides`."""
        parameters = self._settings.parameters
        views = self.views(path.qcs, besides, slots=window_slots(parameters.admission, parameters.ttl_slots))
        short = ADMISSION_POLICIES[parameters.admission](views, self._demand(qos, path))
        if isinstance(short, Refused):
            raise SessionError(
                503,
                f"QC {short.qc} cannot carry the session: it needs {short.needed_bytes} bytes,"
                f" {short.available_bytes} are available",
                cause="refused", qc=short.qc, needed_bytes=short.needed_bytes, available_bytes=short.available_bytes,
            )  # fmt: skip

    def _route(self, path: Path, number: int = 0) -> Route:
        nodes, links = self._graph.nodes(), self._graph.links()
        return Route([nodes[n].qkdn_id for n in path.nodes], [links[qc].link_id for qc in path.qcs], number)

    def _demand(self, qos: QoS, path: Path) -> Demand:
        return _demand(qos, len(path.qcs), self._settings.parameters.mode, self._settings.parameters.keys_ahead)

    def _reserved_per_slot(self, qc: str, besides: KeySession | None = None) -> float:
        """What the sessions that hold a path have declared to need of that QC, in bytes a slot, but for `besides`.

        A session that moves holds both ways.
        """
        held = (
            (s, next((p for p in (s.target, s.path) if p is not None and qc in p.qcs), None)) for s in self._book.all()
        )
        return sum(
            self._demand(session.qos, path).per_slot(path.qcs.index(qc))
            for session, path in held
            if path is not None and session is not besides
        )


# Of many sessions few differ in these.
@functools.lru_cache(4096)
def _demand(qos: QoS, hops: int, mode: str, keys_ahead: int) -> Demand:
    key_bytes = qos.key_size_bits // 8
    return Demand(key_bytes, qos.interval_s, MODES[mode].per_key(hops, key_bytes, keys_ahead))


@functools.lru_cache(4096)
def _bandwidth(qos: QoS, hops: int, mode: str, keys_ahead: int) -> int:
    demand = _demand(qos, hops, mode, keys_ahead)
    return math.ceil(8 * max(demand.per_slot(hop) for hop in range(hops)))


@functools.lru_cache(4096)
def _needs(qos: QoS, path: Path, mode: str, keys_ahead: int) -> Mapping[str, Need]:
    demand = _demand(qos, len(path.qcs), mode, keys_ahead)
    # Where keys are made ahead, a request may be for many of them.
    at_once = MODES[mode].needs(path.qcs, qos.key_size_bits // 8, MODES[mode].number_at_once(1, keys_ahead))
    return {qc: Need(demand.per_slot(hop), taken) for hop, (qc, taken) in enumerate(at_once)}
