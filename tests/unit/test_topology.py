"""What a topology file may say, what becomes of it, and how a wrong one is refused."""

import json
import math
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from testbed import topology
from testbed.topology import (
    Qc,
    Topology,
    TopologyError,
    dump_yaml,
    load,
    parse_graphml,
    parse_json,
    parse_yaml,
)

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "topologies"
LAKELAND = (ROOT / "tests" / "vectors" / "lakeland.graphml").read_text(encoding="utf-8")

Document = dict[str, Any]
Change = Callable[[Document], object]


def triangle() -> Document:
    """A small document in which every test changes what it is about."""
    return {
        "name": "triangle",
        "nodes": [{"name": "north"}, {"name": "east"}, {"name": "west"}],
        "links": [
            {"a": "north", "b": "east", "length_km": 10},
            {"a": "east", "b": "west", "length_km": 20},
            {"a": "west", "b": "north", "length_km": 30},
        ],
        "saes": [{"name": "mail", "node": "north"}, {"name": "bank", "node": "east"}],
    }


def parsed(change: Change = len) -> Topology:
    """The triangle after a change."""
    document = triangle()
    change(document)
    return parse_yaml(yaml.safe_dump(document), "triangle.yaml")


def refusal(change: Change) -> str:
    """What the user reads about the triangle after a change, which must be wrong."""
    with pytest.raises(TopologyError) as caught:
        parsed(change)
    return str(caught.value)


def link_with(**members: object) -> Change:
    return lambda document: document["links"][2].update(members)


# ---------------------------------------------------------------------------------------- what files describe


def test_poliqi_is_a_ring_of_five_datacenters_with_fifteen_applications() -> None:
    """The default network is PoliQI: five datacenters on a ring, three applications in each."""
    poliqi = load("poliqi", SHIPPED)

    names = [node.name for node in poliqi.nodes]
    assert names == ["government", "military", "telecom", "finance", "university"]
    assert [(link.a, link.b) for link in poliqi.links] == list(zip(names, names[1:] + names[:1], strict=True))
    assert sorted(sae.node for sae in poliqi.saes) == sorted(names * 3)
    assert (poliqi.controller_at, poliqi.database_at) == ("telecom", "telecom")


def test_poliqi_has_fibres_of_metropolitan_size() -> None:
    """Every fibre of PoliQI is between 4 and 25 km long, no two alike, with one QC of 33 to 47 bytes a slot."""
    links = load("poliqi", SHIPPED).links

    lengths = [link.length_km or 0.0 for link in links]
    assert all(4 <= length <= 25 for length in lengths)
    assert len(set(lengths)) == 5
    assert all(link.qcs == (Qc(f"{link.name}/1", 33, 47),) for link in links)


def test_nsfnet_has_its_fourteen_nodes_and_twenty_one_links() -> None:
    """NSFNET is the one of the literature: 14 nodes, 21 links, 2 to 4 neighbours a node, no bridge."""
    nsfnet = load("nsfnet", SHIPPED)

    degrees = sorted(degree for _, degree in nsfnet.graph().degree())
    assert (len(nsfnet.nodes), len(nsfnet.links)) == (14, 21)
    assert (degrees[0], degrees[-1]) == (2, 4)
    assert not nx.has_bridges(nx.Graph(nsfnet.graph()))
    assert {sae.node for sae in nsfnet.saes} == {node.name for node in nsfnet.nodes}


def test_pair_is_two_nodes_on_one_fibre() -> None:
    """The smallest network is alice and bob, 10 km apart, two applications at each."""
    pair = load("pair", SHIPPED)

    (link,) = pair.links
    assert (link.name, link.length_km) == ("alice-bob", 10)
    assert sorted(sae.node for sae in pair.saes) == ["alice", "alice", "bob", "bob"]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_is_named_like_its_network_and_says_what_it_shows(path: Path) -> None:
    """Each file in topologies/ opens with a comment about its network, whose name is that of the file."""
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert load(str(path), SHIPPED) == load(path.stem, SHIPPED)
    assert load(path.stem, SHIPPED).name == path.stem


def test_the_readme_explains_every_member() -> None:
    """Whatever a file may contain is explained in topologies/README.md."""
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")

    tables = [value for name, value in vars(topology).items() if re.fullmatch(r"_[A-Z]+_MEMBERS", name)]
    assert len(tables) == 5
    assert all(f"`{member}`" in readme for members in tables for member in members)


