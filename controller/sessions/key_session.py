"""A key session: which state it is in, and the documents in which it is written down. PURE.

    waiting --both sides have registered--> configuring --all nodes have it--> open --it ends--> ending
       |                                       |    |                                             ^
       '--withdrawn, too old, superseded       |    '--an end was done with it before it was open-'
                                               '--refused, a node did not take it over

A session that waits, or that is refused, leaves the registry without a trace; one whose nodes may have something of it
stays there, as `ending`, until each of them has forgotten it. What moves an open session changes its path, not its
state. The documents are for its nodes, for operators and for the store.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller import limits
from controller.agents import configuration
from controller.agents.configuration import Declared, Wants, declared_bps, updated
from decisions.paths import Path
from etsi.gs004 import QoS
from etsi.gs004 import qos as qos_of

Pair = tuple[str, str]  # master SAE, slave SAE
Place = tuple[Pair, bool]  # whether implicit

WAITING, CONFIGURING, OPEN, ENDING = "waiting", "configuring", "open", "ending"
MASTER, SLAVE = "master", "slave"
_NEXT = {WAITING: {CONFIGURING}, CONFIGURING: {OPEN, ENDING}, OPEN: {ENDING}, ENDING: set[str]()}


class SessionError(Exception):
    """A session that does not come to be: `status` as HTTP has it, `facts` for programs, with a `cause`."""

    def __init__(self, status: int, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.facts = facts


@dataclass(slots=True)
class KeySession:
    """A key session; `nodes` holds the node of each side ("master", "slave") that has registered.

    `since`: when it was registered last. `requests`: by node, those with which its applications wait for an answer.
    `implicit`: nobody registered it, a request for keys called for it. `target`: the path to which it is moving.
    `elsewhere`: numbers of virtual links that nodes may still have of it, though it does not go over them. `unsure`:
    its ends that may not know what feeds it now. `lingers`: links over which its slave's end takes keys for a while
    yet, as it went over them until it moved, at `moved_at` (monotonic clock). `down`: what its path lacks where there
    is no other; `interruption` says it in words, `stays_for` is the cause for which it is not moved. `bandwidth`: what
    its nodes have been told that it needs of each link on its path, bit/s.
    `declared`: by the nodes of its ends, members of qkd_app. `duration_s`: how long it is to last from its opening on,
    as its master's side says; None if nobody knows. `over_by`: the node of an end that was done with it before
    it was open.
    """

    ksid: str
    pair: Pair
    qos: QoS
    since: float
    nodes: dict[str, str] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=dict)
    implicit: bool = False
    state: str = WAITING
    mode: str = ""
    path: Path | None = None
    route: configuration.Route | None = None
    bandwidth: int = 0
    declared: Declared = field(default_factory=dict)
    duration_s: float | None = None
    opened_at: float | None = None  # wall clock
    timings_ms: dict[str, float] = field(default_factory=dict)
    target: Path | None = None
    last_number: int = 0  # of its virtual links
    elsewhere: dict[str, list[int]] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    lingers: Collection[str] = ()
    moved_at: float = -math.inf
    down: tuple[str, ...] = ()
    interruption: str = ""
    stays_for: str = ""
    over_by: str = ""

    @classmethod
    def stored(cls, document: Mapping[str, Any], since: float) -> KeySession:
        """A session out of the store."""
        path = Path(
            tuple(document["path"]), tuple(document["qcs"]), bool(document.get("double_at_last")),
            hops=tuple(document.get("hops", ())),
        )  # fmt: skip
        return cls(
            document["ksid"], (document["master_sae"], document["slave_sae"]), qos_of(document["qos"]), since,
            nodes={"master": path.nodes[0], "slave": path.nodes[-1]}, implicit=document["implicit"],
            state=document["state"], mode=document["mode"], path=path,
            route=configuration.Route(
                document["node_ids"], document["link_ids"], document["link_number"], path.double_at_last, path.hops
            ),
            opened_at=document["opened_at"], timings_ms=document["timings_ms"], last_number=document["last_number"],
            elsewhere=document["elsewhere"], bandwidth=document["bandwidth"], declared=document["declared"],
            duration_s=document.get("duration_s"),
        )  # fmt: skip

    @property
    def place(self) -> Place:
        """Where the book of sessions has it."""
        return self.pair, self.implicit

    @property
    def app(self) -> Declared:
        """What its ends' nodes are told in the members that applications declare."""
        if declared_bps(self.declared):
            return self.declared
        return updated(self.declared, {"app_qos": {"min_bandwidth": math.ceil(self.qos.max_bps)}})

    def left_s(self, wall_s: float) -> float | None:
        """How much longer it is to last at that time; None if nobody knows."""
        if self.duration_s is None or self.opened_at is None:
            return self.duration_s
        return max(0.0, self.opened_at + self.duration_s - wall_s)

    def register(self, node: str, side: str, wants: Wants, now: float, *, implicit: bool, request: str = "") -> None:
        """A node registers a side of it, perhaps again; with both it is `configuring`. SessionError: it cannot now."""
        self._check_side(node, side, implicit=implicit)
        if side == MASTER:
            # The one who asks for keys says of which size, how often and for how long.
            self.qos, self.duration_s = wants.qos, wants.duration_s
            self.declared = updated(self.declared, wants.declared)  # and has the last word
        else:
            self.declared = updated(wants.declared, self.declared)
        self.nodes[side], self.since = node, now
        asked = [known for known in self.requests.get(node, []) if known != request]
        self.requests[node] = [*asked, request][-limits.REQUESTS_OF_ONE :]
        if len(self.nodes) == 2:
            self._go(CONFIGURING)

    def _check_side(self, node: str, side: str, *, implicit: bool) -> None:
        if self.state == CONFIGURING and implicit:
            raise SessionError(503, "a key session of this pair is being opened: try again", cause="opening")
        if self.state != WAITING:
            facts: dict[str, Any] = {"cause": "exists", "ksid": self.ksid}
            raise SessionError(409, "a key session of this pair is open already", **facts)
        if self.nodes.get(side, node) != node:
            raise SessionError(409, "another node has registered this SAE", cause="foreign")
        if any(other == node for s, other in self.nodes.items() if s != side):
            raise SessionError(400, "both SAEs are at the same node, which needs no QKD", cause="same_node")

    def over_once_open(self, node: str) -> bool:
        """The end of it at that node is done with it: False if it is not being opened any more."""
        if self.state != CONFIGURING:
            return False
        self.over_by = node
        return True

    @property
    def once_open(self) -> str:
        """The state that it is to be found in once all its nodes have it, whatever becomes of the controller."""
        return ENDING if self.over_by else OPEN

    def open(self) -> None:
        """All its nodes have it."""
        self._go(OPEN)

    def end(self) -> None:
        """Its nodes are told now to forget it."""
        self._go(ENDING)

    def chosen(self, path: Path, route: configuration.Route) -> None:
        """It is to go that way once it is open."""
        self.path, self.route = path, route
        self.last_number = route.number + len(path.paths) - 1

    def aim(self, path: Path) -> int:
        """It is to move to that path, not before `commit`: over a virtual link of the number that is returned.

        Over several paths their virtual links have that number and those after it.
        """
        number = self.last_number + 1
        self.last_number += len(path.paths)
        self.left_behind(path, number)
        self.target = path
        return number

    def commit(self, moved: KeySession, now: float) -> None:
        """From now on it goes the way of `moved`, whatever its ends know."""
        assert self.route is not None and moved.path is not None and moved.route is not None  # noqa: S101, PT018
        self.left_behind(self.path, self.route.number)
        self.lingers, self.moved_at = configuration.feeds(self.ksid, self.route), now
        for node in moved.path.nodes:
            self.tidied(node, moved.route.numbers)
        self.path, self.route, self.bandwidth = moved.path, moved.route, moved.bandwidth
        self.unsure = {moved.path.nodes[0], moved.path.nodes[-1]}

    def _go(self, state: str) -> None:
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"key session {self.ksid} is {self.state}: it does not get {state}")
        self.state = state

    def concerns(self, node: str) -> bool:
        """Whether that node has something of the session, or may have."""
        passed = () if self.path is None else self.path.nodes
        return node in self.nodes.values() or node in passed or node in self.elsewhere

    def to_nodes(self) -> dict[str, dict[str, Any]]:
        """The configuration of each node of the path, by name, as members of qkd_node."""
        path, route = self._chosen()
        parts = dict(zip(path.nodes, configuration.links(self.ksid, route, self.bandwidth), strict=True))
        for node, at_master in ((path.nodes[0], True), (path.nodes[-1], False)):
            app = configuration.application(self.ksid, self.pair, route, at_master=at_master, declares=self.app)
            if not at_master:
                fed = app["qkd_applications"]["qkd_app"][0]["backing_qkdl_id"]
                fed += [link for link in self.lingers if link not in fed]
            parts[node] = configuration.merged(parts[node], app)
        return parts

    def at_nodes(self) -> dict[str, list[str]]:
        """The resources of the session at each node that has some, or may have."""
        path, route = self._chosen()
        found = {
            node: configuration.resources(self.ksid, route, of_node)
            for node, of_node in zip(path.nodes, route.nodes, strict=True)
        }
        for node in self.elsewhere:
            found[node] = found.get(node, []) + self.leftovers(node)
        return found

    def leftovers(self, node: str) -> list[str]:
        """The resources of virtual links that the session does not go over, and that node may still have."""
        return [path for n in self.elsewhere.get(node, []) for path in configuration.link_resources(self.ksid, n)]

    def left_behind(self, path: Path | None, number: int) -> None:
        """The nodes of that path may have a virtual link of that number which is not the session's.

        Of several paths each has its own, of that number and those after it.
        """
        for link, one in enumerate(() if path is None else path.paths, number):
            for node in one.nodes if len(one.qcs) > 1 else ():
                left = [n for n in self.elsewhere.get(node, []) if n != link] + [link]
                # A node that forgets none of many keeps what it has: they lead nowhere.
                self.elsewhere[node] = left[-limits.LEFT_AT_ONE :]

    def tidied(self, node: str, numbers: Collection[int] | None = None) -> None:
        """That node has no link left over; or not those of these numbers, because the session goes over them."""
        left = [n for n in self.elsewhere.pop(node, []) if numbers is not None and n not in numbers]
        if left:
            self.elsewhere[node] = left

    def _chosen(self) -> tuple[Path, configuration.Route]:
        assert self.path is not None and self.route is not None  # noqa: S101, PT018 - configured after the choice
        return self.path, self.route

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        path = None if self.path is None else list(self.path.nodes)
        return {
            "ksid": self.ksid, "master_sae": self.pair[0], "slave_sae": self.pair[1], "state": self.state,
            "mode": self.mode, "path": path, "qcs": [] if self.path is None else list(self.path.qcs),
            "paths": None if self.path is None else [list(one.nodes) for one in self.path.paths],
            "double_at_last": self.path is not None and self.path.double_at_last,
            "qos": self.qos.to_json(), "opened_at": self.opened_at, "implicit": self.implicit,
            "timings_ms": self.timings_ms, "interruption": self.interruption or None,
        }  # fmt: skip

    def to_store(self) -> dict[str, Any]:
        """The document that `stored` reads."""
        _, route = self._chosen()
        return self.to_json() | {
            "node_ids": list(route.nodes), "link_ids": list(route.links), "link_number": route.number,
            "last_number": self.last_number, "elsewhere": self.elsewhere, "bandwidth": self.bandwidth,
            "declared": self.declared, "duration_s": self.duration_s, "hops": list(route.hops),
        }  # fmt: skip
