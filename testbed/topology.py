"""Topology files: their text in, a frozen and fully checked description of a network out.

The description is data alone. It knows nothing of Mininet, processes or certificates, so a network can be
checked, drawn and counted without root. `topologies/README.md` documents the file format field by field.

Three notations (YAML, JSON, and GraphML in the form of the Topology Zoo) are first turned into one plain
document of dicts and lists, and one function builds the description from that. Every rule is therefore
enforced in one place and holds for all three. Whatever is wrong with a file ends as a `TopologyError`, whose
text is a single line that names the file, the field and what was expected there. Only `load` touches the
disk.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
import uuid
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import networkx as nx
import yaml

__all__ = [
    "DEFAULT_LENGTH_KM",
    "DEFAULT_QC_RATE",
    "MS_PER_KM",
    "Link",
    "Node",
    "Qc",
    "Sae",
    "Topology",
    "TopologyError",
    "dump_yaml",
    "load",
    "parse_graphml",
    "parse_json",
    "parse_yaml",
]

MS_PER_KM = 0.005
"""One-way delay of a kilometre of fibre, ms: light in glass travels at about two thirds of c."""

DEFAULT_QC_RATE = (33, 47)
"""Bytes that a QC makes in a slot of 1 s where the file does not say, lowest and highest, both included."""

DEFAULT_LENGTH_KM = 50.0
"""Length given to a GraphML edge with an end whose coordinates are unknown, km."""

# Larger than any network that fits on one machine (NSFNET is 4 KiB), small enough that parsing it cannot
# hurt.
_MAX_FILE_BYTES = 1 << 20
# A minute, one way. Beyond it the connection set-up of every component times out, and netem's 32 bit field is
# near.
_MAX_DELAY_MS = 60_000.0
_MAX_LENGTH_KM = _MAX_DELAY_MS / MS_PER_KM
# Mininet ignores a higher figure with a message on the terminal (mininet/link.py, bwParamMax), so we refuse
# it here.
_MAX_BANDWIDTH_MBIT = 1000.0
# 8 Mbit/s of key: more than a QKD link of today makes, and a block of one slot still fits in memory many
# times.
_MAX_BYTES_PER_SLOT = 1_000_000

_EARTH_RADIUS_KM = 6371.0088  # mean radius R1 of the WGS 84 ellipsoid

_NAME_LENGTH = 31
# Node names become host names, and a DNS label may not end in a hyphen.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?")
_NAME_EXPECTED = "a name of 1 to 31 characters a-z, 0-9 and inner hyphens that starts with a letter"
# Two node names, the hyphen between them and a number must fit: a name made for a link may also be written in
# a file.
_LINK_NAME = re.compile(r"[a-z]([a-z0-9-]{0,78}[a-z0-9])?")
_LINK_NAME_EXPECTED = "a link name of 1 to 80 characters a-z, 0-9 and inner hyphens that starts with a letter"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# A node's name becomes the name of its Mininet host; these two hosts are the controller's and the database's.
_RESERVED_NODE_NAMES = ("ctl", "db")

# The members of each part of a document, the required ones first.
_TOPOLOGY_MEMBERS = ("name", "nodes", "links", "saes", "description", "controller", "database")
_NODE_MEMBERS = ("name", "title", "position")
_LINK_MEMBERS = (
    "a",
    "b",
    "name",
    "length_km",
    "delay_ms",
    "jitter_ms",
    "loss_percent",
    "bandwidth_mbit",
    "qcs",
)
_QC_MEMBERS = ("low_bytes_per_slot", "high_bytes_per_slot")
_SAE_MEMBERS = ("name", "node", "id")


_Members = Mapping[str, object]


class TopologyError(ValueError):
    """A topology that cannot be used. Its text is one line, made of `source`, `field` and `problem`.

    `field` reads like `links[2].b` (counted from 0) and is empty where the file as a whole is at fault.
    """

    def __init__(self, source: str, field: str, problem: str) -> None:
        self.source = source
        self.field = field
        self.problem = problem
        super().__init__(_one_line(": ".join(part for part in (source, field, problem) if part)))


# -------------------------------------------------------------------------------------------- the description


@dataclass(frozen=True, slots=True)
class Node:
    """A datacenter with its SD-QKD node. `title` is for people.

    `position` is where to draw it: x to the right and y upwards, both from 0 to 1.
    """

    name: str
    title: str
    position: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Qc:
    """A quantum channel, named `LINK/1`, `LINK/2`, ...

    In each slot of 1 s it makes a number of bytes from low to high, both included.
    """

    name: str
    low_bytes_per_slot: int
    high_bytes_per_slot: int


@dataclass(frozen=True, slots=True)
class Link:
    """A fibre between the nodes `a` and `b`, with its classical channel and one or more quantum channels.

    `delay_ms` is one way, `jitter_ms` the variation around it, `loss_percent` the share of classical packets
    lost in each direction. `length_km` is None where the file gives a delay alone, `bandwidth_mbit` (Mbit/s)
    is None where the classical channel is not limited.
    """

    name: str
    a: str
    b: str
    length_km: float | None
    delay_ms: float
    jitter_ms: float
    loss_percent: float
    bandwidth_mbit: float | None
    qcs: tuple[Qc, ...]


@dataclass(frozen=True, slots=True)
class Sae:
    """A secure application and the node that it sits at; `id` is None unless the file fixes its UUID."""

    name: str
    node: str
    id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """A connected network of at least two nodes, with SAEs at two of them at least, in the file's order.

    `controller_at` and `database_at` name the nodes that those two hosts hang at.
    """

    name: str
    description: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    saes: tuple[Sae, ...]
    controller_at: str
    database_at: str

    def with_overrides(
        self,
        *,
        delay_ms: float | None = None,
        qc_rate: tuple[int, int] | None = None,
    ) -> Topology:
        """The same network with another delay on every link, another rate on every QC, or both.

        `delay_ms` is one way; lengths stay as they are, although the delay no longer follows from them.
        `qc_rate` is the lowest and the highest number of bytes a slot. None changes nothing.

        Raises TopologyError for a value that a file could not have had either.
        """
        at = _At(self.name, "")
        links = self.links
        if delay_ms is not None:
            delay = _number(delay_ms, at.member("delay_ms"), _MAX_DELAY_MS)
            links = tuple(replace(link, delay_ms=delay) for link in links)
        if qc_rate is not None:
            rate = _rate(*qc_rate, at.member("qc_rate"))
            links = tuple(replace(link, qcs=tuple(Qc(qc.name, *rate) for qc in link.qcs)) for link in links)
        return replace(self, links=links)

    def graph(self) -> nx.MultiGraph[str]:
        """A new multigraph: nodes by name, links keyed by name.

        Nodes have the attributes `title` and `position`, links `link` (the Link) and `delay_ms` (a weight).
        """
        graph: nx.MultiGraph[str] = nx.MultiGraph(name=self.name)
        for node in self.nodes:
            graph.add_node(node.name, title=node.title, position=node.position)
        for link in self.links:
            graph.add_edge(link.a, link.b, key=link.name, link=link, delay_ms=link.delay_ms)
        return graph


# ------------------------------------------------------------------------------------------- from and to text


def load(name_or_path: str, shipped: Path) -> Topology:
    """The topology called NAME in the folder `shipped`, or the one in a file.

    Whatever ends in .yaml, .yml, .json or .graphml is the path of a file, any other word is a name.

    Raises TopologyError, also for a file that cannot be read.
    """
    suffix = Path(name_or_path).suffix.lower()
    known = sorted(path.stem for path in shipped.glob("*.yaml"))
    if suffix in _PARSERS:
        path = Path(name_or_path)
    elif _NAME.fullmatch(name_or_path):
        path, suffix = shipped / f"{name_or_path}.yaml", ".yaml"
    else:
        problem = f"expected the name of a topology or a file that ends in {', '.join(_PARSERS)}"
        hint = _choice(Path(name_or_path).stem, known, "shipped")
        raise TopologyError(_shown(name_or_path), "", f"{problem}; {hint}")
    try:
        # Asking first keeps us from waiting for ever on a pipe that happens to be called x.yaml.
        if path.exists() and not path.is_file():
            raise TopologyError(str(path), "", "expected a regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        problem = f"no such topology; {_choice(path.stem, known, 'shipped')}"
        raise TopologyError(str(path), "", problem) from None
    except TopologyError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise TopologyError(str(path), "", problem) from error
    if len(content) > _MAX_FILE_BYTES:
        raise TopologyError(str(path), "", f"expected at most {_MAX_FILE_BYTES} bytes (1 MiB), got more")
    try:
        text = content.decode("utf-8-sig")  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TopologyError(str(path), f"line {line}", "expected UTF-8 text") from error
    return _PARSERS[suffix](text, str(path))


def parse_yaml(text: str, source: str) -> Topology:
    """The topology that a YAML text describes; `source` is what errors call the file.

    The loader is PyYAML's safe one, and stricter: a key may not occur twice in a mapping, and there are no
    aliases, because a few lines of nested aliases can stand for billions of values.
    """
    at = _At(source, "")
    try:
        # A subclass of SafeLoader, so that no tag in the file can make an object of any other kind.
        document: object = yaml.load(text, _StrictLoader)  # noqa: S506
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise at.member(f"line {line}").error(f"not YAML: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = at if mark is None else at.member(f"line {mark.line + 1}")
        raise where.error(f"not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, *_LIBRARY_SLIPS) as error:
        raise at.error(f"not YAML: {_reason(error)}") from error
    return _build(document, at)


def parse_json(text: str, source: str) -> Topology:
    """The topology that a JSON text describes. Members are those of YAML, and a repeated key is an error."""
    at = _At(source, "")
    try:
        document: object = json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise at.member(f"line {error.lineno}").error(f"not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise at.error(f"not JSON: {_reason(error)}") from error
    return _build(document, at)


def parse_graphml(text: str, source: str) -> Topology:
    """The topology that a GraphML text in the form of the Topology Zoo describes.

    Labels become names (accents stripped, duplicates numbered), coordinates become positions and great-circle
    lengths, and every node gets one SAE. Each edge is a link, so parallel edges stay parallel links. An edge
    with an end of unknown place is DEFAULT_LENGTH_KM long. Line speeds in the file are not applied.
    """
    at = _At(source, "")
    return _build(_graphml_document(_read_graphml(text, at), at), at)


def dump_yaml(topology: Topology) -> str:
    """A YAML text from which `parse_yaml` makes an equal topology; every default is written out."""
    document = {
        "name": topology.name,
        "description": topology.description,
        "controller": topology.controller_at,
        "database": topology.database_at,
        "nodes": [_node_document(node) for node in topology.nodes],
        "links": [_link_document(link) for link in topology.links],
        "saes": [
            {"name": sae.name, "node": sae.node} | ({} if sae.id is None else {"id": str(sae.id)})
            for sae in topology.saes
        ],
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))


def _node_document(node: Node) -> dict[str, object]:
    return {"name": node.name, "title": node.title, "position": list(node.position)}


def _link_document(link: Link) -> dict[str, object]:
    optional = {"length_km": link.length_km, "bandwidth_mbit": link.bandwidth_mbit}
    return {
        "name": link.name,
        "a": link.a,
        "b": link.b,
        "delay_ms": link.delay_ms,
        "jitter_ms": link.jitter_ms,
        "loss_percent": link.loss_percent,
        **{member: value for member, value in optional.items() if value is not None},
        "qcs": [
            {"low_bytes_per_slot": qc.low_bytes_per_slot, "high_bytes_per_slot": qc.high_bytes_per_slot}
            for qc in link.qcs
        ],
    }


_PARSERS = {".yaml": parse_yaml, ".yml": parse_yaml, ".json": parse_json, ".graphml": parse_graphml}

# What the constructors of PyYAML and the GraphML reader of networkx let through for contents that their own
# checks miss: `!!int ""` is an IndexError there, `!!bool maybe` a KeyError, `!!timestamp x` an
# AttributeError.
_LIBRARY_SLIPS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"aliases are not allowed, write out the value of *{event.anchor}"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:  # the parent refuses keys that cannot be hashed
                problem = f"duplicate key {_shown(key)}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The dict of a JSON object's members, of which none may occur twice."""
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"duplicate key {_shown(key)}")
        members[key] = value
    return members


