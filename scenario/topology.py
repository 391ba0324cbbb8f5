"""Topologies: the name of a network or a file in, a frozen and fully checked description of it out.

The description is data alone and knows nothing of Mininet, processes or certificates, so a network can be checked,
drawn and counted without root. On its way in, a file's notation becomes plain dicts and lists, and `topology_document`
makes the description of those, so that each rule is enforced in one place for all notations. `topologies/README.md`
documents the format.

GraphML in the form of the Internet Topology Zoo becomes a document such as somebody could have written in YAML. Labels
become names (accents stripped, duplicates numbered), coordinates become positions and great-circle lengths, and every
node gets one SAE. Each edge is a link, so parallel edges stay parallel links; of directed edges one each way is one
link, for light goes both ways in a fibre. Edges from a node to itself are left out, which the description says. Line
speeds are not applied. Errors name elements of the GraphML.
"""

from __future__ import annotations

import collections
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from scenario import yaml_documents
from scenario.topology_description import (
    NAME_LENGTH,
    Field,
    Link,
    Node,
    Qc,
    Sae,
    Topology,
    TopologyError,
    choice,
    free_name,
    one_line,
)
from scenario.topology_document import RESERVED_NODE_NAMES, build, check_connected, check_enough_nodes, placed

_TAGS = {"": "http://graphml.graphdrawing.org/xmlns"}
_DEFAULT_LENGTH_KM = 50.0  # of an edge with an end whose coordinates are unknown
_EARTH_RADIUS_KM = 6371.0088  # mean radius R1 of the WGS 84 ellipsoid
# Four characters stay free for the "sae-" before a node's name, four for a number behind it.
_SLUG_LENGTH = NAME_LENGTH - 8
_LISTED = 5

_Place = tuple[float, float]  # latitude and longitude in degrees


def parse(text: str, source: str) -> object:
    """The document for a GraphML text; `source` is what errors call the file."""
    graph, attributes = _graph(text, source)
    nodes: dict[str, dict[str, object]] = {}
    taken = set(RESERVED_NODE_NAMES)
    places: dict[str, _Place] = {}
    for index, element in enumerate(graph.findall("node", _TAGS)):
        field = Field(source, f"node[{index}]", element.get("id"))
        if not isinstance(field.value, str) or field.value in nodes:
            raise field.expected("an id that no other node has")
        data = _data(element, attributes)
        title = one_line(data.get("label", "")) or one_line(field.value)
        name = free_name(_slug(title, "node"), taken)
        taken.add(name)
        nodes[field.value] = {"name": name, "title": title}
        if data.get("Latitude") and data.get("Longitude"):
            places[field.value] = _degrees(data, "Latitude", 90, field), _degrees(data, "Longitude", 180, field)
    whole = Field(source, "graph", None)
    check_enough_nodes(whole, len(nodes))
    edges = list(_edges(graph, source, nodes))
    fibres = [(a, b) for _, a, b in edges if a != b]
    people = {node_id: f"{node_id} ({node['title']})" for node_id, node in nodes.items()}
    check_connected(whole, people.values(), [(people[a], people[b]) for a, b in fibres])
    positions = _positions(places)
    return {
        "name": _slug(_data(graph, attributes).get("Network") or Path(source).stem, "graphml"),
        "description": _without([f"{place} at {nodes[a]['name']}" for place, a, b in edges if a == b]),
        "nodes": [node | positions.get(node_id, {}) for node_id, node in nodes.items()],
        "links": [
            {"a": nodes[a]["name"], "b": nodes[b]["name"], "length_km": _length_km(places, a, b)}
            for a, b in fibres
        ],
        "saes": [{"name": f"sae-{node['name']}", "node": node["name"]} for node in nodes.values()],
    }


def _edges(
    graph: ElementTree.Element, source: str, nodes: Mapping[str, object]
) -> Iterator[tuple[str, str, str]]:
    """Each fibre as its place in the file and the IDs of its ends, which are the same for a loop."""
    usual = "true" if graph.get("edgedefault") == "directed" else "false"
    arcs: collections.Counter[tuple[str, str]] = collections.Counter()
    for index, element in enumerate(graph.findall("edge", _TAGS)):
        place = f"edge[{index}]"
        a, b = (Field(source, f"{place}.{end}", element.get(end)).one_of(nodes) for end in ("source", "target"))
        if element.get("directed", usual) in ("true", "1"):
            arcs[a, b] += 1
            if a != b and arcs[a, b] <= arcs[b, a]:
                continue  # the way back of a fibre that is there already
        yield place, a, b


def _without(loops: Sequence[str]) -> str:
    """What is said of a network from whose file edges of nodes to themselves were left out."""
    listed = ", ".join(loops[:_LISTED]) + (", ..." if len(loops) > _LISTED else "")
    return f"a QKD network without edges from a node to itself ({listed})" if loops else ""