def test_the_example_in_the_readme_works() -> None:
    """The smallest file shown in the README can be used as it stands."""
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")

    example = "\n".join(line[4:] for line in readme.splitlines() if line.startswith("    "))
    assert len(parse_yaml(example, "README.md").nodes) == 2


def test_light_needs_five_microseconds_a_kilometre() -> None:
    """Without a delay, a link of 10 km takes 0.05 ms one way."""
    assert parsed().links[0].delay_ms == pytest.approx(0.05)


def test_a_given_delay_wins_over_the_length() -> None:
    """Who writes delay_ms gets that delay, and the length is kept as a fact."""
    link = parsed(link_with(delay_ms=7)).links[2]

    assert (link.delay_ms, link.length_km) == (7.0, 30.0)


def test_a_delay_alone_is_enough() -> None:
    """A link may leave its length open."""
    link = parsed(lambda document: document["links"].__setitem__(0, {"a": "north", "b": "east", "delay_ms": 2}))

    assert (link.links[0].delay_ms, link.links[0].length_km) == (2.0, None)


def test_a_link_is_clean_unless_the_file_says_otherwise() -> None:
    """No jitter, no loss and no limit of the bandwidth are the defaults."""
    link = parsed().links[0]

    assert (link.jitter_ms, link.loss_percent, link.bandwidth_mbit) == (0.0, 0.0, None)


def test_a_link_carries_all_that_the_file_says() -> None:
    """Jitter, loss and bandwidth arrive in the description as numbers with their units."""
    link = parsed(link_with(jitter_ms=1, loss_percent=0.5, bandwidth_mbit=100)).links[2]

    assert (link.jitter_ms, link.loss_percent, link.bandwidth_mbit) == (1.0, 0.5, 100.0)


def test_several_qcs_on_a_link_are_numbered() -> None:
    """Each QC of a link has a rate of its own, and what is not given is the usual rate."""
    qcs = [{"low_bytes_per_slot": 5, "high_bytes_per_slot": 9}, {}, {"high_bytes_per_slot": 50}]
    link = parsed(link_with(qcs=qcs)).links[2]

    assert link.qcs == (Qc("west-north/1", 5, 9), Qc("west-north/2", 33, 47), Qc("west-north/3", 33, 50))


def test_parallel_links_are_numbered() -> None:
    """A second fibre between two nodes is called like the first with a 2 behind, whichever end comes first."""
    again = {"a": "east", "b": "north", "length_km": 40}
    names = [link.name for link in parsed(lambda document: document["links"].append(again)).links]

    assert names == ["north-east", "east-west", "west-north", "north-east-2"]


def test_a_made_name_makes_way_for_a_given_one() -> None:
    """A link that the file calls north-east keeps that name; the one between north and east takes another."""
    names = [link.name for link in parsed(link_with(name="north-east")).links]

    assert names == ["north-east-2", "east-west", "north-east"]


def test_controller_and_database_hang_at_the_first_node_by_default() -> None:
    """Who does not care gets both hosts at the first node."""
    assert (parsed().controller_at, parsed().database_at) == ("north", "north")


def test_controller_and_database_hang_where_the_file_says() -> None:
    """Each of the two hosts has its own place."""
    described = parsed(lambda document: document.update(controller="east", database="west"))

    assert (described.controller_at, described.database_at) == ("east", "west")


def test_an_sae_has_an_identity_only_if_the_file_fixes_it() -> None:
    """UUIDs are drawn anew in each run unless the file gives one."""
    fixed = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
    saes = parsed(lambda document: document["saes"][0].update(id=fixed)).saes

    assert [sae.id for sae in saes] == [uuid.UUID(fixed), None]


def test_nodes_without_a_position_stand_on_a_circle() -> None:
    """A file without positions can be drawn all the same: apart from each other and within the picture."""
    positions = [node.position for node in parsed().nodes]

    assert len(set(positions)) == 3
    assert all(0 <= value <= 1 for position in positions for value in position)


def test_a_title_is_made_from_the_name() -> None:
    """People read a name in capitals where the file gives no title."""
    assert parsed().nodes[0].title == "North"


def test_json_describes_the_same_network() -> None:
    """The same members in JSON give the same description."""
    assert parse_json(json.dumps(triangle(), indent="\t"), "triangle.json") == parsed()