# ------------------------------------------------------------------------------- from document to description


@dataclass(frozen=True, slots=True)
class _At:
    """A place in a file: what an error about a value there is to say first."""

    source: str
    field: str

    def member(self, name: str) -> _At:
        return _At(self.source, f"{self.field}.{name}" if self.field else name)

    def item(self, index: int) -> _At:
        return _At(self.source, f"{self.field}[{index}]")

    def error(self, problem: str) -> TopologyError:
        return TopologyError(self.source, self.field, problem)

    def expected(self, what: str, value: object) -> TopologyError:
        return self.error(f"expected {what}, got {_shown(value)}")


def _build(document: object, at: _At) -> Topology:
    members = _mapping(document, at, _TOPOLOGY_MEMBERS, required=4)
    name = _name(members["name"], at.member("name"))
    description = _text(members.get("description", ""), at.member("description"), lines=True)
    nodes = _nodes(members["nodes"], at.member("nodes"))
    known = [node.name for node in nodes]
    links = _links(members["links"], at.member("links"), known)
    _check_connected(known, links, at.member("links"))
    saes = _saes(members["saes"], at.member("saes"), known)
    return Topology(
        name=name,
        description=description,
        nodes=nodes,
        links=links,
        saes=saes,
        controller_at=_node_name(members.get("controller", known[0]), at.member("controller"), known),
        database_at=_node_name(members.get("database", known[0]), at.member("database"), known),
    )


