"""The networks that we ship, how a network is found, and what can be done with its description."""

from __future__ import annotations

import json
import math
import os
import uuid
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
import yaml

from scenario.quantum.qc_models import Blocks
from scenario.shape import Shape
from scenario.topology import Qc, Topology, TopologyError, load

SHIPPED = Path(__file__).resolve().parents[3] / "topologies"
README = (SHIPPED / "README.md").read_text(encoding="utf-8")
SMALLEST = "\n".join(line[4:] for line in README.splitlines() if line.startswith("    "))


def shipped(name: str) -> Topology:
    return load(name, SHIPPED)


def written(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return str(path)


def test_poliqi_is_a_ring_of_five_datacenters_with_fifteen_applications():
    """The default network: three applications in each datacenter, fibres of a city's size, one usual QC each."""
    poliqi = shipped("poliqi")

    names = [node.name for node in poliqi.nodes]
    assert names == ["government", "military", "telecom", "finance", "university"]
    assert [(link.a, link.b) for link in poliqi.links] == list(zip(names, names[1:] + names[:1], strict=True))
    assert sorted(sae.node for sae in poliqi.saes if not sae.external) == sorted(names * 3)
    assert (poliqi.controller_at, poliqi.database_at) == ("telecom", "telecom")
    assert all(4 <= link.length_km <= 25 and link.qcs == (Qc(f"{link.name}/1", 33, 47),) for link in poliqi.links)


def test_nsfnet_has_its_fourteen_nodes_and_twenty_one_links():
    """NSFNET is the one of the literature: 2 to 4 neighbours a node, no bridge, and applications everywhere."""
    nsfnet = shipped("nsfnet")

    degrees = [degree for _, degree in nsfnet.graph().degree()]
    assert (len(nsfnet.nodes), len(nsfnet.links), min(degrees), max(degrees)) == (14, 21, 2, 4)
    assert not nx.has_bridges(nx.Graph(nsfnet.graph()))
    assert {sae.node for sae in nsfnet.saes} == {node.name for node in nsfnet.nodes}


@pytest.mark.parametrize(
    ("name", "nodes", "links", "degrees"),
    [("usnet", 24, 43, (2, 5)), ("cost239", 11, 26, (4, 6)), ("secoqc", 6, 6, (1, 3))],
)
def test_networks_of_the_literature_have_its_nodes_and_links(name, nodes, links, degrees):
    """And applications everywhere."""
    network = shipped(name)

    found = [degree for _, degree in network.graph().degree()]
    assert (len(network.nodes), len(network.links), (min(found), max(found))) == (nodes, links, degrees)
    assert {sae.node for sae in network.saes} == {node.name for node in network.nodes}


def test_poliqi_has_three_external_saes():
    """Those of docs/client.md, with IDs that never change: bob is one hop from alice, carol two."""
    found = {sae.name: sae for sae in shipped("poliqi").saes if sae.external}

    assert {name: sae.node for name, sae in found.items()} == {
        "alice": "government", "bob": "military", "carol": "telecom",
    }  # fmt: skip
    assert {uuid.UUID(sae.id).version for sae in found.values()} == {4}


def test_pair_is_two_nodes_on_one_fibre():
    """The smallest network is alice and bob, 10 km apart, two applications at each."""
    pair = shipped("pair")

    assert [(link.name, link.length_km) for link in pair.links] == [("alice-bob", 10)]
    assert sorted(sae.node for sae in pair.saes) == ["alice", "alice", "bob", "bob"]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_is_named_like_its_network_and_says_what_it_shows(path):
    """Each file in topologies/ opens with a comment about its network, whose name is that of the file."""
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert load(str(path), SHIPPED) == shipped(path.stem)
    assert shipped(path.stem).name == path.stem


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML", ".json"])
def test_the_ending_tells_the_notation(tmp_path, suffix):
    """The example in the README can be used as it stands, and JSON describes the same network."""
    text = json.dumps(yaml.safe_load(SMALLEST), indent=2) if suffix == ".json" else SMALLEST

    assert [node.name for node in load(written(tmp_path / f"x{suffix}", text), SHIPPED).nodes] == ["alice", "bob"]


def test_a_byte_order_mark_does_no_harm(tmp_path):
    """Files saved by editors on Windows load as well."""
    assert load(written(tmp_path / "x.yaml", SMALLEST, "utf-8-sig"), SHIPPED).name == "pair"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "poliqui",
            "did you mean 'poliqi'? shipped: cost239, ladder, nsfnet, pair, poliqi-bypass, poliqi, row, secoqc,"
            " trellis, usnet; or a file",
        ),
        ("/nowhere/net.yaml", "/nowhere/net.yaml: no such topology; shipped: cost239"),
        ("README.md", "README.md: no such topology"),
        ("", "no such topology"),
        ("../pair", "no such topology"),
        ("a\nb\0.yaml", "a b .yaml: no such topology"),
        ("x" * 5000 + ".yaml", "cannot be read: File name too long"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_what_is_neither_a_name_nor_a_file_is_refused(name, problem):
    """In one line, which lists the networks that need no file and says which one was probably meant."""
    with pytest.raises(TopologyError) as caught:
        shipped(name)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_bytes("name: Zürich".encode("latin-1")), "expected UTF-8 text"),
        (lambda path: path.write_bytes(b"#" * (1 << 20) + b"\n"), "1 MiB"),
        (lambda path: path.mkdir(), "no such topology"),
        (os.mkfifo, "no such topology"),
    ],
    ids=["encoding", "huge", "folder", "pipe"],
)
def test_a_file_that_cannot_be_a_topology_is_refused_at_once(tmp_path, make, problem):
    """It is neither guessed at nor parsed for minutes nor waited for."""
    make(tmp_path / "x.yaml")

    with pytest.raises(TopologyError, match=rf"x\.yaml: .*{problem}"):
        load(str(tmp_path / "x.yaml"), SHIPPED)


