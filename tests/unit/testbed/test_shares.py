"""What of a network each machine builds, and what is taken off the fibres between machines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mtls.identity import Identity, Role
from scenario.machines import HOME, Machine
from scenario.shape import Shape
from scenario.topology import load
from testbed.planning import capacity
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan
from testbed.planning.shares import addresses, less_real, share_from_json, shares, too_short, whole

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"
MACHINES = (Machine("west", "west", ("finance", "university")), Machine("east", "east", ("military",)))


@pytest.fixture(scope="module")
def plan() -> Plan:
    """PoliQI on three machines."""
    return make_plan(replace(load("poliqi", TOPOLOGIES).with_overrides(delay_ms=5), machines=MACHINES))


def test_each_host_and_switch_is_built_on_one_machine(plan):
    """The hosts of controller and shared database at home."""
    found = shares(plan)

    assert [*found] == [HOME, "west", "east"]
    assert {*found["west"].hosts} == {"finance", "university"} == {*found["west"].switches}
    assert {*found["east"].hosts} == {"military"}
    assert {*found[HOME].hosts} == {"government", "telecom", "ctl", "db"}


def test_second_controller_stands_by_at_home():
    """Though the first datacenter without the other one and the database is elsewhere."""
    elsewhere = (Machine("west", "west", ("finance", "university", "military")),)
    topology = replace(load("poliqi", TOPOLOGIES).with_overrides(delay_ms=5), machines=elsewhere)

    assert {"ctl", "ctl2"} <= {*shares(make_plan(topology, standby=True))[HOME].hosts}


def test_fibre_is_built_on_one_machine_or_ends_on_two_by_the_same_vxlan(plan):
    """Each with a number of its own; one of the two shapes it, if a delay line does."""
    found = shares(plan)

    inner = {link.link.name: name for name, share in found.items() for link in share.links}
    assert inner == {"finance-university": "west"}
    ends = [(name, ending) for name, share in found.items() for ending in share.endings]
    vnis = {}
    for name, ending in ends:
        vnis.setdefault(ending.vni, []).append((name, ending.far, ending.shaped, ending.link.link.name))
    assert len(vnis) == 4
    for one, other in vnis.values():
        assert (one[0], one[3]) == (other[1], other[3])
        assert one[1] == other[0]
        assert one[2] != other[2]


def test_share_is_the_same_on_the_other_side_of_a_wire(plan):
    """As JSON."""
    for share in shares(plan).values():
        there = share_from_json(json.loads(json.dumps(share.to_json())))

        assert (there.hosts, there.switches, there.ports) == (share.hosts, share.switches, share.ports)
        assert [line.link.a_to_b for line in there.lines] == [line.link.a_to_b for line in share.lines]


def test_network_on_one_machine_is_all_of_it(plan):
    """With no end anywhere else."""
    alone = whole(plan)

    assert (len(alone.hosts), len(alone.links), alone.endings) == (7, 5, ())


def test_addresses_of_machines_are_none_that_hosts_have(plan):
    """Each its own, inside the transport."""
    found = addresses(plan)

    assert [*found] == [HOME, "west", "east"]
    assert len({*found.values()} | {host.ip for host in plan.hosts.values()}) == 10


def test_half_of_the_real_round_trip_is_taken_off_each_direction(plan):
    """Of the delay alone."""
    shaped = less_real(plan.links[0], 0.8)

    assert shaped.link.a_to_b == replace(plan.links[0].link.a_to_b, delay_ms=4.6)
    assert shaped.link.b_to_a.delay_ms == 4.6


def test_fibre_that_is_shorter_than_the_real_path_is_refused_in_one_line():
    """It says by how much, and what to do."""
    there, back = Shape(0.3), Shape(5)

    assert too_short("a-b", (back, back), ("home", "west"), 0.8) is None
    assert too_short("a-b", (there, back), ("home", "west"), 0.8) == (
        "fibre a-b has a delay of 0.3 ms, and the real path between home and west takes 0.4 ms: give it a longer delay"
        " (--delay), or place both its ends on one machine"
    )


def test_machines_are_parties_and_those_of_a_network_on_one_are_none(plan):
    """By certificates of their own, for QC blocks."""
    found = {identity for identity, _, _ in plan.identities() if identity.role == Role.MACHINE}

    assert found == {Identity(Role.MACHINE, name) for name in (HOME, "west", "east")}
    alone = make_plan(load("poliqi", TOPOLOGIES))
    assert not [identity for identity, _, _ in alone.identities() if identity.role == Role.MACHINE]


def test_home_needs_room_for_its_own_share_and_connections_for_all(plan):
    """Else ten machines would hold no more than one does."""
    alone, shared = capacity.needs(make_plan(replace(plan.topology, machines=()))), capacity.needs(plan)

    assert shared.memory_mb < alone.memory_mb
    assert shared.processes < alone.processes
    assert shared.connections == alone.connections
