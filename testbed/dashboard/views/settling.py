"""Where boxes of one size come to rest, so that none covers another one and no fibre runs over one. PURE.

They begin where they should be best. As long as one is in the way, or a fibre of it is, such a box takes the best of
some places: near it, or far from it, or where it began. At last all come back as far as there is room. Chance chooses
box and places, from the same seed each time, so that a network is always drawn alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_PLACES = 40  # that a box chooses from
_REACHES = (15.0, 40.0, 100.0, 250.0)
_MOVES = 200
_PATIENCE = 25  # moves without progress after which there is no hope
_HOMESICK = 1.0  # what a way from home as long as the map costs, beside being in somebody's way (1 to 2)
_RETURNS, _SWEEPS = 6, 3
_BACK = np.linspace(0.0, 1.0, 11)[:, None]


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to be placed: boxes of that size with a gap between them, fibres by the numbers of the boxes at
    their ends, with that much free beside each, on a map from `low` to `high`.
    """

    size: Array
    gap: float
    beside: float
    ends: npt.NDArray[np.int_]
    low: Array
    high: Array


def settled(home: Array, room: Room) -> Array | None:
    """Centres of boxes that would be best at `home`; None if they find no room."""
    chance = np.random.default_rng(len(home))
    best = _untangled(np.clip(home, *_reach(room)), home, room, chance)
    if best is None:
        return None
    for _ in range(_RETURNS):
        farthest = int(np.argmax(_away(best, home)))
        at = best.copy()
        at[farthest] = np.clip(home[farthest], *_reach(room))
        found = _untangled(at, home, room, chance, stays=farthest)
        if found is not None and strangeness(found, home) < strangeness(best, home):
            best = found
    return best


def strangeness(at: Array, home: Array) -> float:
    """How far all are from home, above all those that are farthest."""
    return float((_away(at, home) ** 4).mean() ** 0.25)


def _untangled(at: Array, home: Array, room: Room, chance: np.random.Generator, stays: int = -1) -> Array | None:
    """Where nobody is in anybody's way, beginning at `at`; None if that is not found. Others than `stays` give way."""
    low, high = _reach(room)
    least, since = np.inf, 0
    for _ in range(_MOVES):
        trouble = _trouble(at, room)
        wrong = np.flatnonzero((trouble > 0) & (np.arange(len(at)) != stays))
        if not len(wrong):
            return _homewards(at, home, room, chance)
        since = 0 if trouble.sum() < least else since + 1
        least = min(least, trouble.sum())
        if since > _PATIENCE:
            break
        box = int(chance.choice(wrong))
        near = at[box] + chance.choice(_REACHES, size=(_PLACES, 1)) * chance.normal(size=(_PLACES, 2))
        places = np.clip(np.vstack([at[box], home[box], near]), low, high)
        away = _away(places, home[box]) / np.hypot(*(high - low))
        at[box] = places[np.argmin(_in_the_way(places, box, at, room) + _HOMESICK * away)]
    return None


def _reach(room: Room) -> tuple[Array, Array]:
    """Where centres may be."""
    return room.low + room.size / 2, room.high - room.size / 2


def _homewards(at: Array, home: Array, room: Room, chance: np.random.Generator) -> Array:
    """Each as near its home as there is room; those that are farthest away begin."""
    for _ in range(_SWEEPS):
        for box in np.argsort(-_away(at, home)):
            way = at[box] - home[box]
            around = np.hypot(*way) * chance.uniform(-1, 1, size=(_PLACES, 2))
            places = np.clip(home[box] + np.vstack([_BACK * way, around]), *_reach(room))
            places = places[np.argsort(_away(places, home[box]))]
            free = np.flatnonzero(_in_the_way(places, box, at, room) == 0)
            if len(free) and _away(places[free[0]], home[box]) < np.hypot(*way):
                at[box] = places[free[0]]
    return at


def _away(at: Array, home: Array) -> Array:
    found: Array = np.hypot(*np.moveaxis(at - home, -1, 0))
    return found


def _trouble(at: Array, room: Room) -> Array:
    """Of each box how much it is in the way of others, or its fibres are."""
    pairs = _overlap(at[:, None], at[None], room)
    np.fill_diagonal(pairs, 0.0)
    first, second = room.ends.T
    over = _run_over(at[:, None], at[first][None], at[second][None], room)
    fibres = np.arange(len(room.ends))
    over[first, fibres] = over[second, fibres] = 0.0
    found: Array = pairs.sum(axis=1) + over.sum(axis=1)
    np.add.at(found, first, over.sum(axis=0))
    np.add.at(found, second, over.sum(axis=0))
    return found


def _in_the_way(places: Array, box: int, at: Array, room: Room) -> Array:
    """How much a box would be in the way of others at each of these places, with its fibres."""
    everyone = np.arange(len(at))
    own = (room.ends == box).any(axis=1)
    first, second = room.ends[~own].T
    others = _overlap(places[:, None], at[None], room)
    others[:, box] = 0.0
    found: Array = others.sum(axis=1) + _run_over(places[:, None], at[first][None], at[second][None], room).sum(axis=1)
    if own.any():
        peers = room.ends[own].sum(axis=1) - box
        over = _run_over(at[None, None], places[:, None, None], at[peers][None, :, None], room)
        found += (over * ((everyone != box) & (everyone != peers[:, None]))).sum(axis=(1, 2))
    return found


def _overlap(one: Array, other: Array, room: Room) -> Array:
    """1 to 2 where boxes at these places overlap, the more the deeper they do; else 0."""
    width, height = room.size + room.gap
    lacks = 1 - np.maximum(np.abs(one[..., 0] - other[..., 0]) / width, np.abs(one[..., 1] - other[..., 1]) / height)
    found: Array = np.where(lacks > 0, 1 + lacks, 0.0)
    return found


def _run_over(at: Array, a: Array, b: Array, room: Room) -> Array:
    """1 to 2 where a fibre from `a` to `b` runs over a box at `at`, the more the nearer its middle; else 0."""
    found: Array = np.maximum(0.0, 2 - nearness(at, a, b, room.size / 2 + room.beside))
    return np.where(found > 1, found, 0.0)


def nearness(at: Array, a: Array, b: Array, half: Array) -> Array:
    """How near the line from `a` to `b` comes to the middle of a rectangle at `at`, of which `half` is half the size.

    0: through its middle; from 1 on: past it. A line and a rectangle are apart if they are so along a side of the
    rectangle, or across the line.
    """
    dx, dy = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]
    x, y = at[..., 0], at[..., 1]
    size, wide, high = np.abs(dy) * half[..., 0] + np.abs(dx) * half[..., 1], np.abs(dx) / 2, np.abs(dy) / 2
    off = np.abs((x - a[..., 0]) * dy - (y - a[..., 1]) * dx) / np.maximum(size, 1e-9)
    right = np.abs(x - (a[..., 0] + b[..., 0]) / 2) >= wide + half[..., 0]
    below = np.abs(y - (a[..., 1] + b[..., 1]) / 2) >= high + half[..., 1]
    found: Array = np.where(right | below, np.inf, off)
    return found
