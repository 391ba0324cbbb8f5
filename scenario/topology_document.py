"""From a document of plain dicts and lists, whatever its notation was, to a topology or one line that refuses it."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import networkx as nx

from decisions.tunnels import EVERY_S, KINDS, LEAST_EVERY_S, MOST_EVERY_S, POLICIES
from documents.checks import Malformed
from etsi.gs014 import Limits, limits
from scenario import switched
from scenario.machines import HOME, Machine
from scenario.qc_document import MOST_DB, qc
from scenario.shape import MAX_BANDWIDTH_MBIT, MAX_DELAY_MS, MIN_BANDWIDTH_MBIT, Shape
from scenario.switched import Optics, optics_of
from scenario.topology_description import (
    Field,
    Link,
    Node,
    Sae,
    Topology,
    TopologyError,
    Tunnel,
    check_distinct,
    free_name,
)

# One-way delay of a kilometre of fibre, ms: light in glass travels at about two thirds of c.
_MS_PER_KM = 0.005
# A node's name becomes that of its Mininet host; these hosts are the controllers' and the shared database's.
RESERVED_NODE_NAMES = ("ctl", "ctl2", "db")
_MOST_MODULES = 1000
_MOST_MACHINES = 200
# No option of ssh among them: a file of somebody else's is to start nothing here.
_SSH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:/%\[\]-]{0,254}")
_LINK_NAME_LENGTH = 80  # two node names, the hyphen between them and a number fit
# What a link may say of both directions, and each direction of its own, with defaults.
_SHAPE: dict[str, object] = {"delay_ms": None, "jitter_ms": 0, "loss_percent": 0, "bandwidth_mbit": None}
# IDs of SAEs that serve as names, too; others may hold slashes, or be longer than the name of a file.
_AS_A_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_Members = dict[str, Field]


def build(document: Field) -> Topology:
    """The topology that a document describes. Raises TopologyError."""
    network = document.members(
        "name", "nodes", "links", "saes", description="", controller=None, controller2=None, database=None,
        database2=None, database3=None, limits={}, tunnels=[], optics=None, machines=[],
    )
    nodes = _nodes(network["nodes"])
    known = [node.name for node in nodes]
    optics = optics_of(network["optics"]) if "optics" in network else None
    links = _links(network["links"], known, optics)

    def host_at(member: str) -> str | None:
        return network[member].one_of(known) if member in network else None

    found = Topology(
        name=network["name"].name(),
        description=network["description"].text(),
        nodes=nodes,
        links=links,
        saes=_saes(network["saes"], known),
        controller_at=host_at("controller") or known[0],
        database_at=host_at("database") or known[0],
        controller2_at=host_at("controller2"),
        database2_at=host_at("database2"),
        database3_at=host_at("database3"),
        limits=_limits(network["limits"]),
        tunnels=_tunnels(network["tunnels"], known),
    )
    return switched.checked(placed(found, network["machines"]), optics, document)


def placed(topology: Topology, field: Field) -> Topology:
    """The same network with datacenters on the machines that a list describes. Raises TopologyError."""
    items = field.items()
    if len(items) > _MOST_MACHINES:
        raise field.error(f"expected at most {_MOST_MACHINES} machines, got {len(items)}")
    members = [item.members("name", "ssh", "datacenters", root=None, address=None) for item in items]
    known = [node.name for node in topology.nodes]
    at_home = {
        topology.controller2_at: "second controller", topology.controller_at: "controller",
        topology.database_at: "shared database",
    }  # fmt: skip
    centers = [center for each in members for center in each["datacenters"].items()]
    for center in centers:
        if (held := at_home.get(center.one_of(known))) is not None:
            raise center.error(f"{center.value!r} has the {held}, and so it stays at {HOME}")
    check_distinct(centers)
    check_distinct(each["name"] for each in members)
    return replace(topology, machines=tuple(_machine(each) for each in members))


def _machine(members: _Members) -> Machine:
    if members["name"].name() == HOME:
        raise members["name"].error(f"{HOME!r} is the machine where run.py is started, expected another name")
    ssh, centers = members["ssh"], members["datacenters"].items()
    if not isinstance(ssh.value, str) or not _SSH.fullmatch(ssh.value):
        raise ssh.expected("what ssh takes for a machine, such as admin@east.example.net (options: ~/.ssh/config)")
    if not centers:
        raise members["datacenters"].error("expected at least one datacenter, got none")
    root = str(members["root"].value) if "root" in members else None
    if root is not None and not (root.startswith("/") and root.isprintable()):
        raise members["root"].expected("the absolute path of the testbed's folder on that machine")
    address = members["address"].text() if "address" in members else None
    try:
        address = None if address is None else str(ipaddress.ip_address(address))
    except ValueError:
        raise members["address"].expected("an IP address of that machine") from None
    return Machine(members["name"].name(), ssh.value, tuple(str(c.value) for c in centers), root, address)


def check_enough_nodes(field: Field, number: int) -> None:
    """Refuses a network of that number of nodes if no two could share keys in it."""
    if number < 2:
        raise field.error(f"expected at least two nodes, got {number}")


def check_connected(field: Field, nodes: Iterable[str], ends: Iterable[tuple[str, str]]) -> None:
    """Refuses a network whose links leave some of the nodes apart."""
    graph: nx.Graph[str] = nx.Graph(ends)
    graph.add_nodes_from(nodes)
    parts = [min(part) for part in nx.connected_components(graph)]
    if len(parts) > 1:
        apart = f"{len(parts)} parts with no link between them, for example {parts[0]!r} and {parts[1]!r}"
        raise field.error(f"expected one connected network, got {apart}")


def _limits(field: Field) -> Limits:
    given = field.members(**dict.fromkeys(Limits().to_json()))
    try:
        return limits({name: member.value for name, member in given.items()}, field.path)
    except Malformed as error:
        raise TopologyError(field.source, str(error)) from None


def _nodes(field: Field) -> tuple[Node, ...]:
    items = [item.members("name", title=None, position=None, modules=None) for item in field.items()]
    check_enough_nodes(field, len(items))
    nodes = tuple(_node(item, turn=index / len(items)) for index, item in enumerate(items))
    check_distinct(item["name"] for item in items)
    return nodes


def _node(members: _Members, *, turn: float) -> Node:
    """A node; without a position it stands on a circle, at `turn` (0 to 1) clockwise from the top."""
    name = members["name"].name()
    if name in RESERVED_NODE_NAMES:
        raise members["name"].error(f"{name!r} is a host that every network has, expected another name")
    title = members["title"].text() if "title" in members else name.replace("-", " ").title()
    modules = members["modules"].whole(_MOST_MODULES) if "modules" in members else None
    if "position" not in members:
        angle = 2 * math.pi * turn
        place = round(0.5 + 0.45 * math.sin(angle), 4), round(0.5 + 0.45 * math.cos(angle), 4)
        return Node(name, title, place, modules)
    xy = members["position"].items()
    if len(xy) != 2:
        raise members["position"].error(f"expected two numbers from 0 to 1, x and y, got {len(xy)}")
    return Node(name, title, (xy[0].number(1), xy[1].number(1)), modules)


def _links(field: Field, known: Collection[str], optics: Optics | None) -> tuple[Link, ...]:
    settings: dict[str, object] = {"length_km": None, "loss_db": None, **_SHAPE, "a_to_b": {}, "b_to_a": {}}
    items = [item.members("a", "b", name=None, **settings, qcs=[{}]) for item in field.items()]
    ends = [_ends(item, known) for item in items]
    names = _link_names(items, ends)
    links = tuple(_link(*link, optics) for link in zip(names, ends, field.items(), items, strict=True))
    check_connected(field, known, ends)
    return links


def _tunnels(field: Field, known: Collection[str]) -> tuple[Tunnel, ...]:
    found: dict[frozenset[str], Tunnel] = {}
    for item in field.items():
        members = item.members("a", "b", kind=KINDS[0], every_s=EVERY_S, policy=POLICIES[0])
        ends = _ends(members, known, "a tunnel")
        if frozenset(ends) in found:
            raise item.error("a second tunnel between the same two nodes, expected one")
        found[frozenset(ends)] = Tunnel(
            *ends, _word(members["kind"], KINDS), members["every_s"].number(MOST_EVERY_S, LEAST_EVERY_S),
            _word(members["policy"], POLICIES),
        )  # fmt: skip
    return tuple(found.values())


def _word(field: Field, words: Sequence[str]) -> str:
    if field.value not in words:
        raise field.expected(f"one of {', '.join(words)}")
    return str(field.value)


def _ends(members: _Members, known: Collection[str], what: str = "a link") -> tuple[str, str]:
    a, b = members["a"].one_of(known), members["b"].one_of(known)
    if a == b:
        raise members["b"].error(f"{what} from {a!r} to itself, expected another node")
    return a, b


def _link_names(items: Sequence[_Members], ends: Sequence[tuple[str, str]]) -> list[str]:
    """The name of each link: the one in the file, else the first link's `a-b`, with a number behind it if taken.

    A made name makes way for a given one, wherever in the file that stands.
    """
    given = [item["name"] for item in items if "name" in item]
    taken = {field.name(_LINK_NAME_LENGTH) for field in given}
    check_distinct(given)
    bases: dict[frozenset[str], str] = {}
    names = []
    for item, (a, b) in zip(items, ends, strict=True):
        base = bases.setdefault(frozenset((a, b)), f"{a}-{b}")
        names.append(item["name"].name(_LINK_NAME_LENGTH) if "name" in item else free_name(base, taken))
        taken.add(names[-1])
    return names


def _link(
    name: str, ends: tuple[str, str], whole: Field, members: _Members, optics: Optics | None
) -> Link:
    length_km = members["length_km"].number(MAX_DELAY_MS / _MS_PER_KM) if "length_km" in members else None
    both = {member: members[member] for member in _SHAPE if member in members}
    there, back = (both | members[direction].members(**dict.fromkeys(_SHAPE)) for direction in ("a_to_b", "b_to_a"))
    _shape(both, length_km)  # what both directions overrule must be right, too
    if length_km is None and not ("delay_ms" in there and "delay_ms" in back):
        raise whole.error("expected length_km or delay_ms, got neither")
    qcs = members["qcs"].items()
    if not qcs and optics is None:
        raise members["qcs"].error("expected at least one QC, got none; leave qcs out for one with the usual rate")
    loss_db = members["loss_db"].number(MOST_DB) if "loss_db" in members else None
    return Link(
        name,
        *ends,
        length_km=length_km,
        a_to_b=_shape(there, length_km),
        b_to_a=_shape(back, length_km),
        qcs=tuple(qc(item, f"{name}/{index}", length_km, loss_db, ends) for index, item in enumerate(qcs, start=1)),
        loss_db=loss_db,
    )


def _shape(members: _Members, length_km: float | None) -> Shape:
    """One direction of a link; its delay follows from the length unless it is given."""
    of_length = round((length_km or 0.0) * _MS_PER_KM, 9)  # 0.026, and not 0.026000000000000002
    delay = members["delay_ms"].number(MAX_DELAY_MS) if "delay_ms" in members else of_length
    jitter, loss = members["jitter_ms"].number(MAX_DELAY_MS), members["loss_percent"].number(100)
    if "bandwidth_mbit" not in members:
        return Shape(delay, jitter, loss)
    bandwidth = members["bandwidth_mbit"].number(MAX_BANDWIDTH_MBIT)
    if bandwidth < MIN_BANDWIDTH_MBIT:
        raise members["bandwidth_mbit"].expected(f"{MIN_BANDWIDTH_MBIT:g} or more (leave it out for no limit)")
    return Shape(delay, jitter, loss, bandwidth)


def _saes(field: Field, known: Collection[str]) -> tuple[Sae, ...]:
    items = [_sae_members(item) for item in field.items()]
    saes = tuple(_sae(item, known) for item in items)
    check_distinct(item["id"] for item in items if "id" in item)
    check_distinct(replace(i.get("name") or i["id"], value=sae.name) for i, sae in zip(items, saes, strict=True))
    if len({sae.node for sae in saes}) < 2:
        raise field.error("expected SAEs at two nodes or more, so that some pair can share keys")
    return saes


def _sae_members(field: Field) -> _Members:
    """The members of an SAE. One of somebody else's needs no name of ours if its ID will do."""
    members = field.members("node", name=None, id=None, external=False)
    if not members["external"].truth():
        return field.members("name", "node", id=None, external=False)
    if not {"name", "id"} & set(members):
        raise field.error("expected a name or an id, got neither")
    return members


def _sae(members: _Members, known: Collection[str]) -> Sae:
    identity = members["id"].sae_id() if "id" in members else None
    name = members["name"].name() if "name" in members else str(identity)
    if not _AS_A_NAME.fullmatch(name):
        raise members["id"].error("such an ID needs a name beside it, for people and for files")
    return Sae(name, members["node"].one_of(known), identity, members["external"].truth())