def _nodes(value: object, at: _At) -> tuple[Node, ...]:
    items = _sequence(value, at)
    if len(items) < 2:
        raise at.error(f"expected at least two nodes, got {len(items) or 'none'}")
    nodes = tuple(_node(item, at.item(index), index, len(items)) for index, item in enumerate(items))
    _check_distinct({index: node.name for index, node in enumerate(nodes)}, at, "name")
    return nodes


def _node(value: object, at: _At, index: int, count: int) -> Node:
    members = _mapping(value, at, _NODE_MEMBERS, required=1)
    name = _name(members["name"], at.member("name"))
    if name in _RESERVED_NODE_NAMES:
        raise at.member("name").error(f"{name!r} is a host that every network has, expected another name")
    title = _text(members.get("title", name.replace("-", " ").title()), at.member("title"))
    position = _on_circle(index, count)
    if "position" in members:
        position = _position(members["position"], at.member("position"))
    return Node(name, title, position)


def _position(value: object, at: _At) -> tuple[float, float]:
    items = _sequence(value, at)
    if len(items) != 2:
        raise at.error(f"expected two numbers from 0 to 1, x and y, got {len(items)}")
    return _number(items[0], at.item(0), 1.0), _number(items[1], at.item(1), 1.0)


def _links(value: object, at: _At, known: Sequence[str]) -> tuple[Link, ...]:
    documents = []
    for index, item in enumerate(_sequence(value, at)):
        documents.append(_mapping(item, at.item(index), _LINK_MEMBERS, required=2))
    ends = [_ends(document, at.item(index), known) for index, document in enumerate(documents)]
    names = _link_names(documents, ends, at)
    return tuple(
        _link(name, a, b, document, at.item(index))
        for index, (name, (a, b), document) in enumerate(zip(names, ends, documents, strict=True))
    )