def test_the_graph_has_every_node_and_every_link() -> None:
    """Paths are searched in a multigraph in which parallel links stay apart."""
    described = parsed(lambda document: document["links"].append({"a": "north", "b": "east", "length_km": 1}))
    graph = described.graph()

    assert list(graph) == ["north", "east", "west"]
    assert {key for _, _, key in graph.edges(keys=True)} == {link.name for link in described.links}
    assert graph.edges["north", "east", "north-east-2"]["link"] is described.links[3]


# -------------------------------------------------------------------------------------------------- overrides


def test_one_delay_for_all_links() -> None:
    """--delay 20 gives every link 20 ms one way and changes nothing else."""
    before = parsed()
    after = before.with_overrides(delay_ms=20)

    assert {link.delay_ms for link in after.links} == {20.0}
    assert [link.length_km for link in after.links] == [link.length_km for link in before.links]


def test_one_rate_for_all_qcs() -> None:
    """--qc-rate 10-12 gives every QC that rate, and the QCs keep their names."""
    before = parsed(link_with(qcs=[{}, {}]))
    after = before.with_overrides(qc_rate=(10, 12))

    assert [qc for link in after.links for qc in link.qcs] == [
        Qc(qc.name, 10, 12) for link in before.links for qc in link.qcs
    ]


@pytest.mark.parametrize(
    "override",
    [{"delay_ms": -1}, {"delay_ms": math.nan}, {"delay_ms": True}, {"qc_rate": (5, 4)}, {"qc_rate": (-1, 4)}],
    ids=str,
)
def test_an_override_is_checked_like_a_file(override: Document) -> None:
    """A negative delay is no better on the command line than in a file, and the option is named."""
    with pytest.raises(TopologyError, match=next(iter(override))):
        parsed().with_overrides(**override)


# ------------------------------------------------------------------------------------------- files that fail


def test_an_unknown_name_lists_the_networks_that_exist() -> None:
    """Who mistypes a name sees what there is, and which one was probably meant."""
    with pytest.raises(TopologyError, match=r"did you mean 'poliqi'\? shipped: nsfnet, pair, poliqi"):
        load("poliqui", SHIPPED)


def test_a_missing_file_lists_the_networks_that_exist(tmp_path: Path) -> None:
    """The error names the file that was not found, and the networks that need no file."""
    with pytest.raises(TopologyError, match=r"mine\.yaml: no such topology; shipped: nsfnet, pair, poliqi"):
        load(str(tmp_path / "mine.yaml"), SHIPPED)


@pytest.mark.parametrize("name", ["", "a/b", "../pair", "mine.txt", "Pair", "a\nb", "a\0.yaml", "x" * 5000 + ".yaml"])
def test_what_is_neither_a_name_nor_a_file_is_refused(name: str) -> None:
    """A name does not lead out of the folder of shipped networks, and odd paths end in one line."""
    with pytest.raises(TopologyError) as caught:
        load(name, SHIPPED)
    assert str(caught.value).isprintable()


