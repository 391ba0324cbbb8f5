"""The map's layout: nothing covers anything, on every network that ships and on a large one."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenario.topology import load
from testbed.dashboard.views.layout import HEIGHT, WIDTH, Layout, lay_out
from testbed.dashboard.views.settling import nearness
from testbed.dashboard.views.view_map import curve
from tests.support.maps import Rect, crowded

TOPOLOGIES = Path(__file__).resolve().parents[4] / "topologies"
SHIPPED = sorted(path.stem for path in TOPOLOGIES.glob("*.yaml"))


def network(name: str) -> tuple:
    """Its datacenters with their positions, its fibres, and the letters of its longest title."""
    topology = load(name, TOPOLOGIES)
    nodes = tuple((node.name, node.position) for node in topology.nodes)
    fibres = tuple((link.name, link.a, link.b) for link in topology.links)
    return nodes, fibres, max(len(node.title) for node in topology.nodes)


def large(number: int) -> tuple:
    """Datacenters at random, each joined to its two nearest ones, as they lie in real networks."""
    chance = random.Random(number)
    at = {f"n{i}": (chance.random(), chance.random()) for i in range(number)}
    pairs = {
        tuple(sorted((name, other)))
        for name in at
        for other in sorted(at, key=lambda o, here=at[name]: math.dist(here, at[o]))[1:3]
    }
    return tuple(at.items()), tuple((f"{a}-{b}", a, b) for a, b in sorted(pairs)), 12


def rects(at: Iterable[tuple[str, tuple]], size: tuple[float, float], scale: float) -> dict[str, Rect]:
    """As they are drawn."""
    return {name: Rect(*place, size[0] * scale / 2, size[1] * scale / 2) for name, place in at}


def covered(found: Layout, fibres: tuple) -> list[str]:
    """What covers what; fibres as broad as with the border that marks a path."""
    boxes = rects(found.nodes.items(), found.box, found.scale)
    labels = rects(found.labels.items(), found.label, found.scale)
    wrong = [f"{a} on {b}" for (a, one), (b, two) in itertools.combinations([*boxes.items(), *labels.items()], 2)
             if one.overlaps(two)]  # fmt: skip
    for name, a, b in fibres:
        tube = found.nodes[a], found.nodes[b], 13.5 * found.scale
        wrong += [f"{box} on fibre {name}" for box, at in boxes.items() if box not in (a, b) and at.is_crossed(*tube)]
        wrong += [f"label {label} on fibre {name}" for label, at in labels.items() if at.is_crossed(*tube)]
    return wrong + [f"{name} outside" for name, at in {**boxes, **labels}.items() if not at.is_inside(WIDTH, HEIGHT)]


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_covers_anything_on_networks_that_ship(name):
    nodes, fibres, letters = network(name)
    found = lay_out(nodes, fibres, letters)

    assert covered(found, fibres) == []


@pytest.mark.parametrize("name", ["pair", "poliqi", "poliqi-bypass"])
def test_an_arc_between_any_two_datacenters_runs_behind_no_third_one(name):
    """A tunnel on one side of the straight way, light on the other. On a full map there may be no such way."""
    nodes, fibres, letters = network(name)
    found = lay_out(nodes, fibres, letters)
    boxes = rects(found.nodes.items(), found.box, found.scale)

    hidden = [
        f"{ends} behind {box}" for ends in itertools.combinations(found.nodes, 2) for bulge in (0.16, -0.16)
        for box in boxes.keys() - {*ends} if boxes[box].has_any(drawn(curve(found, ends, bulge)))
    ]  # fmt: skip
    assert hidden == []


def drawn(path: str) -> list[tuple[float, float]]:
    """Points of a quadratic curve of SVG, close together."""
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, pair)) for pair in re.findall(r"(-?\d+) (-?\d+)", path))
    way = [i / 200 for i in range(201)]
    return [
        ((1 - u) ** 2 * x0 + 2 * u * (1 - u) * x1 + u**2 * x2, (1 - u) ** 2 * y0 + 2 * u * (1 - u) * y1 + u**2 * y2)
        for u in way
    ]


@pytest.mark.parametrize("name", ["pair", "poliqi", "secoqc"])
def test_every_fibre_of_a_small_network_has_its_label(name):
    nodes, fibres, letters = network(name)

    assert set(lay_out(nodes, fibres, letters).labels) == {fibre for fibre, *_ in fibres}


@pytest.mark.parametrize(("name", "least"), [("poliqi", 1.2), ("nsfnet", 0.66), ("usnet", 0.8)])
def test_letters_are_large_enough_to_read(name, least):
    nodes, fibres, letters = network(name)

    assert lay_out(nodes, fibres, letters).scale >= least


@pytest.mark.parametrize("number", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_covers_anything_on_a_large_network(number):
    nodes, fibres, letters = large(number)
    found = lay_out(nodes, fibres, letters)

    assert covered(found, fibres) == []
    assert len(found.labels) > 0.5 * len(fibres)


@pytest.mark.parametrize("number", [30, pytest.param(40, marks=pytest.mark.slow)])
def test_crowded_network_is_drawn_in_letters_that_can_be_read(number):
    """Nothing covers anything there either; its boxes need no more room than their short titles."""
    nodes, fibres, letters = crowded(number)
    found = lay_out(nodes, fibres, letters)

    assert covered(found, fibres) == []
    assert found.scale >= 0.5


def test_order_from_west_to_east_and_from_north_to_south_is_kept_by_and_large():
    """A map of a country that one knows is not to surprise."""
    nodes, fibres, letters = network("nsfnet")
    found = lay_out(nodes, fibres, letters).nodes

    for axis, sign in ((0, 1), (1, -1)):
        pairs = [(a, b) for (a, one), (b, two) in itertools.permutations(nodes, 2) if one[axis] + 0.1 < two[axis]]
        kept = [sign * found[a][axis] < sign * found[b][axis] for a, b in pairs]
        assert sum(kept) > 0.9 * len(kept)


def test_label_is_nearer_to_its_fibre_than_to_any_other():
    """So that nobody reads it as another one's."""
    nodes, fibres, letters = network("cost239")
    found = lay_out(nodes, fibres, letters)
    half = np.array(found.label) * found.scale / 2

    def off(label: str, a: str, b: str) -> float:
        margins = (m for m in range(1, 200) if nearness(*map(np.array, (found.labels[label], found.nodes[a],
                   found.nodes[b])), half + m) < 1)  # fmt: skip
        return next(margins, math.inf)

    ends = {name: (a, b) for name, a, b in fibres}
    assert found.labels
    for label in found.labels:
        assert all(off(label, *ends[label]) <= off(label, a, b) for name, a, b in fibres if name != label), label