def _graph(text: str, source: str) -> tuple[ElementTree.Element, dict[str | None, str]]:
    """The only graph in the text, and the names of the attributes by the keys that stand for them."""
    # Entities are how a few lines of XML grow to gigabytes; they need a DOCTYPE, for which GraphML has no use.
    if "<!DOCTYPE" in text:
        raise TopologyError(source, "DOCTYPE declarations are not allowed in GraphML")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no DOCTYPE, no entities
    except ElementTree.ParseError as error:
        raise TopologyError(source, f"not XML: {error}") from error
    graphs = root.findall(".//graph", _TAGS)
    if len(graphs) != 1:
        raise TopologyError(source, f"expected one <graph> of the namespace {_TAGS['']}, got {len(graphs)}")
    return graphs[0], {key.get("id"): key.get("attr.name", "") for key in root.findall("key", _TAGS)}


def _data(element: ElementTree.Element, attributes: Mapping[str | None, str]) -> dict[str, str]:
    """The attributes of a graph or node by name."""
    return {attributes.get(data.get("key"), ""): (data.text or "").strip() for data in element.findall("data", _TAGS)}


def _degrees(data: Mapping[str, str], member: str, limit: int, node: Field) -> float:
    try:
        value: object = float(data[member])
    except ValueError:
        value = data[member]
    return Field(node.source, f"{node.path}.{member}", value).number(limit, -limit)


def _length_km(places: Mapping[str, _Place], a: str, b: str) -> float:
    """Great-circle distance between two nodes: haversine formula, to the metre."""
    if a not in places or b not in places:
        return _DEFAULT_LENGTH_KM
    (lat_1, lon_1), (lat_2, lon_2) = (map(math.radians, places[node_id]) for node_id in (a, b))
    across = math.cos(lat_1) * math.cos(lat_2) * math.sin((lon_2 - lon_1) / 2) ** 2
    chord = math.sin((lat_2 - lat_1) / 2) ** 2 + across
    return round(2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord))), 3)


def _positions(places: Mapping[str, _Place]) -> dict[str, dict[str, object]]:
    """Where to draw the nodes that have a place: a map that fills the unit square one way and is true to shape."""
    if not places:
        return {}
    latitudes, longitudes = zip(*places.values(), strict=True)
    north, east = ((min(values) + max(values)) / 2 for values in (latitudes, longitudes))
    shrink = math.cos(math.radians(north))  # a degree of longitude over one of latitude, in the middle of the map
    # All nodes in one place need some span too, or they could not be drawn.
    span = max(max(latitudes) - min(latitudes), (max(longitudes) - min(longitudes)) * shrink) or 1.0
    return {
        node_id: {"position": [round(0.5 + (lon - east) * shrink / span, 4), round(0.5 + (lat - north) / span, 4)]}
        for node_id, (lat, lon) in places.items()
    }


def _slug(label: str, fallback: str) -> str:
    """A valid name that resembles the label: "São Paulo (2)" gives sao-paulo-2."""
    plain = unicodedata.normalize("NFKD", label.casefold()).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or fallback
    return (slug if slug[0].isalpha() else f"n{slug}")[:_SLUG_LENGTH].rstrip("-")


__all__ = ["Link", "Node", "Qc", "Sae", "Topology", "TopologyError", "load", "load_machines"]

# JSON is read as YAML, of which it is a part but for tabs, and those PyYAML refuses with a clear line.
_PARSERS = dict.fromkeys((".yaml", ".yml", ".json"), yaml_documents.parse) | {".graphml": parse}
# Larger than any network that fits on one machine (NSFNET has 4 KiB); PyYAML takes seconds for this much already.
_MAX_FILE_BYTES = 1 << 20


def load(name_or_path: str, shipped: Path) -> Topology:
    """The topology called NAME in the folder `shipped`, or the one in a file.

    Whatever ends in .yaml, .yml, .json or .graphml is the path of a file, any other word is a name.

    Raises TopologyError, also for a file that cannot be read.
    """
    networks = {path.stem: path for path in sorted(shipped.glob("*.yaml"))}
    path = networks.get(name_or_path, Path(name_or_path))
    parse = _PARSERS.get(path.suffix.lower())
    try:
        if parse is None or not path.is_file():  # nor do we wait for ever on a pipe called x.yaml
            hint = choice(name_or_path, networks, "shipped")
            raise TopologyError(name_or_path, f"no such topology; {hint}; or a file that ends in {', '.join(_PARSERS)}")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise TopologyError(name_or_path, f"expected at most {_MAX_FILE_BYTES} bytes (1 MiB)")
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as error:
        raise TopologyError(name_or_path, f"expected UTF-8 text, got another encoding at byte {error.start}") from error
    except OSError as error:
        raise TopologyError(name_or_path, f"cannot be read: {error.strerror}") from error
    return build(Field(str(path), "", parse(text, str(path))))


def load_machines(path: Path, topology: Topology) -> Topology:
    """The same network with datacenters on the machines that a YAML file lists. Raises TopologyError."""
    given = Field(str(path), "", yaml_documents.read(path)).members("machines")
    return placed(topology, given["machines"])