def test_a_file_in_another_encoding_is_refused_with_the_line(tmp_path: Path) -> None:
    """A file that is not UTF-8 is not guessed at."""
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: a\ndescription: Zürich".encode("latin-1"))

    with pytest.raises(TopologyError, match=r"latin\.yaml: line 2: expected UTF-8"):
        load(str(path), SHIPPED)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    """Files saved by editors on Windows load as well."""
    path = tmp_path / "triangle.yaml"
    path.write_text(yaml.safe_dump(triangle()), encoding="utf-8-sig")

    assert load(str(path), SHIPPED) == parsed()


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """More than 1 MiB is not a topology."""
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (1 << 20) + b"\n")

    with pytest.raises(TopologyError, match="1 MiB"):
        load(str(path), SHIPPED)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder that is called like a file is refused."""
    (tmp_path / "folder.yaml").mkdir()

    with pytest.raises(TopologyError, match="expected a regular file"):
        load(str(tmp_path / "folder.yaml"), SHIPPED)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    """A named pipe would keep the user waiting for ever."""
    os.mkfifo(tmp_path / "pipe.yaml")

    with pytest.raises(TopologyError, match="expected a regular file"):
        load(str(tmp_path / "pipe.yaml"), SHIPPED)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML", ".json"])
def test_the_ending_tells_the_notation(tmp_path: Path, suffix: str) -> None:
    """YAML and JSON files are told apart by their ending, in small letters or capitals."""
    path = tmp_path / f"triangle{suffix}"
    path.write_text(json.dumps(triangle()), encoding="utf-8")

    assert load(str(path), SHIPPED) == parsed()


# ------------------------------------------------------------------------------------------ text that is wrong


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\nnodes: [\n", "line 3: not YAML"),
        ("name: a\n\tb: c\n", "line 2: not YAML"),
        ("name: a\nb: \x07\n", "line 2: not YAML: special characters"),
        ("name: a\nname: b\n", "line 2: not YAML: duplicate key 'name'"),
        ("name: a\nnodes: [{name: b, name: c}]\n", "line 2: not YAML: duplicate key 'name'"),
        ("a: &x [1]\nb: *x\n", "line 2: not YAML: aliases are not allowed, write out the value of *x"),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML"),
        ("!!python/object/apply:os.system [true]", "line 1: not YAML: could not determine a constructor"),
        ("name: !!int ''", "not YAML"),
        ("name: !!bool maybe", "not YAML"),
        ("name: !!timestamp never", "not YAML"),
        ("name: 2001-99-99", "not YAML"),
        ("[" * 5000, "not YAML: nested too deeply"),
        ("", "expected a mapping with the members name, nodes, links, saes"),
        ("[1, 2]", "expected a mapping"),
        ("just words", "expected a mapping"),
    ],
    ids=lambda value: value[:30],
)
def test_yaml_that_is_wrong_is_refused(text: str, problem: str) -> None:
    """An error in the YAML names the line and, in few words, what is wrong there."""
    with pytest.raises(TopologyError) as caught:
        parse_yaml(text, "bad.yaml")
    assert str(caught.value).startswith("bad.yaml: ")
    assert problem in str(caught.value)


def test_a_bomb_of_aliases_is_refused() -> None:
    """Ten lines of aliases upon aliases do not fill the memory."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 11)]

    with pytest.raises(TopologyError, match="aliases are not allowed"):
        parse_yaml("\n".join(lines), "bomb.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": "a",\n}', "line 2: not JSON"),
        ('{"name": "a", "name": "b"}', "duplicate key 'name'"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ("9" * 5000, "not JSON"),
        ("null", "expected a mapping"),
    ],
    ids=lambda value: value[:30],
)
def test_json_that_is_wrong_is_refused(text: str, problem: str) -> None:
    """An error in JSON reads like one in YAML."""
    with pytest.raises(TopologyError) as caught:
        parse_json(text, "bad.json")
    assert problem in str(caught.value)


# ---------------------------------------------------------------------------------------- members that are wrong

