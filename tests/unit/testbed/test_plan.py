"""From a topology to addresses, ports and configurations."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from mtls.credentials import Credentials
from node import config as node_config
from scenario.topology import Sae, Topology, load
from scenario.workload import Pairs
from testbed.errors import UserError
from testbed.planning import plan
from testbed.planning.databases import HA, HA_ASYNC
from testbed.planning.documents import SharedDatabaseAt
from testbed.planning.make import make_plan
from testbed.quantum.qc_keys import share_qc_key

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"
AT = SharedDatabaseAt("x", "qkd")
UUID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


@pytest.fixture(params=["pair", "poliqi", "nsfnet", "poliqi with a stand-by"])
def planned(request):
    """The plan of each network that we ship, and one with two controllers."""
    name, _, standby = request.param.partition(" ")
    return make_plan(load(name, TOPOLOGIES), standby=bool(standby))


def test_addresses_are_distinct(planned):
    """No two hosts share an IP or a MAC address, no two cables a switch port, no two SAEs an address."""
    hosts = list(planned.hosts.values())
    ports = [h.port for h in hosts] + [p for link in planned.links for p in (link.port_a, link.port_b)]

    servers = [(s.node, s.port) for s in planned.applications]
    for values in ([h.ip for h in hosts], [h.mac for h in hosts], ports, servers):
        assert len(values) == len(set(values))


def test_second_controller_is_at_another_datacenter_than_the_first_one_and_the_database():
    """As far as there is one; it has a certificate, and both know each other."""
    poliqi, pair = (make_plan(load(name, TOPOLOGIES), standby=True) for name in ("poliqi", "pair"))

    places = {name: poliqi.hosts[name].switch for name in ("ctl", "ctl2", "db")}
    assert places["ctl2"] not in (places["ctl"], places["db"])
    assert "ctl2" in pair.hosts
    assert [who.name for who, _, _ in poliqi.identities()][:2] == ["ctl", "ctl2"]
    credentials = Credentials(*[Path(f"/{name}") for name in ("c", "k", "ca")])
    shared = poliqi.controller_config("ctl2", Path("/x"), credentials, {}, store=AT)["shared_store"]
    assert list(shared["controllers"]) == ["ctl", "ctl2"]
    assert "shared_store" not in poliqi.controller_config("ctl", Path("/x"), credentials, {})


def test_file_may_say_where_the_second_controller_and_each_host_of_the_database_are():
    """What it leaves out is put where nothing of the kind is, as far as there is such a datacenter."""
    poliqi = load("poliqi", TOPOLOGIES)
    said = replace(poliqi, controller2_at="military", database2_at="university", database3_at="finance")

    def places(topology: Topology, *hosts: str) -> list[str]:
        planned = make_plan(topology, HA, standby=True)
        at = {switch: node for node, switch in planned.switches.items()}
        return [at[planned.hosts[host].switch] for host in hosts]

    assert places(said, "ctl2", "db2", "db3") == ["military", "university", "finance"]
    following = places(poliqi, "db2")[0]
    db, db2, db3 = places(replace(poliqi, database3_at=following), "db", "db2", "db3")
    assert db3 == following
    assert len({db, db2, db3}) == 3


def test_no_switch_is_called_like_a_datacenter():
    """Both have their names in one list at the command line: the number is left out."""
    pair = load("pair", TOPOLOGIES)
    nodes = tuple(replace(node, name=name) for node, name in zip(pair.nodes, ("s1", "s3"), strict=True))

    planned = make_plan(replace(pair, nodes=nodes, links=(), saes=(), controller_at="s1", database_at="s1"))

    assert planned.switches == {"s1": "s2", "s3": "s4"}


@pytest.mark.parametrize("kind", [HA, HA_ASYNC])
def test_database_that_fails_over_is_on_hosts_at_different_datacenters(kind):
    """Each with a certificate of its own; the first two may take writes."""
    planned = make_plan(load("poliqi", TOPOLOGIES), kind)

    assert planned.database_hosts == ["db", "db2", "db3"]
    assert planned.hosts["db"].switch == planned.switches["telecom"]
    assert len({planned.hosts[name].switch for name in planned.database_hosts}) == 3
    assert [(who.name, planned.hosts[who.name].ip == ip) for who, ip in planned.database_servers.items()] == [
        ("db", True), ("db2", True),
    ]  # fmt: skip
    parties = [(str(who.role), host) for who, host, _ in planned.identities() if who.role == "database"]
    assert parties == [("database", name) for name in planned.database_hosts]


def test_single_database_is_on_one_host(planned):
    """As ever."""
    assert planned.database_hosts == ["db"]
    assert list(planned.database_servers) == [plan.DATABASE]


def test_datacenter_that_is_called_like_a_host_of_the_database_is_refused():
    """In one line, and only where there are these hosts."""
    pair = load("pair", TOPOLOGIES)
    nodes = (pair.nodes[0], replace(pair.nodes[1], name="db2"))
    called = replace(pair, nodes=nodes, links=(), saes=(), controller_at=nodes[0].name, database_at=nodes[0].name)

    with pytest.raises(UserError, match="--database ha: db2 is a host of the database"):
        make_plan(called, HA)
    assert make_plan(called).database_hosts == ["db"]


def test_interface_names_fit_linux(planned):
    """Linux allows 15 characters."""
    ports = [h.port for h in planned.hosts.values()] + [p for x in planned.links for p in (x.port_a, x.port_b)]
    lines = [line[end] for line in plan.delay_lines(planned.links)["lines"] for end in "ab"]

    assert max(map(len, ports + lines)) <= 15


def test_fabric_says_each_cable_from_both_sides(planned):
    """The controller learns each link at both its ports, with the same delay, and each host once."""
    switches = planned.fabric()["switches"]
    ports = {
        (s["name"], p["interface"], p["peer_switch"], p["peer_interface"], p["delay_ms"])
        for s in switches for p in s["ports"]
    }  # fmt: skip

    assert ports == {(there, far, here, port, delay) for here, port, there, far, delay in ports}
    assert len(ports) == 2 * len(planned.links)
    assert sorted(h["ip"] for s in switches for h in s["hosts"]) == sorted(h.ip for h in planned.hosts.values())


def test_saes_get_random_uuids(planned):
    """Version 4, different in each run, but for those that the file fixes."""
    again = make_plan(planned.topology)

    fixed = {str(s.id) for s in planned.topology.saes if s.id}
    assert {uuid.UUID(s.id).version for s in planned.saes} == {4}
    assert {s.id for s in planned.saes} & {s.id for s in again.saes} == fixed


def test_node_accepts_its_configuration(planned, tmp_path):
    """What the plan writes is what the node reads; a QC is known to exactly the two nodes at its ends."""
    files = [tmp_path / name for name in ("cert", "key", "ca")]
    for file in files:
        file.touch()
    for pair in planned.qc_keys(tmp_path):
        share_qc_key(pair)
    configs = [
        node_config.parse(planned.node_config(n, tmp_path / n, Credentials(*files), database=AT))
        for n in planned.nodes
    ]

    ends = sorted((qc.qc, c.name, qc.peer) for c in configs for qc in c.qcs)
    assert ends == sorted(
        (qc.name, *pair) for link in planned.topology.links for qc in link.qcs
        for pair in ((link.a, link.b), (link.b, link.a))
    )  # fmt: skip


def test_ends_of_a_qc_share_a_key_that_no_other_qc_has(planned, tmp_path):
    """Nobody else may read it, and a second look for it changes nothing."""
    pairs = list(planned.qc_keys(tmp_path))
    for pair in (*pairs, *pairs):
        share_qc_key(pair)

    keys = [{path.read_bytes() for path in pair} for pair in pairs]
    assert [len(shared) for shared in keys] == [1] * len(pairs)
    assert len(set().union(*keys)) == len(pairs)
    assert not [path for pair in pairs for path in pair if path.stat().st_mode & 0o077]


@pytest.mark.parametrize(("content", "said"), [(None, "can be read"), (b"short", "32 bytes")])
def test_node_says_which_key_of_a_qc_is_wrong(planned, tmp_path, content, said):
    """One line that names the member and what was expected."""
    if content is not None:
        for pair in planned.qc_keys(tmp_path):
            for path in pair:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
    node, file = planned.nodes[0], tmp_path / "file"
    file.touch()
    document = planned.node_config(node, tmp_path / node, Credentials(*[file] * 3), database=AT)

    with pytest.raises(ValueError, match=rf"qcs\[0\]\.authentication_key.*{said}"):
        node_config.parse(document)


def test_sae_is_found_by_name_and_by_id(planned):
    """In any case of letters for the UUID."""
    sae = planned.saes[0]

    assert planned.sae(sae.name) == planned.sae(sae.id) == planned.sae(sae.id.upper()) == sae
    assert planned.sae("nobody") is None


@pytest.fixture
def with_stranger():
    """PoliQI, where alice, bob and carol are external."""
    return make_plan(load("poliqi", TOPOLOGIES))


def test_external_sae_is_known_to_every_node(with_stranger):
    """Under the ID that the file fixes, at the node that the file says."""
    alice = with_stranger.sae("alice")
    assert alice.external
    for node in with_stranger.nodes:
        config = with_stranger.node_config(node, Path(), Credentials(*[Path()] * 3), database=AT)
        assert config["saes"][alice.id] == "government"


def test_external_sae_gets_a_certificate(with_stranger):
    """Like every party, under the name that people know."""
    alice = with_stranger.sae("alice")

    assert (alice.identity, "government", "alice") in list(with_stranger.identities())


def test_our_applications_do_not_run_an_external_sae(with_stranger):
    """Neither is it one of theirs, nor a peer that they could reach; and it has no port."""
    credentials = {s.id: Credentials(*[Path()] * 3) for s in with_stranger.applications}
    config = with_stranger.sae_config("government", Path(), credentials, audit_secret="", habits={})

    names = {s["name"] for s in config["saes"]} | {p["name"] for p in config["peers"].values()}
    assert len(config["saes"]) == 3
    assert not names & {"alice", "bob", "carol"}
    assert with_stranger.sae("alice").port is None


def test_no_workload_has_an_external_sae(with_stranger):
    """Nobody answers for it, so no key session is drawn with one."""
    assert not [pair for pair in Pairs(with_stranger.saes) if pair[0].external or pair[1].external]
    assert len(with_stranger.applications) == 15


def test_external_sae_needs_no_name_but_its_id():
    """Then people call it by its ID."""
    network = load("poliqi", TOPOLOGIES)
    topology = replace(network, saes=(*network.saes, Sae(UUID, "finance", UUID, external=True)))

    found = make_plan(topology).sae(UUID.upper())
    assert (found.name, found.id, found.external) == (UUID, UUID, True)
