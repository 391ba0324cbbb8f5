"""Faults: which are possible in a network, what they name, and which QCs they silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenario.topology import load
from testbed.errors import UserError
from testbed.network.faults import broken_qcs, check, intercepted_qcs, silent_qcs
from testbed.planning.databases import HA
from testbed.planning.fault import Fault
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"


@pytest.fixture(scope="module")
def poliqi() -> Plan:
    """The plan of PoliQI."""
    return make_plan(load("poliqi", TOPOLOGIES))


@pytest.fixture(scope="module")
def replicated() -> Plan:
    """The same with a database that fails over."""
    return make_plan(load("poliqi", TOPOLOGIES), HA)


@pytest.mark.parametrize(
    ("given", "where"),
    [(("cut", "military", "government"), ("government", "military")), (("node", "finance"), ("finance",)),
     (("qc", "telecom", "finance"), ("telecom", "finance")), (("pause", "finance"), ("finance",)),
     (("device", "finance", "telecom"), ("telecom", "finance")),
     (("eve", "finance", "telecom"), ("telecom", "finance")),
     (("eve", "telecom", "finance", "0.3"), ("telecom", "finance")),
     (("database",), ()), (("standby",), ()), (("controller",), ()), (("controller", "primary"), ()),
     (("pause", "ctl"), ("ctl",)), (("partition", "db"), ("db",))],
)  # fmt: skip
def test_fault_names_datacenters_in_either_order(poliqi, given, where):
    """One name for one fibre."""
    assert check(poliqi, given[0], given[1:]) == where


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("flood",), "fault flood: expected one of cut, qc, device, eve, node, pause, database, standby, partition, "),
        (("eve", "government"), "fault eve: expected two datacenters after it"),
        (("eve", "telecom", "finance", "2"), "fault eve: expected two datacenters and a fraction above 0 and up to 1"),
        (("eve", "telecom", "finance", "0"), "fault eve: expected two datacenters and a fraction above 0 and up to 1"),
        (("eve", "telecom", "finance", "x"), "fault eve: expected two datacenters and a fraction above 0 and up to 1"),
        (("cut", "government"), "fault cut: expected two datacenters after it"),
        (("node",), "fault node: expected a datacenter after it"),
        (("database", "now"), "fault database: expected nothing after it"),
        (("controller", "finance"), "fault controller: expected one of primary, standby, ctl after it, or nothing"),
        (("controller", "standby"), "fault controller: there is one controller: 'run.py --controller ha' has another"),
        (("partition",), "fault partition: expected a host of the database after it: db"),
        (("partition", "db2"), "fault partition: expected a host of the database after it: db"),
        (("node", "milan"), "fault node: no datacenter 'milan': expected one of government, military, telecom,"),
        (("qc", "government", "telecom"), "no fibre between government and telecom: there are government-military,"),
        (("cut", "government", "government"), "no fibre between government and government"),
    ],
)
def test_impossible_fault_is_one_line_that_says_what_is_possible(poliqi, given, said):
    """UserError."""
    with pytest.raises(UserError) as error:
        check(poliqi, given[0], given[1:])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [(), ("primary",), ("standby",), ("ctl",), ("ctl2",)])
def test_fault_names_one_of_two_controllers(poliqi, words):
    """By what it is, or by its name."""
    two = make_plan(poliqi.topology, standby=True)

    assert check(two, "controller", words) == words
    assert check(two, "pause", ("ctl2",)) == ("ctl2",)


@pytest.mark.parametrize(("given", "where"), [((), ()), (("db",), ("db",)), (("db3",), ("db3",))])
def test_fault_of_a_database_that_fails_over_names_a_host(replicated, given, where):
    """Or none, which means the one that takes writes."""
    assert check(replicated, "database", given) == where


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("database", "db4"), "fault database: expected nothing, or a host of the database after it: db, db2, db3"),
        (("database", "db", "db2"), "fault database: expected nothing, or a host of the database after it"),
        (("partition", "telecom"), "fault partition: expected a host of the database after it: db, db2, db3"),
        (("standby",), "fault standby: the database has a standby, which takes over by itself: 'qkd fault database'"),
    ],
)
def test_impossible_fault_of_a_database_that_fails_over_is_one_line(replicated, given, said):
    """UserError."""
    with pytest.raises(UserError) as error:
        check(replicated, given[0], given[1:])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_qcs_of_cut_fibres_and_failed_ones_make_nothing(poliqi):
    """A QC that two faults break is broken as long as one of them lasts."""
    cut, failed = Fault("cut", ("government", "military"), 1.0), Fault("qc", ("government", "military"), 2.0)
    node, other = Fault("node", ("telecom",), 3.0), Fault("qc", ("telecom", "finance"), 4.0)

    assert broken_qcs(poliqi, [cut, failed, node]) == {"government-military/1"}
    assert broken_qcs(poliqi, [failed, other]) == {"government-military/1", "telecom-finance/1"}
    assert broken_qcs(poliqi, [node]) == set()
    device = Fault("device", ("telecom", "finance"), 5.0)
    assert broken_qcs(poliqi, [failed, device]) == {"government-military/1", "telecom-finance/1"}
    assert silent_qcs(poliqi, [cut, failed, device]) == {"telecom-finance/1"}
    assert other.name == "qc telecom finance"


def test_eavesdropper_is_on_the_qcs_of_her_fibre(poliqi):
    """With her share of the pulses; they make something all the same."""
    eve = Fault("eve", ("telecom", "finance"), 1.0, fraction=0.3)

    assert intercepted_qcs(poliqi, [eve, Fault("qc", ("government", "military"), 2.0)]) == {"telecom-finance/1": 0.3}
    assert broken_qcs(poliqi, [eve]) == set()
    assert eve.name == "eve telecom finance 0.3"


def test_light_past_two_eavesdroppers_is_intercepted_by_both():
    """Each has her fibre; the second one meets what the first one has sent again."""
    bypass = make_plan(load("poliqi-bypass", TOPOLOGIES))
    eves = [Fault("eve", pair, 1.0, fraction=0.1) for pair in (("government", "military"), ("military", "telecom"))]

    assert intercepted_qcs(bypass, eves)["government~telecom/1"] == pytest.approx(0.195)
