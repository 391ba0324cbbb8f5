"""Where datacenters and the labels of fibres stand on the map, so that none covers another one or a fibre. PURE.

Datacenters begin where the topology has them, and make room for each other and for fibres (`settling`). Then each
fibre's label takes the first of some places beside its fibre that is free. That is tried at one scale after another,
from the largest on: where many share the map, everything is smaller. The scale is taken at which most can be read, by
its size, by the share of labels that found a place, and by how near datacenters are to where the topology has them. A
label that finds no place is left out; what it would say is among the facts of its fibre.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from testbed.dashboard.views.settling import Array, Room, nearness, settled, strangeness

Point = tuple[float, float]
Size = tuple[float, float]
Fibre = tuple[str, str, str]  # its name, and the datacenters at its ends

WIDTH, HEIGHT = 1200, 660
# On a map of more datacenters boxes bear names alone, and labels stand only at fibres of which there is much to say.
ROOMY = 14
_BOXES: Mapping[bool, Size] = {True: (212.0, 62.0), False: (184.0, 36.0)}
_LABELS: Mapping[bool, Size] = {True: (168.0, 30.0), False: (112.0, 26.0)}
_LETTER, _MARGIN, _NARROWEST = 16.5, 18.0, 70.0  # of a title in a box that bears nothing else
FIBRE = 27.0  # how broad one is with the border of a path, at scale 1
_EDGE = 6.0
_GAP = 24.0
_SCALES = (1.3, 1.15, 1.0, 0.88, 0.76, 0.66, 0.58, 0.5, 0.44, 0.38, 0.33, 0.28, 0.24, 0.2, 0.17, 0.15)
_APART = 1.1  # boxes keep as far apart as if they were so much larger: labels are to stand between them
# How much places that are crowded are stretched, at the cost of those where there is little.
_STRETCHES = (0.0, 0.4, 0.8)
_MOST_COVERED = 0.25  # of the map by boxes: fuller ones come to no rest
_FAR = 200.0  # so far from where they should be datacenters make a map worth little
_ALONG = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7, 0.25, 0.75, 0.2, 0.8)
_AWAY = (1.0, 1.5, 2.5, 4.0)  # from a fibre, in what is needed


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of datacenters and of labels, by name, at that scale. `labels` lacks those that found no place."""

    scale: float
    roomy: bool
    box: Size  # width and height of a datacenter's box, at scale 1
    nodes: Mapping[str, Point]
    labels: Mapping[str, Point]

    @property
    def label(self) -> Size:
        """Width and height of a fibre's label, at scale 1."""
        return _LABELS[self.roomy]


@functools.lru_cache(maxsize=16)
def lay_out(nodes: tuple[tuple[str, Point], ...], fibres: tuple[Fibre, ...], letters: int) -> Layout:
    """The map of `nodes`, by their positions (0 to 1, to the right and upwards), and of the fibres between them.

    `letters`: of the longest title.
    """
    roomy = len(nodes) <= ROOMY
    width, height = _BOXES[roomy]
    box = (width if roomy else min(width, max(_NARROWEST, _LETTER * letters + _MARGIN)), height)
    best, most = Layout(_SCALES[-1], roomy, box, _named(nodes, _homes(nodes, _scaled(box, _SCALES[-1]), 0.0)), {}), 0.0
    for scale, stretch in itertools.product(_SCALES, _STRETCHES):
        if scale <= most:
            break  # with all labels and nobody away from home it would be no better
        size = _scaled(box, scale * _APART)
        if len(nodes) * size[0] * size[1] > _MOST_COVERED * WIDTH * HEIGHT:
            continue
        homes = _homes(nodes, size, stretch)
        at = settled(homes, _room(nodes, fibres, size, scale))
        if at is None:
            continue
        found = Layout(scale, roomy, box, _named(nodes, at), {})
        found = replace(found, labels=_labelled(found, fibres))
        labelled = len(found.labels) / max(1, len(fibres))
        away = strangeness(at, (homes + _homes(nodes, size, 0.0)) / 2)
        worth = scale * (1 + labelled) / 2 * math.exp(-((away / _FAR) ** 2))
        if worth > most:
            best, most = found, worth
    return best