def _ends(document: _Members, at: _At, known: Sequence[str]) -> tuple[str, str]:
    a, b = (_node_name(document[end], at.member(end), known) for end in ("a", "b"))
    if a == b:
        raise at.member("b").error(f"a link from {a!r} to itself, expected another node")
    return a, b


def _link_names(documents: Sequence[_Members], ends: Sequence[tuple[str, str]], at: _At) -> list[str]:
    """The name of each link: the one in the file, else `a-b`, and a number behind it if that is taken.

    A made name makes way for a given one, wherever in the file that stands. The ends of a parallel link may
    be given in either order; it is named like the first link of its two nodes.
    """
    given = {
        index: _name(document["name"], at.item(index).member("name"), _LINK_NAME, _LINK_NAME_EXPECTED)
        for index, document in enumerate(documents)
        if "name" in document
    }
    _check_distinct(given, at, "name")
    taken = set(given.values())
    bases: dict[frozenset[str], str] = {}
    names = []
    for index, (a, b) in enumerate(ends):
        base = bases.setdefault(frozenset((a, b)), f"{a}-{b}")
        name = given[index] if index in given else _free_name(base, taken, limit=80)
        taken.add(name)
        names.append(name)
    return names


def _link(name: str, a: str, b: str, document: _Members, at: _At) -> Link:
    def number(member: str, maximum: float) -> float | None:
        return _number(document[member], at.member(member), maximum) if member in document else None

    length_km = number("length_km", _MAX_LENGTH_KM)
    delay_ms = number("delay_ms", _MAX_DELAY_MS)
    if delay_ms is None:
        if length_km is None:
            raise at.error("expected length_km or delay_ms, got neither")
        delay_ms = length_km * MS_PER_KM
    bandwidth_mbit = number("bandwidth_mbit", _MAX_BANDWIDTH_MBIT)
    if bandwidth_mbit == 0:
        raise at.member("bandwidth_mbit").error("expected a number above 0, got 0; leave it out for no limit")
    return Link(
        name=name,
        a=a,
        b=b,
        length_km=length_km,
        delay_ms=delay_ms,
        jitter_ms=number("jitter_ms", _MAX_DELAY_MS) or 0.0,
        loss_percent=number("loss_percent", 100.0) or 0.0,
        bandwidth_mbit=bandwidth_mbit,
        qcs=_qcs(document.get("qcs", [{}]), at.member("qcs"), name),
    )


