"""How a network of the Topology Zoo becomes one of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenario.topology import Topology, TopologyError, load, parse
from scenario.topology_description import Field
from scenario.topology_document import build

FILE = Path(__file__).resolve().parents[2] / "vectors" / "lakeland.graphml"
TEXT = FILE.read_text(encoding="utf-8")


def read(text: str) -> Topology:
    return build(Field("lakeland.graphml", "", parse(text, "lakeland.graphml")))


def lakeland(old: str = "", new: str = "") -> Topology:
    """The home-made network after a replacement in its text, which must find something."""
    assert old in TEXT
    return read(TEXT.replace(old, new, 1))


def test_a_graphml_file_loads_by_its_ending():
    """A file of the Topology Zoo can be given as it is; line speeds of 2010 do not slow the emulated network."""
    described = load(str(FILE), FILE.parent)

    assert (described.name, len(described.nodes), len(described.links)) == ("lakeland-net", 5, 5)
    assert {shape.bandwidth_mbit for link in described.links for shape in (link.a_to_b, link.b_to_a)} == {None}


def test_labels_become_names_without_accents():
    """Accents are stripped, duplicates numbered, a leading digit gets a letter; titles keep the label."""
    nodes = lakeland().nodes

    assert [node.name for node in nodes] == ["zurich", "geneve", "lugano", "zurich-2", "n10g-upstream-milano"]
    assert nodes[0].title == "Zürich"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("São Paulo (2)", "sao-paulo-2"),
        ("Gießen", "giessen"),
        ("???", "node"),
        ("", "n1"),
        ("DB", "db-2"),
        ("New York, NY", "new-york-ny"),
        ("a very long label that goes on and on", "a-very-long-label-that"),
    ],
)
def test_any_label_becomes_a_valid_name(label, name):
    """Whatever people wrote on the map, a host can be called after it."""
    assert lakeland("Genève", label).nodes[1].name == name


def test_length_is_the_great_circle_distance():
    """Zürich and Geneva are some 224 km apart; a town of unknown place is 50 km from its neighbours."""
    links = lakeland().links

    assert links[0].length_km == pytest.approx(224, abs=2)
    assert links[-1].length_km == 50


def test_parallel_edges_stay_parallel_links():
    """Two lines between the same two towns are two links."""
    names = [link.name for link in lakeland().links]

    assert [name for name in names if "lugano" in name and "zurich" in name] == ["zurich-lugano", "zurich-lugano-2"]


def test_the_map_is_drawn_north_up_within_the_picture():
    """Zürich is north-east of Geneva in the picture too."""
    zurich, geneva, *_ = (node.position for node in lakeland().nodes)

    assert zurich[0] > geneva[0]
    assert zurich[1] > geneva[1]


def test_every_graphml_node_gets_one_sae():
    """Each node has an application, called after it."""
    described = lakeland()

    assert [(s.name, s.node) for s in described.saes] == [(f"sae-{n.name}", n.name) for n in described.nodes]


def bare(edges: str, nodes: str = '<node id="u"/><node id="v"/>', direction: str = "undirected") -> Topology:
    """A network of two nodes without labels or places."""
    graph = f'<graph edgedefault="{direction}">{nodes}{edges}</graph>'
    return read(f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{graph}</graphml>')


THERE, BACK = '<edge source="u" target="v"/>', '<edge source="v" target="u"/>'


def test_a_bare_graph_is_named_by_its_ids_and_its_file():
    """Neither labels nor places are needed."""
    described = bare(THERE)

    assert (described.name, [node.name for node in described.nodes]) == ("lakeland", ["u", "v"])


def test_an_edge_from_a_node_to_itself_is_left_out_and_named():
    """No key needs to be carried there; the description, which a run prints first, says so."""
    described = bare(THERE + '<edge source="v" target="v"/>')

    assert [link.name for link in described.links] == ["u-v"]
    assert described.description == "a QKD network without edges from a node to itself (edge[1] at v)"


@pytest.mark.parametrize(
    ("edges", "fibres"),
    [(THERE, 1), (THERE + BACK, 1), (THERE + THERE, 2), (THERE + BACK + BACK, 2), (THERE + THERE + BACK + BACK, 2),
     (BACK + THERE.replace("/>", ' directed="false"/>'), 2)],
)  # fmt: skip
def test_directed_edges_one_each_way_are_one_fibre(edges, fibres):
    """Light goes both ways in a fibre; two edges the same way are two, and so is one without direction beside them."""
    assert len(bare(edges, direction="directed").links) == fibres


@pytest.mark.parametrize("yes", ["true", "1"])
def test_an_edge_may_have_a_direction_of_its_own(yes):
    """It wins over what the graph says of all; GraphML's schema has two words for yes."""
    arcs = (THERE + BACK).replace("/>", f' directed="{yes}"/>')

    assert [len(bare(edges).links) for edges in (THERE + BACK, arcs)] == [2, 1]


def test_a_graph_of_one_node_is_refused_as_a_graph():
    """The error names a place in the GraphML, where there is no list of nodes."""
    with pytest.raises(TopologyError, match=r"^lakeland\.graphml: graph: expected at least two nodes, got 1$"):
        bare("", nodes='<node id="u"/>')


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("</graph>", "", "not XML"),
        ("<graph ", "<!DOCTYPE x><graph ", "DOCTYPE declarations are not allowed"),
        ('source="2" target="4"', 'source="2" target="0"', "graph: expected one connected network, got 2 "
         "parts with no link between them, for example '0 (Zürich)' and '4 (10G Upstream (Milano))'"),
        ('source="0" target="3"', 'source="0" target="33"', "edge[3].target: unknown node '33'"),
        ('source="0" target="3"', 'source="0"', "edge[3].target: unknown node nothing"),
        ('<node id="3">', '<node id="2">', "node[3]: expected an id that no other node has, got '2'"),
        ('<node id="3">', "<node>", "node[3]: expected an id that no other node has, got nothing"),
        ("46.20222", "446.2", "node[1].Latitude: expected a plain number from -90 to 90, got 446.2"),
        ("46.20222", "north", "node[1].Latitude: expected a plain number from -90 to 90, got 'north'"),
        ("http://graphml.graphdrawing.org/xmlns", "urn:other", "expected one <graph>"),
    ],
)
def test_wrong_graphml_is_refused(old, new, problem):
    """In one line that names file, element and what was expected."""
    with pytest.raises(TopologyError) as caught:
        lakeland(old, new)
    assert str(caught.value).startswith(f"lakeland.graphml: {problem}")
    assert str(caught.value).isprintable()


@settings(max_examples=60)
@given(st.integers(0, len(TEXT)), st.integers(0, 40), st.text(max_size=10) | st.sampled_from(["<graph>", "&lt;", "</node>"]))  # fmt: skip  # noqa: E501
def test_a_hole_in_a_file_never_ends_in_a_traceback(start, length, patch):
    """Damage anywhere in a GraphML file ends in a line about it, if it does any harm."""
    error = ""
    try:
        read(TEXT[:start] + patch + TEXT[start + length :])
    except TopologyError as refused:
        error = str(refused)

    assert error.isprintable()