def test_same_network_is_drawn_the_same_again():
    network_ = network("usnet")
    found = lay_out(*network_)
    lay_out.cache_clear()

    assert lay_out(*network_) == found


POINTS = st.tuples(*[st.floats(-50, 50, allow_nan=False)] * 2)


@given(POINTS, POINTS, POINTS, st.floats(1, 20), st.floats(1, 20))
def test_line_that_is_sampled_inside_a_rectangle_comes_near_its_middle(a, b, centre, width, height):
    steps = np.linspace(0, 1, 50)[:, None]
    points = np.array(a) + steps * (np.array(b) - np.array(a))
    sampled = (np.abs(points - centre) < (width - 1e-6, height - 1e-6)).all(axis=1).any()

    if sampled:
        assert nearness(*map(np.array, (centre, a, b)), np.array((width, height))) < 1


@given(POINTS, POINTS, POINTS, st.floats(1, 20), st.floats(1, 20))
def test_line_that_comes_nowhere_near_a_larger_rectangle_passes_it(a, b, centre, width, height):
    steps = np.linspace(0, 1, 400)[:, None]
    points = np.array(a) + steps * (np.array(b) - np.array(a))
    sampled = (np.abs(points - centre) < (width + 1, height + 1)).all(axis=1).any()

    if not sampled:
        assert nearness(*map(np.array, (centre, a, b)), np.array((width, height))) >= 1
