"""Where datacenters and the labels of fibres stand on the map, so that none covers another one or a fibre. PURE.

Datacenters begin where the topology has them. Boxes that overlap push each other apart, and a fibre pushes away a box
that it does not end at, until all is free or nothing moves any more. Then each fibre's label takes the first of some
places beside its fibre that is free. That is tried at one scale after another, from the largest on: where many share
the map, everything is smaller. The scale is taken at which most can be read, by its size and by the share of labels
that found a place. A label that finds none is left out; what it would say is among the facts of its fibre.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Size = tuple[float, float]
Fibre = tuple[str, str, str]  # its name, and the datacenters at its ends
_Array = npt.NDArray[np.float64]

WIDTH, HEIGHT = 1200, 660
# On a map of more datacenters boxes bear names alone, and labels stand only at fibres of which there is much to say.
ROOMY = 14
_BOXES: Mapping[bool, Size] = {True: (212.0, 62.0), False: (184.0, 36.0)}
_LABELS: Mapping[bool, Size] = {True: (168.0, 30.0), False: (112.0, 26.0)}
FIBRE = 16.0  # how broad one is, at scale 1
_EDGE = 6.0
_GAP = 14.0
_SCALES = (1.0, 0.92, 0.84, 0.76, 0.7, 0.64, 0.58, 0.52, 0.46, 0.4, 0.35, 0.3, 0.26, 0.22, 0.18, 0.15)
# Boxes keep as far apart as if they were so much larger, if they can: labels are to stand between them.
_ROOMS = (1.3, 1.0)
_MOST_COVERED = 0.25  # of the map by boxes: fuller ones come to no rest
_ROUNDS, _LONGEST_STEP = 150, 30.0
_ALONG = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7, 0.25, 0.75, 0.2, 0.8)
_AWAY = (1.0, 1.2, 1.5, 2.0, 2.5)


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle by its centre."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Rect, gap: float = 0.0) -> bool:
        """Whether the two are nearer to one another than `gap`."""
        return (
            abs(self.x - other.x) * 2 < self.width + other.width + 2 * gap
            and abs(self.y - other.y) * 2 < self.height + other.height + 2 * gap
        )

    def is_crossed(self, a: Point, b: Point, gap: float = 0.0) -> bool:
        """Whether the line from `a` to `b` comes nearer than `gap`."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        first, last = 0.0, 1.0
        half_width, half_height = self.width / 2 + gap, self.height / 2 + gap
        for step, room in (
            (-dx, a[0] - self.x + half_width), (dx, self.x + half_width - a[0]),
            (-dy, a[1] - self.y + half_height), (dy, self.y + half_height - a[1]),
        ):  # fmt: skip
            if step == 0:
                if room <= 0:
                    return False
            elif step < 0:
                first = max(first, room / step)
            else:
                last = min(last, room / step)
        return first < last

    def is_inside(self) -> bool:
        """Whether all of it is on the map."""
        return (
            self.width / 2 + _EDGE <= self.x <= WIDTH - self.width / 2 - _EDGE
            and self.height / 2 + _EDGE <= self.y <= HEIGHT - self.height / 2 - _EDGE
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of datacenters and of labels, by name, at that scale. `labels` lacks those that found no place."""

    scale: float
    roomy: bool
    nodes: Mapping[str, Point]
    labels: Mapping[str, Point]

    @property
    def box(self) -> Size:
        """Width and height of a datacenter's box, at scale 1."""
        return _BOXES[self.roomy]

    @property
    def label(self) -> Size:
        """Width and height of a fibre's label, at scale 1."""
        return _LABELS[self.roomy]

    def boxes(self) -> dict[str, Rect]:
        """The datacenters as they are drawn."""
        return {name: Rect(*at, *_scaled(self.box, self.scale)) for name, at in self.nodes.items()}

    def label_boxes(self) -> dict[str, Rect]:
        """The labels as they are drawn."""
        return {name: Rect(*at, *_scaled(self.label, self.scale)) for name, at in self.labels.items()}


@functools.lru_cache(maxsize=16)
def lay_out(nodes: tuple[tuple[str, Point], ...], fibres: tuple[Fibre, ...]) -> Layout:
    """The map of `nodes`, by their positions (0 to 1, to the right and upwards), and of the fibres between them."""
    roomy = len(nodes) <= ROOMY
    best, most = Layout(_SCALES[-1], roomy, _places(nodes, _scaled(_BOXES[roomy], _SCALES[-1])), {}), 0.0
    for scale, room in itertools.product(_SCALES, _ROOMS):
        if scale <= most:
            break  # with all labels it would be no better
        box = _scaled(_BOXES[roomy], scale * room)
        if len(nodes) * box[0] * box[1] > _MOST_COVERED * WIDTH * HEIGHT:
            continue
        at = _settled(nodes, fibres, box)
        if at is None:
            continue
        labels = _labelled(Layout(scale, roomy, at, {}), fibres)
        worth = scale * (1 + len(labels) / max(1, len(fibres))) / 2
        if worth > most:
            best, most = Layout(scale, roomy, at, labels), worth
    return best


def _scaled(size: Size, scale: float) -> Size:
    return size[0] * scale, size[1] * scale


def _places(nodes: Sequence[tuple[str, Point]], box: Size) -> dict[str, Point]:
    """As the topology has them, spread over the map."""
    margin_x, margin_y = box[0] / 2 + 2 * _EDGE, box[1] / 2 + 2 * _EDGE
    return {
        name: (margin_x + x * (WIDTH - 2 * margin_x), margin_y + (1 - y) * (HEIGHT - 2 * margin_y))
        for name, (x, y) in nodes
    }


def _settled(nodes: Sequence[tuple[str, Point]], fibres: Sequence[Fibre], box: Size) -> dict[str, Point] | None:
    """Where boxes of that size come to rest; None if they do not find room."""
    names = [name for name, _ in nodes]
    index = {name: i for i, name in enumerate(names)}
    at = np.array(list(_places(nodes, box).values()), dtype=float)
    size = np.array(box)
    ends = np.array([(index[a], index[b]) for _, a, b in fibres], dtype=int).reshape(-1, 2)
    low, high = size / 2 + _EDGE, np.array((WIDTH, HEIGHT)) - size / 2 - _EDGE
    for _ in range(_ROUNDS):
        move = _apart(at, size) + _off_fibres(at, size, ends)
        if not move.any():
            return {name: (float(x), float(y)) for name, (x, y) in zip(names, at, strict=True)}
        at = np.clip(at + np.clip(move, -_LONGEST_STEP, _LONGEST_STEP), low, high)
    return None


def _apart(at: _Array, size: _Array) -> _Array:
    """How boxes that overlap are to move: half of what is missing each, in the direction in which less is missing."""
    offset = at[:, None] - at[None]
    missing = size + _GAP - np.abs(offset)
    overlap = (missing > 0).all(axis=2)
    overlap &= ~np.eye(len(at), dtype=bool)
    before = np.tri(len(at), k=-1, dtype=bool)[..., None]  # of two in one place the later one gives way
    side = np.where(offset == 0, np.where(before, 1.0, -1.0), np.sign(offset))
    narrow = missing[..., 0] < missing[..., 1]
    along = np.stack([narrow, ~narrow], axis=2) & overlap[..., None]
    found: _Array = np.where(along, side * (missing / 2 + 0.5), 0.0).sum(axis=1)
    return found


def _off_fibres(at: _Array, size: _Array, ends: npt.NDArray[np.int_]) -> _Array:
    """How boxes on which a fibre of others lies are to move: across it, to the nearer side."""
    if not len(ends):
        return np.zeros_like(at)
    a, b = at[ends[:, 0]], at[ends[:, 1]]
    along = b - a
    length = np.hypot(*along.T)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(length, 1e-9)[:, None]
    half = size / 2 + _GAP / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = ((at[None] + sign * half - a[:, None]) / along[:, None] for sign in (-1, 1))
    low, high = np.minimum(one, other), np.maximum(one, other)
    level = along[:, None] == 0
    beside = (np.abs(at[None] - a[:, None]) < half) & level
    low = np.where(level, np.where(beside, -np.inf, np.inf), low)
    high = np.where(level, np.where(beside, np.inf, -np.inf), high)
    crossed = np.maximum(low.max(axis=2), 0) < np.minimum(high.min(axis=2), 1)
    crossed[np.arange(len(ends)), ends[:, 0]] = crossed[np.arange(len(ends)), ends[:, 1]] = False
    off = ((at[None] - a[:, None]) * across[:, None]).sum(axis=2)
    needed = (np.abs(across) * size / 2).sum(axis=1)[:, None] + _GAP
    # A little at a time: other fibres may push back.
    step = np.where(crossed, np.where(off >= 0, 1, -1) * (0.5 * np.maximum(needed - np.abs(off), 0) + 0.5), 0.0)
    found: _Array = (step[..., None] * across[:, None]).sum(axis=0)
    return found


def _labelled(layout: Layout, fibres: Sequence[Fibre]) -> dict[str, Point]:
    """Places of labels beside fibres. Short fibres have the least choice, so they choose first."""
    at, boxes, gap = layout.nodes, list(layout.boxes().values()), (FIBRE / 2 + 2) * layout.scale
    lines = [(at[a], at[b]) for _, a, b in fibres]
    taken: list[Rect] = []
    found: dict[str, Point] = {}
    for name, a, b in sorted(fibres, key=lambda fibre: math.dist(at[fibre[1]], at[fibre[2]])):
        for label in _candidates(at[a], at[b], _scaled(layout.label, layout.scale), gap):
            covers = any(label.overlaps(other, 3.0) for other in itertools.chain(boxes, taken))
            if label.is_inside() and not covers and not any(label.is_crossed(*line, gap - 1) for line in lines):
                taken.append(label)
                found[name] = label.x, label.y
                break
    return found


def _candidates(a: Point, b: Point, size: Size, gap: float) -> Iterator[Rect]:
    """Places of a label: beside the middle of its fibre, on the side away from the middle of the map, and others."""
    length = math.dist(a, b) or 1.0
    across = (a[1] - b[1]) / length, (b[0] - a[0]) / length
    middle = (a[0] + b[0]) / 2 - WIDTH / 2, (a[1] + b[1]) / 2 - HEIGHT / 2
    outward = 1 if across[0] * middle[0] + across[1] * middle[1] >= 0 else -1
    near = abs(across[0]) * size[0] / 2 + abs(across[1]) * size[1] / 2 + gap
    for away, along, side in itertools.product(_AWAY, _ALONG, (outward, -outward)):
        x, y = a[0] + along * (b[0] - a[0]), a[1] + along * (b[1] - a[1])
        yield Rect(x + side * away * near * across[0], y + side * away * near * across[1], *size)
