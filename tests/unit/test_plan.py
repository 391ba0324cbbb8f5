"""From a topology to addresses, ports and configurations."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mtls.credentials import Credentials
from node import config as node_config
from testbed import plan
from testbed.topology import load

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


@pytest.fixture(params=["pair", "poliqi", "nsfnet"])
def planned(request):
    """The plan of each network that we ship."""
    return plan.make_plan(load(request.param, TOPOLOGIES))


def test_addresses_are_distinct(planned):
    """No two hosts share an IP or a MAC address, no two cables a switch port, no two SAEs an address."""
    hosts = list(planned.hosts.values())
    ports = [h.port for h in hosts] + [p for link in planned.links for p in (link.port_a, link.port_b)]

    for values in ([h.ip for h in hosts], [h.mac for h in hosts], ports, [(s.node, s.port) for s in planned.saes]):
        assert len(values) == len(set(values))


def test_interface_names_fit_linux(planned):
    """Linux allows 15 characters."""
    ports = [h.port for h in planned.hosts.values()] + [p for x in planned.links for p in (x.port_a, x.port_b)]
    lines = [line[end] for line in planned.delay_line_config()["lines"] for end in "ab"]

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
    """Version 4, different in each run."""
    again = plan.make_plan(planned.topology)

    assert {uuid.UUID(s.id).version for s in planned.saes} == {4}
    assert not {s.id for s in planned.saes} & {s.id for s in again.saes}


def test_node_accepts_its_configuration(planned, tmp_path):
    """What the plan writes is what the node reads; a QC is known to exactly the two nodes at its ends."""
    files = [tmp_path / name for name in ("cert", "key", "ca")]
    for file in files:
        file.touch()
    configs = [
        node_config.parse(planned.node_config(n, tmp_path, Credentials(*files), database_url="x", schema="qkd"))
        for n in planned.nodes
    ]

    ends = sorted((qc.qc, c.name, qc.peer) for c in configs for qc in c.qcs)
    assert ends == sorted(
        (qc.name, *pair) for link in planned.topology.links for qc in link.qcs
        for pair in ((link.a, link.b), (link.b, link.a))
    )  # fmt: skip


def test_sae_is_found_by_name_and_by_id(planned):
    """In any case of letters for the UUID."""
    sae = planned.saes[0]

    assert planned.sae(sae.name) == planned.sae(sae.id) == planned.sae(sae.id.upper()) == sae
    assert planned.sae("nobody") is None