def test_overrides_change_only_what_they_say():
    """--delay 20 gives every link 20 ms one way, --qc-rate 10-12 every QC that rate, and all else stays.

    An experiment has every QC hand over in blocks what it made as before.
    """
    before = shipped("poliqi")

    slow = tuple(replace(link, a_to_b=Shape(20.0), b_to_a=Shape(20.0)) for link in before.links)
    poor = tuple(replace(link, qcs=(Qc(f"{link.name}/1", 10, 12),)) for link in before.links)
    assert before.with_overrides() == before
    assert before.with_overrides(delay_ms=20) == replace(before, links=slow)
    assert before.with_overrides(qc_rate=(10, 12)) == replace(before, links=poor)
    (qc,) = before.with_overrides(qc_rate=(10, 12), blocks_s=133).links[0].qcs
    assert qc == Qc(f"{before.links[0].name}/1", 0, 11 * 133, Blocks(11 * 133, 133))


@pytest.mark.parametrize(
    "override",
    [{"delay_ms": -1}, {"delay_ms": math.nan}, {"qc_rate": (5, 4)}, {"qc_rate": (-1, 4)}, {"qc_rate": (0, 10**9)}],
    ids=str,
)
def test_an_override_is_checked_like_a_file(override):
    """A negative delay is no better on the command line than in a file, and the option is named."""
    with pytest.raises(TopologyError, match=next(iter(override))):
        shipped("pair").with_overrides(**override)


def test_the_graph_has_every_node_and_every_link():
    """Paths are searched in a multigraph in which parallel links stay apart."""
    pair = shipped("pair")
    twice = replace(pair, links=(*pair.links, replace(pair.links[0], name="alice-bob-2")))

    assert list(twice.graph()) == ["alice", "bob"]
    assert {key: link for _, _, key, link in twice.graph().edges(keys=True, data="link")} == {
        link.name: link for link in twice.links
    }
