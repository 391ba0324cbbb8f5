"""A key in parts: enough of them give it, and fewer say nothing about it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents.secret import Secret
from node.relaying.parts import joined, split


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int]:
    """How many parts, and how many are enough."""
    number = draw(st.integers(1, 7))
    return number, draw(st.integers(1 if number == 1 else 2, number))


@given(st.binary(min_size=1, max_size=64), shapes(), st.randoms(use_true_random=False))
def test_enough_parts_give_the_key_whichever_they_are(key, shape, rng):
    """And each is as long as the key."""
    number, enough = shape
    parts = split(Secret(key), number, enough)
    there = rng.sample(range(1, number + 1), rng.randint(enough, number))

    assert [len(part) for part in parts] == [len(key)] * number
    assert joined({x: parts[x - 1] for x in there}, number, enough).reveal() == key


@pytest.mark.parametrize(("number", "enough"), [(2, 2), (3, 3), (3, 2), (4, 3)])
@pytest.mark.parametrize("key", [0x00, 0x5A])
def test_fewer_parts_than_enough_are_the_same_whatever_the_key(monkeypatch, number, enough, key):
    """Of all that chance can bring, each value of them comes up equally often: so they say nothing about the key."""
    drawn: Iterator[bytes]
    monkeypatch.setattr("node.relaying.parts.os.urandom", lambda _: next(drawn))
    field = range(256) if enough == 2 else range(0, 256, 5)
    seen: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for chance in itertools.product(field, repeat=enough - 1):
        drawn = iter([bytes([byte]) for byte in chance])
        parts = [part.reveal()[0] for part in split(Secret(bytes([key])), number, enough)]
        for places in itertools.combinations(range(number), enough - 1):
            values = tuple(parts[place] for place in places)
            assert values not in seen.setdefault(places, set())
            seen[places].add(values)

    if enough == 2:
        assert all(len(values) == 256 for values in seen.values())


def test_parts_of_the_same_key_differ_each_time():
    """Chance is drawn anew."""
    key = Secret(bytes(32))

    assert split(key, 3, 2)[0].reveal() != split(key, 3, 2)[0].reveal()
