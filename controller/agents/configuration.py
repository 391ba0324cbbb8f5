"""A key session as configuration of the nodes on its path (GS QKD 015, clause 5): links and applications. PURE.

Over one hop the applications at both ends are fed by the physical link. Over several, a virtual link is configured on
every node of the path, and is there an INTERNAL application of the physical links that it passes; the applications at
the ends are fed by it.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decisions.paths import Path
from documents.checks import Malformed
from etsi import gs015
from etsi.gs004 import QoS, qos
from etsi.sae_id import from_uri, sae_id, to_uri

Declared = Mapping[str, Any]  # members of qkd_app: app_qos and app_priority, as far as they were named
_MEMBERS = ("app_qos", "app_priority")


@dataclass(frozen=True, slots=True)
class Wants:
    """What an application wants: a key of a size every so often, and what its node declared in the standard's words.

    `duration_s`: for how long; None if nobody knows.
    """

    qos: QoS
    declared: Declared
    duration_s: float | None = None


def pair(content: Mapping[str, Any]) -> tuple[str, str]:
    """Server (master) and client (slave) of a notification; Malformed."""
    clients = content.get("client_app_id", [])
    if len(clients) != 1:
        raise Malformed("client_app_id", "one application")
    if "server_app_id" not in content:
        raise Malformed("server_app_id", "an application")
    found = sae_id(from_uri(content["server_app_id"]), "server_app_id"), sae_id(from_uri(clients[0]), "client_app_id")
    if found[0] == found[1]:
        raise Malformed("client_app_id", "another application than server_app_id")
    return found


def declared(application: Mapping[str, Any]) -> Declared:
    """What a notification declares."""
    return {member: application[member] for member in _MEMBERS if member in application}


def updated(before: Declared, now: Declared) -> Declared:
    """What counts when `now` was declared after, or above, `before`: members that are not named stay."""
    app_qos = {**before.get("app_qos", {}), **now.get("app_qos", {})}
    return {**before, **now} | ({"app_qos": app_qos} if app_qos else {})


def declared_bps(what: Declared) -> int:
    """The bandwidth declared, in bit/s: the least that is wanted, else the most; 0 if none is."""
    app_qos = what.get("app_qos", {})
    return int(app_qos.get("min_bandwidth", app_qos.get("max_bandwidth", 0)))


def of_bandwidth(bps: int) -> QoS:
    """A bandwidth alone counts as a key of that size each second."""
    return QoS(key_size_bits=min(1 << 20, -(-bps // 8) * 8), interval_s=1.0) if bps else QoS()


def wanted(application: Mapping[str, Any]) -> Wants:
    """What a notification asks for: a key of a size every so often, which our nodes say, or a bandwidth; Malformed."""
    what = declared(application)
    if "qkd-testbed:key_size" in application:
        interval_s = float(application.get("qkd-testbed:interval", "5.0"))
        wants = qos({"key_size_bits": application["qkd-testbed:key_size"], "interval_s": interval_s})
        lasts = application.get("qkd-testbed:duration")
        return Wants(wants, what, None if lasts is None else max(0.0, float(lasts)))
    return Wants(of_bandwidth(declared_bps(what)), what)


@dataclass(frozen=True, slots=True)
class Route:
    """The path of a session: the qkdn_id of each node, the qkdl_id of each hop's physical link; `hops` as in `Path`.

    `number`: of its virtual link. A session that moves gets a new one, so that no node ever has half of the old way and
    half of the new one in a link. `from_last`: the virtual link leads from the last node to the first one. That is how
    the nodes hear which end of it pays double: the one where it begins.

    Each of several paths is a virtual link of its own, of the numbers from `number` on, or a physical link.
    """

    nodes: Sequence[str]
    links: Sequence[str]
    number: int = 0
    from_last: bool = False
    hops: Sequence[int] = ()

    @property
    def routes(self) -> list[Route]:
        """Each of several paths; else this one alone."""
        if not self.hops:
            return [self]
        paths = Path(tuple(self.nodes), tuple(self.links), hops=tuple(self.hops)).paths
        return [Route(path.nodes, path.qcs, self.number + i) for i, path in enumerate(paths)]

    @property
    def numbers(self) -> Sequence[int]:
        """Those of all its virtual links."""
        return [route.number for route in self.routes if len(route.links) > 1]


def virtual_link(ksid: str, number: int = 0) -> str:
    """The qkdl_id of the virtual link of that number that a session goes over."""
    return str(uuid.uuid5(uuid.UUID(ksid), f"virtual link {number}" if number else "virtual link"))


def links(ksid: str, route: Route, bandwidth: int) -> list[dict[str, Any]]:
    """What each node of the path is to have of the virtual link: members of qkd_node. Nothing for one hop.

    `bandwidth` in bit/s.
    """
    if route.hops:
        parts: dict[str, list[dict[str, Any]]] = {node: [] for node in route.nodes}
        for one in route.routes:
            for node, document in zip(one.nodes, links(ksid, one, bandwidth), strict=True):
                parts[node].append(document)
        return [merged(*documents) for documents in parts.values()]
    if len(route.links) == 1:
        return [{} for _ in route.nodes]
    key = virtual_link(ksid, route.number)
    found = []
    around = [None, *route.nodes, None]
    for at, node in enumerate(route.nodes):
        previous, following = around[at], around[at + 2]
        if route.from_last:
            previous, following = following, previous
        link: dict[str, Any] = {
            "qkdl_id": key,
            "qkdl_enable": True,
            "qkdl_type": gs015.VIRT,
            "qkdl_local": {"qkdn_id": node},
            "qkdl_remote": {"qkdn_id": route.nodes[0] if at == len(route.nodes) - 1 else route.nodes[-1]},
            "virt_bandwidth": bandwidth,
        }
        if previous is not None:
            link["virt_prev_hop"] = previous
        if following is not None:
            link["virt_next_hop"] = [following]
        internal = {
            "app_id": key,
            "app_type": gs015.INTERNAL,
            "server_app_id": f"urn:uuid:{key}",
            "app_qos": {"max_bandwidth": bandwidth},
            "backing_qkdl_id": list(route.links[max(0, at - 1) : at + 1]),
            "local_qkdn_id": node,
            "remote_qkdn_id": link["qkdl_remote"]["qkdn_id"],
        }
        found.append({"qkd_links": {"qkd_link": [link]}, "qkd_applications": {"qkd_app": [internal]}})
    return found


def feeds(ksid: str, route: Route) -> list[str]:
    """The qkdl_id of each link that a session goes over: of its virtual links, or the physical one between neighbours.
    """
    return [one.links[0] if len(one.links) == 1 else virtual_link(ksid, one.number) for one in route.routes]


def application(
    ksid: str, pair: tuple[str, str], route: Route, *, at_master: bool, declares: Declared
) -> dict[str, Any]:
    """The application at one end, as members of qkd_node. `pair`: server (master) and client."""
    ends = route.nodes[0], route.nodes[-1]
    local, remote = ends if at_master else ends[::-1]
    app = {
        "app_id": ksid,
        "app_type": gs015.CLIENT,
        "server_app_id": to_uri(pair[0]),
        "client_app_id": [to_uri(pair[1])],
        **declares,
        "backing_qkdl_id": feeds(ksid, route),
        "local_qkdn_id": local,
        "remote_qkdn_id": remote,
    }
    return {"qkd_applications": {"qkd_app": [app]}}


def bandwidths(document: Mapping[str, Any]) -> dict[str, Any]:
    """Of members of qkd_node that a virtual link stands in, those that say what it needs; to be merged."""
    links_, apps = document.get("qkd_links", {}), document.get("qkd_applications", {})
    kept = ("qkdl_id", "qkdl_type", "virt_bandwidth")
    found = [{member: link[member] for member in kept} for link in links_.get("qkd_link", [])]
    internal = [
        {"app_id": app["app_id"], "app_qos": app["app_qos"]}
        for app in apps.get("qkd_app", [])
        if app["app_type"] == gs015.INTERNAL
    ]
    return merged({"qkd_links": {"qkd_link": found}, "qkd_applications": {"qkd_app": internal}})


def merged(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """Members of qkd_node, put together."""
    lists = (("qkd_links", "qkd_link"), ("qkd_applications", "qkd_app"))
    found = {}
    for outer, inner in lists:
        entries = list(itertools.chain.from_iterable(d.get(outer, {}).get(inner, []) for d in documents))
        if entries:
            found[outer] = {inner: entries}
    return found


def without_application(document: Mapping[str, Any], ksid: str) -> dict[str, Any]:
    """The same members of qkd_node, but for the session's application."""
    apps = [a for a in document.get("qkd_applications", {}).get("qkd_app", []) if a["app_id"] != ksid]
    rest = {k: v for k, v in document.items() if k != "qkd_applications"}
    return rest | ({"qkd_applications": {"qkd_app": apps}} if apps else {})