CASES: list[tuple[str, Change, str]] = [
    ("unknown member", lambda d: d.update(link=1), "unknown member 'link'; did you mean 'links'? allowed: name,"),
    ("unknown member of a link", link_with(delay=1), "links[2]: unknown member 'delay'; "),
    ("unknown member of a QC", link_with(qcs=[{"rate": 1}]), "links[2].qcs[0]: unknown member 'rate'"),
    ("unknown member of a node", lambda d: d["nodes"][1].update(x=1), "nodes[1]: unknown member 'x'"),
    ("unknown member of an SAE", lambda d: d["saes"][1].update(at=1), "saes[1]: unknown member 'at'"),
    ("number as a member", lambda d: d.update([(7, 1)]), "unknown member 7"),
    ("no links member", lambda d: d.pop("links"), "links: missing, and it is required"),
    ("no ends", lambda d: d["links"][1].pop("b"), "links[1].b: missing"),
    ("unknown node in a link", link_with(b="nort"), "links[2].b: unknown node 'nort'; did you mean 'north'? nodes: n"),
    ("unknown node of an SAE", lambda d: d["saes"][0].update(node="south"), "saes[0].node: unknown node 'south'"),
    ("unknown controller", lambda d: d.update(controller="south"), "controller: unknown node 'south'"),
    ("unknown database", lambda d: d.update(database="south"), "database: unknown node 'south'"),
    ("link to itself", link_with(b="west"), "links[2].b: a link from 'west' to itself"),
    (
        "node twice",
        lambda d: d["nodes"][2].update(name="north"),
        "nodes[2].name: duplicate 'north', already used by nodes[0]",
    ),
    (
        "SAE twice",
        lambda d: d["saes"][1].update(name="mail"),
        "saes[1].name: duplicate 'mail', already used by saes[0]",
    ),
    (
        "link twice",
        lambda d: [link.update(name="fibre") for link in d["links"][1:]],
        "links[2].name: duplicate 'fibre', already used by links[1]",
    ),
    (
        "UUID twice",
        lambda d: [sae.update(id="3fa85f64-5717-4562-b3fc-2c963f66afa6") for sae in d["saes"]],
        "saes[1].id: duplicate",
    ),
    ("UUID malformed", lambda d: d["saes"][0].update(id="{3fa85f64}"), "saes[0].id: expected a UUID"),
    ("negative delay", link_with(delay_ms=-1), "links[2].delay_ms: expected a number from 0 to 60000, got -1"),
    ("NaN for a delay", link_with(delay_ms=math.nan), "links[2].delay_ms: expected a number from 0 to 60000, got nan"),
    ("infinite delay", link_with(delay_ms=math.inf), "links[2].delay_ms: expected a number"),
    ("text for a delay", link_with(delay_ms="5 ms"), "links[2].delay_ms: expected a number, got '5 ms'"),
    ("truth for a delay", link_with(delay_ms=True), "links[2].delay_ms: expected a number, got true"),
    ("nothing for a delay", link_with(delay_ms=None), "links[2].delay_ms: expected a number, got nothing"),
    ("negative length", link_with(length_km=-3), "links[2].length_km: expected a number"),
    ("huge length", link_with(length_km=10**400), "links[2].length_km: expected a number"),
    ("exponent", link_with(length_km="1e3"), "links[2].length_km: expected a number written as a plain decimal"),
    ("negative jitter", link_with(jitter_ms=-0.1), "links[2].jitter_ms: expected a number"),
    ("loss above 100", link_with(loss_percent=100.1), "links[2].loss_percent: expected a number from 0 to 100"),
    ("negative loss", link_with(loss_percent=-1), "links[2].loss_percent: expected a number from 0 to 100"),
    ("no bandwidth", link_with(bandwidth_mbit=0), "links[2].bandwidth_mbit: expected a number above 0"),
    (
        "bandwidth over the limit",
        link_with(bandwidth_mbit=1001),
        "links[2].bandwidth_mbit: expected a number from 0 to 1000",
    ),
    ("neither length nor delay", lambda d: d["links"][1].pop("length_km"), "links[1]: expected length_km or delay_ms"),
    (
        "low above high",
        link_with(qcs=[{"low_bytes_per_slot": 9, "high_bytes_per_slot": 8}]),
        "links[2].qcs[0].low_bytes_per_slot: expected at most high_bytes_per_slot (8), got 9",
    ),
    (
        "negative rate",
        link_with(qcs=[{"low_bytes_per_slot": -1}]),
        "links[2].qcs[0].low_bytes_per_slot: expected a whole number",
    ),
    (
        "fraction of a byte",
        link_with(qcs=[{"high_bytes_per_slot": 40.5}]),
        "links[2].qcs[0].high_bytes_per_slot: expected a whole number from 0 to 1000000, got 40.5",
    ),
    (
        "truth for a rate",
        link_with(qcs=[{"high_bytes_per_slot": True}]),
        "links[2].qcs[0].high_bytes_per_slot: expected a whole number",
    ),
    ("no QC", link_with(qcs=[]), "links[2].qcs: expected at least one QC"),
    ("QCs not in a list", link_with(qcs={}), "links[2].qcs: expected a list, got a mapping"),
    ("no nodes", lambda d: d.update(nodes=[]), "nodes: expected at least two nodes, got none"),
    ("one node", lambda d: d.update(nodes=[{"name": "north"}]), "nodes: expected at least two nodes, got 1"),
    ("nodes not in a list", lambda d: d.update(nodes="north"), "nodes: expected a list, got 'north'"),
    ("node not a mapping", lambda d: d["nodes"].append("south"), "nodes[3]: expected a mapping"),
    ("no links", lambda d: d.update(links=[]), "links: expected one connected network, got 3 parts"),
    (
        "disconnected",
        lambda d: d["nodes"].append({"name": "island"}),
        "links: expected one connected network, got 2 parts with no link between them, which hold north, island",
    ),
    ("no SAEs", lambda d: d.update(saes=[]), "saes: expected SAEs at two nodes or more"),
    ("SAEs at one node", lambda d: d["saes"][1].update(node="north"), "saes: expected SAEs at two nodes or more"),
    (
        "position outside",
        lambda d: d["nodes"][0].update(position=[0, 2]),
        "nodes[0].position[1]: expected a number from 0 to 1",
    ),
    (
        "position in space",
        lambda d: d["nodes"][0].update(position=[0, 0, 0]),
        "nodes[0].position: expected two numbers",
    ),
    ("title not text", lambda d: d["nodes"][0].update(title=7), "nodes[0].title: expected text"),
    (
        "escape sequence",
        lambda d: d["nodes"][0].update(title="\x1b[2J"),
        "nodes[0].title: expected text without control",
    ),
    ("description not text", lambda d: d.update(description=["a"]), "description: expected text"),
    ("host of the controller", lambda d: d["nodes"][2].update(name="ctl"), "nodes[2].name: 'ctl' is a host that every"),
    (
        "truth for a name",
        lambda d: d["nodes"][2].update(name=False),
        "nodes[2].name: expected a name (YAML takes yes, no",
    ),
]


