"""What covers what on a map, and a network that is hard to draw."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np


def crowded(number: int) -> tuple:
    """As in networks of a continent: most datacenters in its middle, some far away, and long fibres between any two.

    Datacenters with their positions, fibres with their ends, and the letters of the longest title.
    """
    chance = random.Random(number)
    at = {f"n{i}": (chance.gauss(0.5, 0.1), chance.gauss(0.5, 0.1)) for i in range(number - 6)}
    at |= {f"far{i}": (chance.random(), float(i % 2)) for i in range(6)}
    long = [tuple(chance.sample(sorted(at), 2)) for _ in range(number // 3)]
    names = list(at)
    near = [(name, min(names[:i], key=lambda other, name=name: math.dist(at[name], at[other])))
            for i, name in enumerate(names) if i]  # fmt: skip
    pairs = {tuple(sorted(pair)) for pair in [*long, *near]}
    places = tuple((name, (min(1.0, max(0.0, x)), min(1.0, max(0.0, y)))) for name, (x, y) in at.items())
    return places, tuple((f"{a}-{b}", a, b) for a, b in sorted(pairs)), 2


class Rect(NamedTuple):
    """A rectangle by its centre, and how broad half of it is, and how high."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Rect) -> bool:
        """Whether the two have a point in common."""
        return abs(self.x - other.x) < self.width + other.width and abs(self.y - other.y) < self.height + other.height

    def is_inside(self, width: float, height: float) -> bool:
        """Whether all of it is on a map of that size."""
        return self.width <= self.x <= width - self.width and self.height <= self.y <= height - self.height

    def has_any(self, points: list[tuple[float, float]]) -> bool:
        """Whether one of the points lies on it."""
        return any(abs(x - self.x) < self.width and abs(y - self.y) < self.height for x, y in points)

    def is_crossed(self, a: tuple, b: tuple, half_breadth: float) -> bool:
        """Whether a tube so broad lies on it, as points on the tube's middle and edges say."""
        length = math.dist(a, b)
        across = (a[1] - b[1]) / length * half_breadth, (b[0] - a[0]) / length * half_breadth
        steps = np.linspace(0, 1, 300)[:, None, None]
        sides = np.array([[s * across[0], s * across[1]] for s in (-1, 0, 1)])[None]
        points = np.array(a) + steps * (np.array(b) - np.array(a)) + sides
        return bool((np.abs(points - (self.x, self.y)) < (self.width, self.height)).all(axis=2).any())