def _qcs(value: object, at: _At, link: str) -> tuple[Qc, ...]:
    items = _sequence(value, at)
    if not items:
        raise at.error("expected at least one QC, got none; leave qcs out for one with the usual rate")
    return tuple(_qc(item, at.item(index), f"{link}/{index + 1}") for index, item in enumerate(items))


def _qc(value: object, at: _At, name: str) -> Qc:
    members = _mapping(value, at, _QC_MEMBERS, required=0)
    usual = dict(zip(_QC_MEMBERS, DEFAULT_QC_RATE, strict=True))
    low, high = (members.get(member, usual[member]) for member in _QC_MEMBERS)
    return Qc(name, *_rate(low, high, at))


def _rate(low: object, high: object, at: _At) -> tuple[int, int]:
    """Lowest and highest number of bytes a slot, checked one by one and then against each other."""
    lowest = _whole(low, at.member(_QC_MEMBERS[0]), _MAX_BYTES_PER_SLOT)
    highest = _whole(high, at.member(_QC_MEMBERS[1]), _MAX_BYTES_PER_SLOT)
    if lowest > highest:
        raise at.member(_QC_MEMBERS[0]).error(f"expected at most {_QC_MEMBERS[1]} ({highest}), got {lowest}")
    return lowest, highest


def _saes(value: object, at: _At, known: Sequence[str]) -> tuple[Sae, ...]:
    saes = tuple(_sae(item, at.item(index), known) for index, item in enumerate(_sequence(value, at)))
    _check_distinct({index: sae.name for index, sae in enumerate(saes)}, at, "name")
    fixed = {index: str(sae.id) for index, sae in enumerate(saes) if sae.id is not None}
    _check_distinct(fixed, at, "id")
    places = {sae.node for sae in saes}
    if len(places) < 2:
        got = f"all at {min(places)!r}" if places else "none"
        raise at.error(f"expected SAEs at two nodes or more, so that some pair can share keys; got {got}")
    return saes