@pytest.mark.parametrize(("change", "problem"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_wrong_file_is_refused_with_one_line_that_names_file_and_field(change: Change, problem: str) -> None:
    """The user reads which field of which file is wrong and what belongs there, in one line."""
    message = refusal(change)

    assert message.startswith("triangle.yaml: ")
    assert problem in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "name", ["", "A", "Zürich", "a_b", "a b", "1a", "-a", "a-", "a.b", "a\n", "x" * 32, "a/b", "٣", 5, None]
)
def test_a_name_that_cannot_be_a_host_name_is_refused(name: object) -> None:
    """A node's name becomes a host name, so it has to be a DNS label."""
    assert "nodes[0].name: expected a name" in refusal(lambda document: document["nodes"][0].update(name=name))


@pytest.mark.parametrize("name", ["a", "a1", "salt-lake-city", "x" * 31])
def test_a_host_name_is_a_good_name(name: str) -> None:
    """Letters, digits and inner hyphens, 31 characters at most."""
    assert parsed(lambda document: document.update(name=name)).name == name


def test_an_error_carries_its_parts() -> None:
    """A program that catches the error finds file, field and problem without taking the text apart."""
    with pytest.raises(TopologyError) as caught:
        parsed(link_with(b="west"))

    error = caught.value
    assert (error.source, error.field) == ("triangle.yaml", "links[2].b")
    assert str(error) == f"triangle.yaml: links[2].b: {error.problem}"


# ----------------------------------------------------------------------------------------------------- GraphML


def lakeland(*changes: tuple[str, str]) -> Topology:
    """The home-made GraphML network after replacements in its text, each of which must find something."""
    text = LAKELAND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse_graphml(text, "lakeland.graphml")


def lakeland_refusal(*changes: tuple[str, str]) -> str:
    with pytest.raises(TopologyError) as caught:
        lakeland(*changes)
    assert str(caught.value).startswith("lakeland.graphml: ")
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_graphml_file_loads_by_its_ending() -> None:
    """A file of the Topology Zoo can be given as it is."""
    described = load(str(ROOT / "tests" / "vectors" / "lakeland.graphml"), SHIPPED)

    assert (described.name, len(described.nodes), len(described.links)) == ("lakeland-net", 5, 5)


def test_labels_become_names_without_accents() -> None:
    """Accents are stripped, duplicates numbered, a leading digit gets a letter; titles keep the label."""
    nodes = lakeland().nodes

    assert [node.name for node in nodes] == ["zurich", "geneve", "lugano", "zurich-2", "n10g-upstream-milano"]
    assert nodes[0].title == "Zürich"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("São Paulo (2)", "sao-paulo-2"),
        ("Łódź", "lodz"),
        ("Ærøskøbing", "aeroskobing"),
        ("Gießen", "giessen"),
        ("???", "node"),
        ("", "n1"),
        ("DB", "db-2"),
        ("New York, NY", "new-york-ny"),
        ("a very long label that goes on and on", "a-very-long-label-that-goes"),
    ],
)
def test_any_label_becomes_a_valid_name(label: str, name: str) -> None:
    """Whatever people wrote on the map, a host can be called after it."""
    assert lakeland(("Genève", label)).nodes[1].name == name


def test_length_is_the_great_circle_distance() -> None:
    """Zürich and Geneva are some 224 km apart, and light takes 5 microseconds for each."""
    link = lakeland().links[0]

    assert link.length_km == pytest.approx(224, abs=2)
    assert link.delay_ms == pytest.approx((link.length_km or 0) * 0.005)


def test_a_link_to_an_unknown_place_has_the_default_length() -> None:
    """A node without coordinates is 50 km away from its neighbours."""
    described = lakeland()

    assert described.links[-1].length_km == topology.DEFAULT_LENGTH_KM == 50


def test_parallel_edges_stay_parallel_links() -> None:
    """Two lines between the same two towns are two links."""
    names = [link.name for link in lakeland().links]

    assert [name for name in names if "lugano" in name and "zurich" in name] == ["zurich-lugano", "zurich-lugano-2"]


