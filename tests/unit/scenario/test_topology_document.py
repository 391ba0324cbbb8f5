"""What a document may say, what becomes of it, and how a wrong one is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etsi.gs014 import Limits
from scenario.shape import Shape
from scenario.topology_description import Field, Qc, Topology, TopologyError, Tunnel
from scenario.topology_document import build

README = (Path(__file__).resolve().parents[3] / "topologies" / "README.md").read_text(encoding="utf-8")
UUID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"

Change = Callable[[dict[str, Any]], object]


def described(document: object) -> Topology:
    return build(Field("triangle.yaml", "", document))


def triangle(change: Change = len) -> dict[str, Any]:
    """A small document after a change, which is what a test is about."""
    document = {
        "name": "triangle",
        "nodes": [{"name": "north"}, {"name": "east"}, {"name": "west"}],
        "links": [
            {"a": "north", "b": "east", "length_km": 10},
            {"a": "east", "b": "west", "length_km": 20},
            {"a": "west", "b": "north", "length_km": 30},
        ],
        "saes": [{"name": "mail", "node": "north"}, {"name": "bank", "node": "east"}],
    }
    change(document)
    return document


def parsed(change: Change = len) -> Topology:
    return described(triangle(change))


def refusal(change: Change) -> str:
    """What the user reads about the triangle after a change, which must be wrong."""
    with pytest.raises(TopologyError) as caught:
        parsed(change)
    return str(caught.value)


def link(**members: object) -> Change:
    """Changes link number 2, from west to north."""
    return lambda document: document["links"][2].update(members)


def node(**members: object) -> Change:
    return lambda document: document["nodes"][2].update(members)


def sae(**members: object) -> Change:
    return lambda document: document["saes"][1].update(members)


def network(**members: object) -> Change:
    return lambda document: document.update(members)


@pytest.mark.parametrize(
    "change", [network(x=1), network(limits={"x": 1}), node(x=1), link(x=1), link(qcs=[{"x": 1}]), sae(x=1)]
)
def test_the_readme_explains_every_member(change):
    """Whatever a file may contain is explained in topologies/README.md."""
    _, _, allowed = refusal(change).partition("allowed: ")

    assert all(f"`{member}`" in README for member in allowed.split(", "))


def test_what_a_file_leaves_out_has_a_default():
    """Light needs 5 us a kilometre, a link is clean and has one QC, both hosts hang at the first node."""
    topology = parsed()

    clean = topology.links[0]
    assert (clean.name, clean.rtt_ms) == ("north-east", pytest.approx(0.1))
    assert clean.a_to_b == clean.b_to_a == Shape(pytest.approx(0.05), 0, 0, None)
    assert clean.qcs == (Qc("north-east/1", 33, 47),)
    assert (topology.controller_at, topology.database_at, topology.description) == ("north", "north", "")
    assert (topology.controller2_at, topology.database2_at, topology.database3_at) == (None, None, None)
    assert (topology.nodes[0].title, topology.saes[0].id) == ("North", None)
    assert len({n.position for n in topology.nodes}) == 3
    assert all(0 <= value <= 1 for n in topology.nodes for value in n.position)


def test_what_a_file_says_arrives():
    """As numbers with their units; a delay wins over the length, which is kept as a fact."""
    given = link(delay_ms=7, jitter_ms=1, loss_percent=0.5, bandwidth_mbit=100, name="fibre")
    fibre = parsed(given).links[2]
    assert (fibre.name, fibre.length_km) == ("fibre", 30)
    assert fibre.a_to_b == fibre.b_to_a == Shape(7, 1, 0.5, 100)

    topology = parsed(network(controller="east", database="west", description="Two\nlines"))
    assert (topology.controller_at, topology.database_at, topology.description) == ("east", "west", "Two lines")

    topology = parsed(network(controller2="west", database2="east", database3="north"))
    assert (topology.controller2_at, topology.database2_at, topology.database3_at) == ("west", "east", "north")

    assert parsed(node(title="W", position=[1, 0])).nodes[2].position == (1, 0)
    assert parsed(sae(id=UUID.upper())).saes[1].id == UUID.upper()


def test_limits_of_the_kmes_can_be_set():
    """Those that the file leaves out keep their defaults."""
    assert parsed().limits == Limits()
    assert parsed(network(limits={"max_key_per_request": 128})).limits == Limits(max_key_per_request=128)


def test_an_sae_may_be_somebody_elses():
    """External, if the file says so, and then it may have an ID in place of a name, which is its name."""
    assert [s.external for s in parsed(sae(external=True)).saes] == [False, True]

    nameless = parsed(lambda d: d["saes"].append({"node": "west", "id": UUID.upper(), "external": True})).saes[2]
    assert (nameless.name, nameless.id) == (UUID.upper(), UUID.upper())


@pytest.mark.parametrize("sae_id", ["7", "VPN-Nord", "vpn nord/1", "Süd#", "urn:x:y", "x" * 128])
def test_the_id_of_an_sae_is_any_text_and_stays_as_it_is_written(sae_id):
    """GS QKD 014, clause 4: it is opaque."""
    assert parsed(sae(id=sae_id)).saes[1].id == sae_id


def test_ids_in_other_letters_are_others():
    """Nobody who compares them letter by letter takes the one for the other."""
    found = parsed(lambda d: [x.update(id=y) for x, y in zip(d["saes"], (UUID, UUID.upper()), strict=True)]).saes
    assert [s.id for s in found] == [UUID, UUID.upper()]


def test_external_saes_alone_are_enough():
    """Two of them at two nodes can share keys, so they make a network."""
    assert all(s.external for s in parsed(lambda d: [s.update(external=True) for s in d["saes"]]).saes)


def test_a_delay_alone_is_enough():
    """A link may leave its length open."""
    first = parsed(lambda d: d["links"].append({"a": "north", "b": "east", "delay_ms": 2})).links[3]

    assert (first.a_to_b, first.b_to_a, first.length_km) == (Shape(2), Shape(2), None)


def test_a_direction_overrules_what_the_link_says_of_both():
    """Member by member; two delays, one each way, are enough without a length."""
    given = link(loss_percent=1, bandwidth_mbit=100, b_to_a={"delay_ms": 9, "loss_percent": 0})
    fibre = parsed(given).links[2]
    assert (fibre.a_to_b, fibre.b_to_a) == (Shape(0.15, 0, 1, 100), Shape(9, 0, 0, 100))

    added = {"a": "north", "b": "east", "a_to_b": {"delay_ms": 2}, "b_to_a": {"delay_ms": 3, "jitter_ms": 1}}
    apart = parsed(lambda d: d["links"].append(added)).links[3]
    assert (apart.a_to_b, apart.b_to_a, apart.rtt_ms) == (Shape(2), Shape(3, 1), 5)


def test_several_qcs_on_a_link_are_numbered():
    """Each QC of a link has a rate of its own, and what is not given is the usual rate."""
    qcs = [{"low_bytes_per_slot": 5, "high_bytes_per_slot": 9}, {}, {"high_bytes_per_slot": 50}]

    assert parsed(link(qcs=qcs)).links[2].qcs == (
        Qc("west-north/1", 5, 9), Qc("west-north/2", 33, 47), Qc("west-north/3", 33, 50),
    )  # fmt: skip


def test_links_that_would_share_a_name_are_numbered():
    """Parallel ones, whichever end comes first, and those whose name the file gives to another."""
    again = {"a": "east", "b": "north", "length_km": 40}
    assert [x.name for x in parsed(lambda d: d["links"].append(again)).links][3] == "north-east-2"
    assert [x.name for x in parsed(link(name="north-east")).links] == ["north-east-2", "east-west", "north-east"]


CASES: list[tuple[Change, str]] = [
    (network(link=1), ": unknown member 'link'; did you mean 'links'? allowed: name,"),
    (link(delay=1), "links[2]: unknown member 'delay'; "),
    (link(qcs=[{"rate": 1}]), "links[2].qcs[0]: unknown member 'rate'"),
    (node(x=1), "nodes[2]: unknown member 'x'"),
    (sae(at=1), "saes[1]: unknown member 'at'"),
    (lambda d: d.update([(7, 1)]), ": unknown member 7"),
    (lambda d: d.update([(10**5000, 1)]), ": unknown member a huge number"),
    (lambda d: d.pop("links"), "links: missing, and it is required"),
    (lambda d: d["links"][1].pop("b"), "links[1].b: missing"),
    (link(b="nort"), "links[2].b: unknown node 'nort'; did you mean 'north'? nodes: north, east, west"),
    (link(b=None), "links[2].b: unknown node nothing; nodes: north, east, west"),
    (sae(node="south"), "saes[1].node: unknown node 'south'"),
    (network(controller="south"), "controller: unknown node 'south'"),
    (network(database="south"), "database: unknown node 'south'"),
    (network(controller2="south"), "controller2: unknown node 'south'"),
    (network(database2=2), "database2: unknown node 2"),
    (network(database3="nort"), "database3: unknown node 'nort'; did you mean 'north'?"),
    (link(b="west"), "links[2].b: a link from 'west' to itself"),
    (node(name="north"), "nodes[2].name: duplicate 'north', already used by nodes[0].name"),
    (sae(name="mail"), "saes[1].name: duplicate 'mail', already used by saes[0].name"),
    (lambda d: [x.update(name="f") for x in d["links"]], "links[1].name: duplicate 'f', already used by links[0].name"),
    (lambda d: [x.update(id=y) for x, y in zip(d["saes"], (UUID, UUID), strict=True)], "saes[1].id: dup"),
    (sae(external="yes"), "saes[1].external: expected true or false, got 'yes'"),
    (sae(external=1), "saes[1].external: expected true or false, got 1"),
    (lambda d: d["saes"][1].pop("name"), "saes[1].name: missing, and it is required"),
    (lambda d: d["saes"].append({"node": "west", "id": UUID}), "saes[2].name: missing, and it is required"),
    (lambda d: d["saes"].append({"node": "west", "external": True}), "saes[2]: expected a name or an id, got neither"),
    (lambda d: d["saes"].append({"name": "mail", "node": "west", "external": True}), "saes[2].name: duplicate 'mail'"),
    (lambda d: d["saes"].extend({"node": n, "id": UUID, "external": True} for n in ("east", "west")), "saes[3].id: du"),
    (network(limits=3), "limits: expected a mapping"),
    (network(limits={"max_size": 1}), "limits: unknown member 'max_size'; did you mean 'max_key_size'?"),
    (network(limits={"key_size": 100}), "limits.key_size: expected a multiple of 8"),
    (network(limits={"max_key_size": 32}), "limits.max_key_size: expected an integer from 64"),
    (sae(id=7), "saes[1].id: expected 1 to 128 printable characters (in quotes, if they look like a number), got 7"),
    (sae(id="a" * 129), "saes[1].id: expected 1 to 128 printable characters"),
    (sae(id="a\nb"), "saes[1].id: expected 1 to 128 printable characters"),
    (sae(id=""), "saes[1].id: expected 1 to 128 printable characters"),
    (lambda d: d["saes"].append({"node": "west", "id": "a/b", "external": True}), "saes[2].id: such an ID needs"),
    (lambda d: d["saes"].append({"node": "west", "id": "mail", "external": True}), "saes[2].id: duplicate 'mail'"),
    (network(tunnels={}), "tunnels: expected a list"),
    (network(tunnels=[{"a": "north"}]), "tunnels[0].b: missing"),
    (network(tunnels=[{"a": "north", "b": "north"}]), "tunnels[0].b: a tunnel from 'north' to itself"),
    (network(tunnels=[{"a": "north", "b": "east", "kind": "openvpn"}]), "tunnels[0].kind: expected one of wireg"),
    (network(tunnels=[{"a": "north", "b": "east", "every_s": 0.5}]), "tunnels[0].every_s: expected a plain number"),
    (network(tunnels=[{"a": x, "b": y} for x, y in ("ab", "ba")]), "tunnels[0].a: unknown node 'a'"),
    (network(tunnels=[{"a": x, "b": y} for x, y in (("east", "west"), ("west", "east"))]), "tunnels[1]: a second tun"),
    (link(delay_ms=-1), "links[2].delay_ms: expected a plain number from 0 to 60000, got -1"),
    (link(delay_ms=math.nan), "links[2].delay_ms: expected a plain number from 0 to 60000, got nan"),
    (link(delay_ms=math.inf), "links[2].delay_ms: expected a plain number"),
    (link(delay_ms="5 ms"), "links[2].delay_ms: expected a plain number from 0 to 60000, got '5 ms'"),
    (link(delay_ms=True), "links[2].delay_ms: expected a plain number from 0 to 60000, got a truth value"),
    (link(delay_ms=None), "links[2].delay_ms: expected a plain number from 0 to 60000, got nothing"),
    (link(length_km=-3), "links[2].length_km: expected a plain number"),
    (link(length_km=10**5000), "links[2].length_km: expected a plain number"),
    (link(length_km="1e3"), "links[2].length_km: expected a plain number"),
    (link(jitter_ms=-0.1), "links[2].jitter_ms: expected a plain number"),
    (link(loss_percent=100.1), "links[2].loss_percent: expected a plain number from 0 to 100"),
    (link(bandwidth_mbit=0), "links[2].bandwidth_mbit: expected 0.001 or more"),
    (link(a_to_b=5), "links[2].a_to_b: expected a mapping with the members delay_ms, jitter_ms, loss_percent, bandw"),
    (link(a_to_b={"delay": 5}), "links[2].a_to_b: unknown member 'delay'; did you mean 'delay_ms'?"),
    (link(b_to_a={"jitter_ms": -1}), "links[2].b_to_a.jitter_ms: expected a plain number from 0 to 60000, got -1"),
    (link(b_to_a={"bandwidth_mbit": 0}), "links[2].b_to_a.bandwidth_mbit: expected 0.001 or more"),
    (link(delay_ms=-1, a_to_b={"delay_ms": 1}, b_to_a={"delay_ms": 1}), "links[2].delay_ms: expected a plain number"),
    (link(bandwidth_mbit=1001), "links[2].bandwidth_mbit: expected a plain number from 0 to 1000"),
    (lambda d: d["links"][1].pop("length_km"), "links[1]: expected length_km or delay_ms, got neither"),
    (link(name="A"), "links[2].name: expected a name of 1 to 80 characters"),
    (link(qcs=[{"low_bytes_per_slot": 60}]), "links[2].qcs[0].low_bytes_per_slot: expected at most the highest"),
    (link(qcs=[{"low_bytes_per_slot": -1}]), "links[2].qcs[0].low_bytes_per_slot: expected a whole number"),
    (link(qcs=[{"high_bytes_per_slot": 40.5}]), "links[2].qcs[0].high_bytes_per_slot: expected a whole number from 0"),
    (link(qcs=[{"high_bytes_per_slot": True}]), "links[2].qcs[0].high_bytes_per_slot: expected a whole number"),
    (link(qcs=[]), "links[2].qcs: expected at least one QC"),
    (link(qcs={}), "links[2].qcs: expected a list, got a mapping"),
    (network(nodes=[{"name": "north"}]), "nodes: expected at least two nodes, got 1"),
    (network(nodes="north"), "nodes: expected a list, got 'north'"),
    (lambda d: d["nodes"].append("south"), "nodes[3]: expected a mapping"),
    (network(links=[]), "links: expected one connected network, got 3 parts"),
    (lambda d: d["nodes"].append({"name": "island"}), "links: expected one connected network, got 2 parts"),
    (network(saes=[]), "saes: expected SAEs at two nodes or more"),
    (sae(node="north"), "saes: expected SAEs at two nodes or more"),
    (node(position=[0, 2]), "nodes[2].position[1]: expected a plain number from 0 to 1"),
    (node(position=[0, 0, 0]), "nodes[2].position: expected two numbers"),
    (node(title=7), "nodes[2].title: expected text"),
    (network(description=["a"]), "description: expected text"),
    (node(name="ctl"), "nodes[2].name: 'ctl' is a host that every"),
    (node(name=False), "nodes[2].name: expected a name of 1 to 31 characters a-z, 0-9 and inner hyphens"),
]


@pytest.mark.parametrize(("change", "problem"), CASES, ids=[problem[:40] for _, problem in CASES])
def test_a_wrong_file_is_refused_with_one_line_that_names_file_and_field(change, problem):
    """The user reads which field of which file is wrong and what belongs there."""
    message = refusal(change)

    assert message.startswith(f"triangle.yaml: {problem.removeprefix(': ')}")
    assert message.isprintable()


@pytest.mark.parametrize(
    "name", ["", "A", "Zürich", "a_b", "a b", "1a", "-a", "a-", "a.b", "a\n", "x" * 32, "a/b", "٣", 5, None]
)
def test_a_name_that_cannot_be_a_host_name_is_refused(name):
    """A node's name becomes a host name, so it has to be a DNS label."""
    assert "nodes[2].name: expected a name" in refusal(node(name=name))