def _sae(value: object, at: _At, known: Sequence[str]) -> Sae:
    members = _mapping(value, at, _SAE_MEMBERS, required=2)
    name = _name(members["name"], at.member("name"))
    node = _node_name(members["node"], at.member("node"), known)
    if "id" not in members:
        return Sae(name, node)
    fixed = members["id"]
    if not isinstance(fixed, str) or not _UUID.fullmatch(fixed):
        raise at.member("id").expected("a UUID such as 3fa85f64-5717-4562-b3fc-2c963f66afa6", fixed)
    return Sae(name, node, uuid.UUID(fixed))


def _check_connected(known: Sequence[str], links: Iterable[Link], at: _At) -> None:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(known)
    graph.add_edges_from((link.a, link.b) for link in links)
    parts = list(nx.connected_components(graph))
    if len(parts) > 1:
        firsts = [next(name for name in known if name in part) for part in parts]
        parted = f"{len(parts)} parts with no link between them, which hold {_listed(firsts)}"
        raise at.error(f"expected one connected network, got {parted}")


def _check_distinct(values: Mapping[int, str], at: _At, member: str) -> None:
    """`values` holds what the items of the list, by their index, have as this member."""
    first: dict[str, int] = {}
    for index, value in values.items():
        if value in first:
            problem = f"duplicate {value!r}, already used by {at.item(first[value]).field}"
            raise at.item(index).member(member).error(problem)
        first[value] = index


# ---------------------------------------------------------------------------------------- checks of one value


def _mapping(value: object, at: _At, members: Sequence[str], *, required: int) -> dict[str, object]:
    """The members of a mapping, all of them among `members` and the first `required` of those present."""
    if not isinstance(value, dict):
        raise at.expected(f"a mapping with the members {', '.join(members)}", value)
    for key in value:
        if key not in members:
            raise at.error(f"unknown member {_shown(key)}; {_choice(key, members, 'allowed')}")
    for name in members[:required]:
        if name not in value:
            raise at.member(name).error("missing, and it is required")
    return value


def _sequence(value: object, at: _At) -> list[object]:
    if not isinstance(value, list):
        raise at.expected("a list", value)
    return value


def _text(value: object, at: _At, *, lines: bool = False) -> str:
    """Text to show to people. Control characters are refused: it ends up on terminals."""
    if not isinstance(value, str):
        raise at.expected("text (in quotes, if it looks like something else)", value)
    if not (value.replace("\n", "") if lines else value).isprintable():
        raise at.expected("text without control characters" + ("" if lines else ", on one line"), value)
    return value


def _name(value: object, at: _At, pattern: re.Pattern[str] = _NAME, expected: str = _NAME_EXPECTED) -> str:
    if isinstance(value, bool):
        raise at.expected("a name (YAML takes yes, no, on and off for truth values unless in quotes)", value)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise at.expected(expected, value)
    return value


def _node_name(value: object, at: _At, known: Sequence[str]) -> str:
    name = _name(value, at)
    if name not in known:
        raise at.error(f"unknown node {name!r}; {_choice(name, known, 'nodes')}")
    return name


def _number(value: object, at: _At, maximum: float) -> float:
    # bool is a subclass of int in Python, but `true` is not a number in anyone's file.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise at.expected("a number" + _decimal_hint(value), value)
    if not 0 <= value <= maximum:  # false for NaN as well
        raise at.expected(f"a number from 0 to {maximum:.0f}", value)
    return float(value) + 0.0  # the sum makes 0.0 of -0.0


def _decimal_hint(value: object) -> str:
    """PyYAML follows YAML 1.1, where 1e3 is text and 1.0e+3 a number."""
    is_exponent = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value)
    return " written as a plain decimal" if is_exponent else ""