def test_the_map_is_drawn_north_up_within_the_picture() -> None:
    """Zürich is north-east of Geneva in the picture too, and all nodes are inside."""
    zurich, geneva, *others = (node.position for node in lakeland().nodes)

    assert zurich[0] > geneva[0]
    assert zurich[1] > geneva[1]
    assert all(0 <= value <= 1 for position in (zurich, geneva, *others) for value in position)


def test_every_graphml_node_gets_one_sae() -> None:
    """Each node has an application, called after it."""
    described = lakeland()

    assert [(sae.name, sae.node) for sae in described.saes] == [
        (f"sae-{node.name}", node.name) for node in described.nodes
    ]


def test_line_speeds_of_graphml_are_not_applied() -> None:
    """The speed of a line of 2010 does not slow the emulated network."""
    assert {link.bandwidth_mbit for link in lakeland().links} == {None}


def test_graphml_without_labels_is_named_by_ids() -> None:
    """A bare graph loads, and nodes are called after their ids."""
    text = (
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="undirected">'
        '<node id="u"/><node id="v"/><edge source="u" target="v"/></graph></graphml>'
    )
    described = parse_graphml(text, "some/Bare Graph.graphml")

    assert (described.name, [node.name for node in described.nodes]) == ("bare-graph", ["u", "v"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([("</graph>", "")], "not XML"),
        ([("<graph ", "<!DOCTYPE x><graph ")], "line 13: DOCTYPE and ENTITY declarations are not allowed"),
        ([("<graph ", '<!ENTITY a "b"><graph ')], "DOCTYPE and ENTITY declarations are not allowed"),
        (
            [('<edge source="2" target="4">', '<edge source="2" target="2">')],
            "links[4].b: a link from 'lugano' to itself",
        ),
        ([('<edge source="2" target="4">', '<edge source="2" target="0">')], "expected one connected network"),
        ([('source="0" target="3"', 'source="0" target="33"')], "edge[3].target: unknown node '33'"),
        ([('<node id="3">', '<node id="2">')], "node[3]: duplicate id '2'"),
        ([('<node id="3">', "<node>")], "node[3]: missing its id"),
        ([('<edge id="e2"', '<edge id="e1"')], "two edges share an id"),
        ([("46.20222", "446.2")], "node[1].Latitude: expected degrees from -90 to 90"),
        ([("46.20222", "north")], "not GraphML that can be read"),
        ([('<data key="d31">1', '<data key="d99">1')], "not GraphML that can be read"),
        ([("http://graphml.graphdrawing.org/xmlns", "urn:other")], "expected one <graph>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_graphml_is_refused(changes: list[tuple[str, str]], problem: str) -> None:
    """What networkx would mend in silence or fail over in its own words is one line of ours."""
    assert problem in lakeland_refusal(*changes)


# ------------------------------------------------------------------------------------------------- generated

names = st.from_regex(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?", fullmatch=True).filter(lambda name: name not in ("ctl", "db"))
words = st.text(st.characters(codec="utf-8"), max_size=20).filter(str.isprintable)
milliseconds = st.floats(0, 60_000) | st.integers(0, 60_000)
rates = st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_000_000)).map(sorted)
qcs = rates.map(lambda rate: {"low_bytes_per_slot": rate[0], "high_bytes_per_slot": rate[1]})


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Any valid document: a random tree, so that it is connected, and some more links."""
    nodes = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    ends = [(draw(st.sampled_from(nodes[:index])), nodes[index]) for index in range(1, len(nodes))]
    ends += draw(st.lists(st.permutations(nodes).map(lambda order: (order[0], order[1])), max_size=4))
    optional = {
        "length_km": st.floats(0, 40_000),
        "jitter_ms": milliseconds,
        "loss_percent": st.floats(0, 100),
        "bandwidth_mbit": st.floats(0, 1000, exclude_min=True),
        "qcs": st.lists(qcs, min_size=1, max_size=3),
    }
    extras = st.fixed_dictionaries({"delay_ms": milliseconds}, optional=optional)
    saes = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    places = [nodes[0], nodes[1], *(draw(st.sampled_from(nodes)) for _ in saes[2:])]
    position = st.lists(st.floats(0, 1), min_size=2, max_size=2)
    about = st.fixed_dictionaries({}, optional={"title": words, "position": position})
    members = {"description": words, "controller": st.sampled_from(nodes), "database": st.sampled_from(nodes)}
    identity = st.fixed_dictionaries({}, optional={"id": st.uuids().map(str)})
    return {
        "name": draw(names),
        "nodes": [{"name": name, **draw(about)} for name in nodes],
        "links": [{"a": a, "b": b, **draw(extras)} for a, b in ends],
        "saes": [{"name": name, "node": place, **draw(identity)} for name, place in zip(saes, places, strict=True)],
        **draw(st.fixed_dictionaries({}, optional=members)),
    }


def described(document: Document) -> Topology:
    ids = [sae["id"] for sae in document["saes"] if "id" in sae]
    assume(len(set(ids)) == len(ids))
    return parse_json(json.dumps(document), "generated.json")


@given(documents())
def test_any_valid_description_survives_being_written_and_read(document: Document) -> None:
    """What dump_yaml writes, parse_yaml reads as an equal description, and YAML says the same as JSON."""
    once = described(document)

    assert parse_yaml(dump_yaml(once), "again.yaml") == once
    assert parse_yaml(yaml.safe_dump(document), "direct.yaml") == once


@given(documents())
def test_link_names_are_unique_whatever_the_nodes_are_called(document: Document) -> None:
    """No two links share a name, even where hyphens make a-b and c look like a and b-c."""
    links = described(document).links

    assert len({link.name for link in links}) == len(links)


@given(documents(), st.none() | milliseconds, st.none() | rates.map(tuple))
def test_overrides_change_only_what_they_say(
    document: Document, delay_ms: float | None, qc_rate: tuple[int, int] | None
) -> None:
    """Apart from the delays and the rates that were asked for, the description stays the same."""
    before = described(document)
    after = before.with_overrides(delay_ms=delay_ms, qc_rate=qc_rate)

    expected = yaml.safe_load(dump_yaml(before))
    for link in expected["links"]:
        if delay_ms is not None:
            link["delay_ms"] = float(delay_ms)
        if qc_rate is not None:
            for qc in link["qcs"]:
                qc["low_bytes_per_slot"], qc["high_bytes_per_slot"] = qc_rate
    assert yaml.safe_load(dump_yaml(after)) == expected


@given(documents())
def test_the_graph_is_connected(document: Document) -> None:
    """In a network that was accepted, every node reaches every other."""
    assert nx.is_connected(described(document).graph())


PARSERS = [parse_yaml, parse_json, parse_graphml]
TOKENS = [
    "name: ",
    "nodes:",
    "links:",
    "- ",
    "a: ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\n",
    "  ",
    "\t",
    "&x ",
    "*x",
    "!!int ",
    "!!float ",
    "!!set ",
    "!!omap ",
    "!!binary ",
    "? ",
    ": ",
    "<<: ",
    "'",
    '"',
    "|",
    "%YAML 1.1\n",
    "---\n",
    "0x",
    "1:30",
    ".nan",
    "=",
    "~",
]


@given(st.text(max_size=200) | st.lists(st.sampled_from(TOKENS), max_size=30).map("".join), st.sampled_from(PARSERS))
def test_random_text_is_refused_like_any_wrong_file(text: str, parse: Callable[[str, str], Topology]) -> None:
    """Whatever is in a file, the user gets one line about it and never a traceback."""
    with pytest.raises(TopologyError) as caught:
        parse(text, "random")
    assert str(caught.value).isprintable()


def outcome(parse: Callable[[str, str], Topology], text: str) -> str:
    """The line that the user reads about a text, or the name of the network if nothing is wrong with it."""
    try:
        return parse(text, "changed").name
    except TopologyError as error:
        return str(error)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(documents(), st.data())
def test_a_valid_file_with_one_random_value_is_accepted_or_refused(document: Document, data: st.DataObject) -> None:
    """One wrong value anywhere in a good file ends in a line about it, if it is wrong at all."""
    target: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(values)

    assert outcome(parse_yaml, yaml.safe_dump(document)).isprintable()


@given(
    st.integers(0, len(LAKELAND)),
    st.integers(0, 40),
    st.text(max_size=10) | st.sampled_from(["<graph>", "&lt;", "</node>"]),
)
def test_graphml_with_a_hole_in_it_is_accepted_or_refused(start: int, length: int, patch: str) -> None:
    """Damage anywhere in a GraphML file ends in a line about it, if it does any harm."""
    assert outcome(parse_graphml, LAKELAND[:start] + patch + LAKELAND[start + length :]).isprintable()