@pytest.mark.parametrize("name", ["a", "a1", "salt-lake-city", "x" * 31])
def test_a_host_name_is_a_good_name(name):
    """Letters, digits and inner hyphens, 31 characters at most."""
    assert parsed(network(name=name)).name == name


def test_text_for_people_cannot_steer_a_terminal():
    """Escape sequences and line breaks become blanks."""
    assert parsed(node(title="a\x1b[2J\nb")).nodes[2].title == "a [2J b"


names = st.from_regex(re.compile(r"[a-z]([a-z-]{0,3}[a-z])?"), fullmatch=True).filter(lambda n: n not in ("ctl", "db"))


@st.composite
def random_networks(draw: st.DrawFn) -> dict[str, Any]:
    """A random tree, so that it is connected, and some more links."""
    nodes = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    ends = [(draw(st.sampled_from(nodes[:index])), nodes[index]) for index in range(1, len(nodes))]
    ends += draw(st.lists(st.permutations(nodes).map(lambda order: (order[0], order[1])), max_size=4))
    return {
        "name": "random",
        "nodes": [{"name": name} for name in nodes],
        "links": [{"a": a, "b": b, "length_km": draw(st.floats(0, 40_000))} for a, b in ends],
        "saes": [{"name": name, "node": name} for name in nodes],
    }


@settings(max_examples=50)
@given(random_networks())
def test_every_connected_network_is_accepted(document):
    """Each link has a name of its own, even where hyphens make a-b and c look like a and b-c."""
    topology = described(document)

    assert len({x.name for x in topology.links}) == len(document["links"])
    assert nx.is_connected(topology.graph())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(values, st.data())
def test_a_good_file_with_one_random_value_never_ends_in_a_traceback(value, data):
    """One wrong value anywhere ends in a line about it, if it is wrong at all."""
    document: Any = triangle(link(qcs=[{}], jitter_ms=1))
    target = document
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = value

    error = ""
    try:
        described(document)
    except TopologyError as refused:
        error = str(refused)

    assert error.isprintable()


def test_tunnel_says_what_it_says_and_has_defaults_for_the_rest():
    """In the file's order."""
    document = triangle(network(tunnels=[
        {"a": "west", "b": "east"}, {"a": "north", "b": "east", "kind": "ipsec", "every_s": 2, "policy": "hold"}
    ]))  # fmt: skip

    assert described(document).tunnels == (
        Tunnel("west", "east", "wireguard", 10.0, "close"), Tunnel("north", "east", "ipsec", 2.0, "hold")
    )  # fmt: skip