def _whole(value: object, at: _At, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise at.expected(f"a whole number from 0 to {maximum}", value)
    return value


# ---------------------------------------------------------------------------------------------------- GraphML


def _read_graphml(text: str, at: _At) -> nx.MultiGraph[str]:
    """The graph in a GraphML text, every edge of it kept."""
    # Entities are how a few lines of XML grow to gigabytes or read other files; GraphML has no use for them.
    declaration = re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE)
    if declaration:
        line = text.count("\n", 0, declaration.start()) + 1
        raise at.member(f"line {line}").error("DOCTYPE and ENTITY declarations are not allowed in GraphML")
    reader = nx.GraphMLReader(force_multigraph=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ports and untyped keys, neither of which is used here
            graphs: list[nx.MultiGraph[str]] = list(reader(string=text))
    except SyntaxError as error:  # ElementTree's ParseError is one; its own text counts lines as well
        raise at.error(f"not XML: {error}") from error
    except (nx.NetworkXException, RecursionError, *_LIBRARY_SLIPS) as error:
        raise at.error(f"not GraphML that can be read: {_reason(error)}") from error
    if len(graphs) != 1:
        expected = "one <graph> in a <graphml> of the namespace http://graphml.graphdrawing.org/xmlns"
        raise at.error(f"expected {expected}, got {len(graphs) or 'none'}")
    _check_graphml(reader, graphs[0], at)
    return graphs[0]


def _check_graphml(reader: nx.GraphMLReader, graph: nx.MultiGraph[str], at: _At) -> None:
    """Refuses what networkx mends in silence: it adds unknown ends as nodes and merges what shares an id."""
    ids: dict[str, None] = {}  # a set that keeps the order of the file
    for index, element in enumerate(reader.xml.iter(f"{{{reader.NS_GRAPHML}}}node")):
        node = at.member("node").item(index)
        if element.get("id") is None:
            raise node.error("missing its id, and it is required")
        if element.get("id") in ids:
            raise node.error(f"duplicate id {_shown(element.get('id'))}")
        ids[element.get("id")] = None
    edges = list(reader.xml.iter(f"{{{reader.NS_GRAPHML}}}edge"))
    for index, element in enumerate(edges):
        for end in ("source", "target"):
            name = element.get(end)
            if name not in ids:
                problem = f"unknown node {_shown(name)}; {_choice(name, list(ids), 'ids')}"
                raise at.member("edge").item(index).member(end).error(problem)
    if graph.number_of_edges() != len(edges) or graph.number_of_nodes() != len(ids):
        raise at.error(
            f"expected {len(ids)} nodes and {len(edges)} edges as written, got {graph.number_of_nodes()} and "
            f"{graph.number_of_edges()}: two edges share an id, or graphs are nested"
        )


def _graphml_document(graph: nx.MultiGraph[str], at: _At) -> dict[str, object]:
    """The plain document of a GraphML graph, as if somebody had written it in YAML."""
    taken = set(_RESERVED_NODE_NAMES)
    names: dict[str, str] = {}
    titles: dict[str, str] = {}
    places: dict[str, tuple[float, float]] = {}
    for index, node_id in enumerate(graph):
        data: Mapping[str, object] = graph.nodes[node_id]
        titles[node_id] = _one_line(str(data.get("label") or node_id))
        # Four characters are kept free for the "sae-" in front of the name of the node's SAE.
        names[node_id] = _free_name(_slug(titles[node_id], "node"), taken, limit=_NAME_LENGTH - 4)
        taken.add(names[node_id])
        place = _place(data, at.member("node").item(index))
        if place is not None:
            places[node_id] = place
    positions = _positions(places)
    return {
        "name": _slug(str(graph.graph.get("Network") or Path(at.source).stem), "graphml"),
        "nodes": [
            {"name": name, "title": titles[node_id]}
            | ({"position": positions[node_id]} if node_id in positions else {})
            for node_id, name in names.items()
        ],
        "links": [
            {"a": names[a], "b": names[b], "length_km": _length_km(places.get(a), places.get(b))}
            for a, b in graph.edges()
        ],
        "saes": [{"name": f"sae-{name}", "node": name} for name in names.values()],
    }


def _place(data: Mapping[str, object], at: _At) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, None if the node lacks either."""
    degrees = []
    for member, limit in (("Latitude", 90.0), ("Longitude", 180.0)):
        value = data.get(member)
        if value is None or value == "":
            return None
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not -limit <= number <= limit:
            raise at.member(member).expected(f"degrees from -{limit:.0f} to {limit:.0f}", value)
        degrees.append(number)
    return degrees[0], degrees[1]


def _length_km(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float:
    """Great-circle distance (haversine formula, to the metre), or the default if a place is unknown."""
    if one is None or other is None:
        return DEFAULT_LENGTH_KM
    (lat_1, lon_1), (lat_2, lon_2) = (tuple(map(math.radians, place)) for place in (one, other))
    across = math.cos(lat_1) * math.cos(lat_2) * math.sin((lon_2 - lon_1) / 2) ** 2
    chord = math.sin((lat_2 - lat_1) / 2) ** 2 + across
    return round(2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord))), 3)


def _positions(places: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    """Where to draw the nodes that have a place: a map in the middle of the unit square, true to shape."""
    if not places:
        return {}
    latitudes, longitudes = zip(*places.values(), strict=True)
    middle = ((min(latitudes) + max(latitudes)) / 2, (min(longitudes) + max(longitudes)) / 2)
    shrink = math.cos(math.radians(middle[0]))  # a degree of longitude over one of latitude
    span = max(max(latitudes) - min(latitudes), (max(longitudes) - min(longitudes)) * shrink)

    def on_map(latitude: float, longitude: float) -> list[float]:
        offsets = ((longitude - middle[1]) * shrink, latitude - middle[0])
        return [min(1.0, max(0.0, round(0.5 + (offset / span if span else 0.0), 4))) for offset in offsets]

    return {node: on_map(*place) for node, place in places.items()}


# Letters that Unicode does not take apart into a base letter and an accent.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"}
)


def _slug(label: str, fallback: str) -> str:
    """A valid name that resembles the label: "São Paulo (2)" gives sao-paulo-2."""
    folded = unicodedata.normalize("NFKD", label.casefold()).translate(_LETTERS)
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or fallback
    return (slug if slug[0].isalpha() else f"n{slug}")[:_NAME_LENGTH].rstrip("-")


# ---------------------------------------------------------------------------------------------------- helpers


def _free_name(base: str, taken: set[str], *, limit: int) -> str:
    """`base`, or the first of `base-2`, `base-3`, ... that is free, of at most `limit` characters."""
    name, number = base[:limit].rstrip("-"), 1
    while name in taken:
        number += 1
        ending = f"-{number}"
        name = base[: limit - len(ending)].rstrip("-") + ending
    return name


def _on_circle(index: int, count: int) -> tuple[float, float]:
    """Where to draw node number `index` of `count`: on a circle, clockwise from the top."""
    angle = 2 * math.pi * index / count
    return round(0.5 + 0.45 * math.sin(angle), 4), round(0.5 + 0.45 * math.cos(angle), 4)


def _choice(wrong: object, allowed: Sequence[str], label: str) -> str:
    """What might have been meant, and what there is to choose from."""
    close = difflib.get_close_matches(wrong[:80], allowed, n=1) if isinstance(wrong, str) else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{label}: {_listed(allowed)}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) or "none"
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def _shown(value: object) -> str:
    """A value as an error shows it: short, and without its line breaks and escape sequences."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**18:  # Python refuses to print thousands of digits
        return "a huge number"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    return repr(value)[:60]


def _reason(error: BaseException) -> str:
    """Why a library gave up, in a few words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"{type(error).__name__} {error}"[:120] if not isinstance(error, ValueError) else str(error)[:120]


def _one_line(text: str) -> str:
    """The text with every run of blanks and unprintable characters made one blank."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
