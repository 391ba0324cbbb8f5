"""Optical bypass against trusted relays: the crossover, the planner on networks known by hand, and the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from decisions.choice import BOTH, BYPASS, RELAY
from scenario.qc_document import shipped
from scenario.shape import Shape
from scenario.switched import Optics, with_switched
from scenario.topology import load
from scenario.topology_description import Link, Node, Sae, Topology
from testbed.experiments import bypass
from testbed.experiments.bypass import Case, Outcome, crossover_db, optical, outcome
from testbed.experiments.planner.lighting import best_lit, best_one_by_one

TOPOLOGIES = Path(__file__).resolve().parents[4] / "topologies"


def line(modules: dict[str, int], channels: int = 2) -> Topology:
    """a-b-c, 1 dB a fibre, with so many modules and no QC that is always lit."""
    links = tuple(Link(f, f[0], f[1], None, Shape(0.0), Shape(0.0), (), 1.0) for f in ("ab", "bc"))
    nodes = tuple(Node(name, name, (0, 0), modules[name]) for name in "abc")
    saes = tuple(Sae(name.upper(), name) for name in "abc")
    found = Topology("line", "", nodes, links, saes, "a", "a")
    return with_switched(found, Optics(shipped()["gys"], 1.0, 1, channels, 1, 0.0))


@pytest.mark.parametrize("device", sorted(shipped()))
@pytest.mark.parametrize("fibre_db", [1.0, 3.0, 5.0])
def test_bypass_of_one_node_makes_no_more_a_module_than_a_relay_from_3_db_of_added_loss_on(device, fibre_db):
    """Half of the light, half of the key, half of the modules: as Zhang and others report, within 0.3 dB."""
    assert crossover_db(shipped()[device], fibre_db) == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize(
    ("modules", "best"),
    [
        ({"a": 1, "b": 1, "c": 1}, 1),  # one QC, which carries one session
        ({"a": 1, "b": 0, "c": 1}, 1),  # past b
        ({"a": 1, "b": 2, "c": 1}, 1),  # over b
        ({"a": 2, "b": 2, "c": 2}, 2),  # past b, and over b
        ({"a": 1, "b": 1, "c": 0}, 0),
    ],
)
def test_planner_lights_what_modules_allow(modules, best):
    """Two sessions between a and c, where a QC carries one."""
    assert best_lit(line(modules), [("a", "c"), ("c", "a")], lambda _: 1) == (best, True)


def test_planner_takes_no_more_channels_than_there_are():
    """A bypass and a relay would need two of each fibre."""
    assert best_lit(line({"a": 2, "b": 2, "c": 2}, channels=1), [("a", "c")] * 2, lambda _: 1) == (1, True)


def test_planner_knows_how_many_sessions_a_qc_carries():
    """Those between neighbours come first, where relays would take two QCs each."""
    pairs = [("a", "b")] * 2 + [("a", "c")] * 2

    assert best_lit(line({"a": 1, "b": 2, "c": 1}), pairs, lambda one: 0 if one.past else 2) == (2, True)


def test_planner_that_does_not_know_who_will_come_takes_whom_it_can_and_leads_others_another_way_for_it():
    """Of three sessions the first takes the place of the two others; the second one of two goes over b, if need be."""
    room, modules = (lambda one: 0 if one.past else 1), {"a": 1, "b": 2, "c": 1}
    pairs = [("a", "c"), ("a", "b"), ("b", "c")]
    assert best_lit(line(modules), pairs, room) == (2, True)
    assert best_one_by_one(line(modules), pairs, room) == 1
    assert best_one_by_one(line(modules), pairs[::-1], room) == 2

    two = line({"a": 2, "b": 2, "c": 2})
    assert best_one_by_one(two, [("a", "c"), ("a", "b")], lambda _: 1) == 2
    assert best_one_by_one(two, [("c", "a"), ("c", "a"), ("c", "a")], lambda _: 1) == 2


def test_with_one_module_each_bypass_carries_what_relays_cannot():
    """No node has two modules, so that none is a relay."""
    networks = {"nsfnet": load("nsfnet", TOPOLOGIES)}

    found = outcome(Case("nsfnet", 1, 0), networks)

    assert found.accepted[BYPASS] > found.accepted[RELAY]
    assert found.accepted[BOTH] == found.accepted[BYPASS]
    assert not any(found.broken.values())


def test_with_many_modules_relays_carry_more_and_both_carry_most():
    """Channels are what is short."""
    networks = {"nsfnet": load("nsfnet", TOPOLOGIES)}

    found = outcome(Case("nsfnet", 8, 0), networks)

    assert found.accepted[BOTH] >= found.accepted[RELAY] > found.accepted[BYPASS]


def test_planner_accepts_as_many_as_any_mechanism_at_least():
    """It knows all of them beforehand."""
    found = outcome(Case("poliqi", 2, 1), {"poliqi": load("poliqi", TOPOLOGIES)})

    assert found.best is not None
    assert found.one_by_one is not None
    assert found.best >= max(found.one_by_one, *found.accepted.values())


def test_loss_of_fibres_follows_their_length_with_the_mean_that_is_asked_for():
    """None has a QC that is always lit."""
    found = optical(load("poliqi", TOPOLOGIES), 3, 1.5)

    losses = [link.loss_db or 0.0 for link in found.links]
    assert sum(losses) / len(losses) == pytest.approx(1.5)
    assert losses[1] / losses[0] == pytest.approx(14.6 / 8.4)
    assert not any(link.qcs for link in found.links)
    assert {node.modules for node in found.nodes} == {3}


def test_table_says_how_far_both_stay_behind_the_planner():
    """As a share of what it accepts."""
    one = Outcome(Case("poliqi", 1, 0), 20, {BYPASS: 6, RELAY: 5, BOTH: 6}, dict.fromkeys((BYPASS, RELAY, BOTH), 0), 8,
                  7)  # fmt: skip

    text = bypass.in_words([one, replace(one, best=12)])

    assert "0.300 ±0.000  0.250 ±0.000  0.300 ±0.000  40.0 %                30.0 %" in text
