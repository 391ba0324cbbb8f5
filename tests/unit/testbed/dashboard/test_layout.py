"""The map's layout: nothing covers anything, on every network that ships and on a large one."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenario.topology import load
from testbed.dashboard.views.layout import Layout, Rect, lay_out

TOPOLOGIES = Path(__file__).resolve().parents[4] / "topologies"
SHIPPED = sorted(path.stem for path in TOPOLOGIES.glob("*.yaml"))


def network(name: str) -> tuple:
    """Its datacenters with their positions, and its fibres."""
    topology = load(name, TOPOLOGIES)
    nodes = tuple((node.name, node.position) for node in topology.nodes)
    return nodes, tuple((link.name, link.a, link.b) for link in topology.links)


def large(number: int) -> tuple:
    """Datacenters at random, each joined to its two nearest ones, as they lie in real networks."""
    chance = random.Random(number)
    at = {f"n{i}": (chance.random(), chance.random()) for i in range(number)}
    pairs = {
        tuple(sorted((name, other)))
        for name in at
        for other in sorted(at, key=lambda o, here=at[name]: math.dist(here, at[o]))[1:3]
    }
    return tuple(at.items()), tuple((f"{a}-{b}", a, b) for a, b in sorted(pairs))


def covered(found: Layout, fibres: tuple) -> list[str]:
    """What covers what."""
    boxes, labels = found.boxes(), found.label_boxes()
    wrong = [f"{a} on {b}" for (a, one), (b, two) in itertools.combinations([*boxes.items(), *labels.items()], 2)
             if one.overlaps(two)]  # fmt: skip
    for name, a, b in fibres:
        ends = found.nodes[a], found.nodes[b]
        wrong += [f"{box} on fibre {name}" for box, at in boxes.items() if box not in (a, b) and at.is_crossed(*ends)]
        wrong += [f"label {label} on fibre {name}" for label, at in labels.items() if at.is_crossed(*ends)]
    return wrong + [f"{name} outside" for name, at in {**boxes, **labels}.items() if not at.is_inside()]


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_covers_anything_on_networks_that_ship(name):
    nodes, fibres = network(name)
    found = lay_out(nodes, fibres)

    assert covered(found, fibres) == []


@pytest.mark.parametrize("name", ["pair", "poliqi", "secoqc"])
def test_every_fibre_of_a_small_network_has_its_label(name):
    nodes, fibres = network(name)

    assert set(lay_out(nodes, fibres).labels) == {fibre for fibre, *_ in fibres}


@pytest.mark.parametrize(("name", "least"), [("poliqi", 0.84), ("nsfnet", 0.5), ("usnet", 0.5)])
def test_letters_are_large_enough_to_read(name, least):
    nodes, fibres = network(name)

    assert lay_out(nodes, fibres).scale >= least


@pytest.mark.parametrize("number", [40, 100])
def test_nothing_covers_anything_on_a_large_network(number):
    nodes, fibres = large(number)
    found = lay_out(nodes, fibres)

    assert covered(found, fibres) == []
    assert len(found.labels) > 0.7 * len(fibres)


def test_same_network_is_drawn_the_same_again():
    nodes, fibres = network("usnet")
    found = lay_out(nodes, fibres)
    lay_out.cache_clear()

    assert lay_out(nodes, fibres) == found


POINTS = st.tuples(*[st.floats(-50, 50, allow_nan=False)] * 2)


@given(POINTS, POINTS, POINTS, st.floats(1, 40), st.floats(1, 40))
def test_line_that_is_sampled_inside_a_rectangle_crosses_it(a, b, centre, width, height):
    rect = Rect(*centre, width, height)
    inside = [
        t for t in (n / 50 for n in range(1, 50))
        if abs(a[0] + t * (b[0] - a[0]) - rect.x) < width / 2 - 1e-6
        and abs(a[1] + t * (b[1] - a[1]) - rect.y) < height / 2 - 1e-6
    ]  # fmt: skip

    if inside:
        assert rect.is_crossed(a, b)