def application_of(document: Mapping[str, Any], ksid: str) -> dict[str, Any] | None:
    """The session's application in members of qkd_node, if it is there."""
    apps = document.get("qkd_applications", {}).get("qkd_app", [])
    return next((a for a in apps if a["app_id"] == ksid), None)


def with_application(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """An application that is `there`, or nothing, so that it is as `wanted`; what that does not name stays."""
    return {**there, **wanted, **updated(declared(there), declared(wanted))}


def application_path(ksid: str) -> str:
    """The resource of a session's application, below qkd_node."""
    return f"qkd_applications/qkd_app={ksid}"


def link_resources(ksid: str, number: int) -> list[str]:
    """What a node has of that virtual link, as paths below qkd_node."""
    # The link goes last: our own agents drop the INTERNAL application together with it.
    key = virtual_link(ksid, number)
    return [application_path(key), f"qkd_links/qkd_link={key}"]


def resources(ksid: str, route: Route, node: str) -> list[str]:
    """What that node of the path (its qkdn_id) has of a session, as paths below qkd_node."""
    found = [application_path(ksid)] if node in (route.nodes[0], route.nodes[-1]) else []
    for one in route.routes:
        if node in one.nodes and len(one.links) > 1:
            found += link_resources(ksid, one.number)
    return found


def is_complete(node: Mapping[str, Any], documents: Mapping[str, Any]) -> bool:
    """Whether the node has all links and applications that `documents` (members of qkd_node) name.

    Applications of SAEs must be fed by the links named, too: those may be others since the session has moved. Virtual
    links must have the bandwidth that they are to have: that follows the mode.
    """
    for outer, inner, key in (("qkd_links", "qkd_link", "qkdl_id"), ("qkd_applications", "qkd_app", "app_id")):
        there = {entry[key] for entry in node.get(outer, {}).get(inner, [])}
        wanted = {entry[key] for entry in documents.get(outer, {}).get(inner, [])}
        if not wanted <= there:
            return False
    if any(entry not in _weights(node) for entry in _weights(documents)):
        return False
    feeds, wanted_feeds = _feeds(node), _feeds(documents)
    if not all(feeds.get(ksid) == backing for ksid, backing in wanted_feeds.items()):
        return False
    declares = {app["app_id"]: declared(app) for app in _clients(node)}
    # Whatever others have set beside what is ours stays as it is.
    ours = {app["app_id"]: declared(app) for app in _clients(documents)}
    return all(updated(declares[ksid], what) == declares[ksid] for ksid, what in ours.items())


def _weights(document: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """The bandwidth of each virtual link, and of each INTERNAL application."""
    found = [(e["qkdl_id"], e.get("virt_bandwidth")) for e in document.get("qkd_links", {}).get("qkd_link", [])
             if e.get("qkdl_type") == gs015.VIRT]  # fmt: skip
    apps = document.get("qkd_applications", {}).get("qkd_app", [])
    internal = [a for a in apps if a.get("app_type") == gs015.INTERNAL]
    return found + [(a["app_id"], a.get("app_qos", {}).get("max_bandwidth")) for a in internal]


def _feeds(document: Mapping[str, Any]) -> dict[str, set[str]]:
    """The links that feed each application of SAEs."""
    return {a["app_id"]: set(a.get("backing_qkdl_id", [])) for a in _clients(document)}


def _clients(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    apps = document.get("qkd_applications", {}).get("qkd_app", [])
    return [a for a in apps if a.get("app_type", gs015.CLIENT) == gs015.CLIENT]