def _scaled(size: Size, scale: float) -> Size:
    return size[0] * scale, size[1] * scale


def _homes(nodes: Sequence[tuple[str, Point]], size: Size, stretch: float) -> Array:
    """Where the topology has them, spread over the map.

    `stretch`: from 0, as they are, to 1, at equal distances to the right and downwards. Their order stays, and what
    lies side by side.
    """
    margin = np.array(size) / 2 + 2 * _EDGE
    places = np.array([(x, 1 - y) for _, (x, y) in nodes])
    orders = [np.unique(along, return_inverse=True)[1] for along in places.T]
    ranks = np.stack([order / max(1, order.max()) for order in orders], axis=1)
    found: Array = margin + (places + stretch * (ranks - places)) * (np.array((WIDTH, HEIGHT)) - 2 * margin)
    return found


def _named(nodes: Sequence[tuple[str, Point]], at: Array) -> dict[str, Point]:
    return {name: (float(x), float(y)) for (name, _), (x, y) in zip(nodes, at, strict=True)}


def _room(nodes: Sequence[tuple[str, Point]], fibres: Sequence[Fibre], size: Size, scale: float) -> Room:
    index = {name: i for i, (name, _) in enumerate(nodes)}
    ends = np.array([(index[a], index[b]) for _, a, b in fibres], dtype=int).reshape(-1, 2)
    edge = np.array((_EDGE, _EDGE))
    return Room(np.array(size), _GAP * scale, FIBRE / 2 * scale, ends, edge, np.array((WIDTH, HEIGHT)) - edge)


def _labelled(layout: Layout, fibres: Sequence[Fibre]) -> dict[str, Point]:
    """Places of labels, each nearer to its fibre than to others. Short ones have the least choice: they begin."""
    size, scale = np.array(_scaled(layout.label, layout.scale)), layout.scale
    boxes, box = np.array(list(layout.nodes.values())), np.array(_scaled(layout.box, scale))
    lines = np.array([(layout.nodes[a], layout.nodes[b]) for _, a, b in fibres]).reshape(-1, 2, 2)
    taken = np.empty((0, 2))
    found: dict[str, Point] = {}
    for line in np.argsort(np.hypot(*(lines[:, 1] - lines[:, 0]).T), kind="stable"):
        a, b = lines[line]
        at, away = _candidates(a, b, size, (FIBRE / 2 + 1) * scale)
        others = lines[(lines != lines[line]).any(axis=(1, 2)) & (lines != lines[line, ::-1]).any(axis=(1, 2))]
        half = size / 2 + away[:, None]
        near = nearness(at[:, None], others[None, :, 0], others[None, :, 1], half[:, None]) < 1
        inside = ((at >= size / 2 + _EDGE) & (at <= np.array((WIDTH, HEIGHT)) - size / 2 - _EDGE)).all(axis=1)
        free = inside & ~near.any(axis=1) & ~_touch(at, boxes, (size + box) / 2) & ~_touch(at, taken, size)
        if free.any():
            place = at[np.argmax(free)]
            taken = np.vstack([taken, place])
            found[fibres[line][0]] = float(place[0]), float(place[1])
    return found


def _touch(at: Array, others: Array, apart: Array) -> npt.NDArray[np.bool_]:
    """Of each place, whether one of the others is not so far off, and some points more."""
    off = (np.abs(at[:, None] - others[None]) / (apart + 3.0)).max(axis=2)
    return np.asarray(off.min(axis=1, initial=np.inf) < 1)


def _candidates(a: Array, b: Array, size: Array, gap: float) -> tuple[Array, Array]:
    """Places of a label, and how far it is off its fibre there.

    First those on the side away from the middle of the map, of these the near ones, then those beside its middle.
    """
    across = np.array((a[1] - b[1], b[0] - a[0])) / (math.dist(a, b) or 1.0)
    outward = 1 if across @ ((a + b) / 2 - np.array((WIDTH, HEIGHT)) / 2) >= 0 else -1
    choices = np.array(list(itertools.product((outward, -outward), _AWAY, _ALONG)))
    away = choices[:, 1] * gap
    off = choices[:, 0] * (np.abs(across) @ size / 2 + away)
    return a + choices[:, 2:] * (b - a) + off[:, None] * across, away
