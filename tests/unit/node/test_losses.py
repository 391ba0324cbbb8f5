"""Key material that came to nothing: lost keys are counted by QC when the shared database says what they have cost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from decisions.ranges import Range
from node.failures import DatabaseUnreachable
from node.limits import LOST_KEYS_KEPT, LOST_KEYS_PER_CALL, LOST_OPEN_S
from node.material.losses import Losses
from telemetry import journal
from telemetry.journal import Journal

NOTHING: list[tuple[str, str, Range]] = []


class World:
    """A node's losses, its journal, the time, and what the shared database knows and was asked."""

    def __init__(self, path) -> None:
        self.now = 100.0
        self.path = path
        self.losses = Losses(Journal(path, "node:a"), clock=lambda: self.now)
        self.known: list[tuple[str, str, Range]] = []
        self.asked: list[list[str]] = []

    def settle(self) -> None:
        """As the node does once a slot."""

        def cost(key_ids: Sequence[str]) -> list[tuple[str, str, Range]]:
            self.asked.append(list(key_ids))
            return [part for part in self.known if part[0] in key_ids]

        self.losses.settle(cost)

    def told(self) -> list[tuple[str, str, list]]:
        """Request, cause and ranges of all losses."""
        return [(e["allocation"], e["cause"], e["ranges"]) for e in journal.read(self.path, "lost")]


@pytest.fixture
def world(tmp_path) -> World:
    """Nothing is lost yet."""
    return World(tmp_path / "journal.jsonl")


def test_parts_of_lost_keys_are_told_by_allocation_and_counted_by_qc(world):
    """Once."""
    world.losses.add_keys("answer_not_taken", ["k1", "k2", "k3"])
    world.known = [
        ("k1", "r1", Range("a-b/1", 0, 16)), ("k1", "r1", Range("b-c/1", 8, 16)), ("k2", "r1", Range("a-b/1", 16, 32)),
        ("k3", "r2", Range("a-b/1", 64, 96)),
    ]  # fmt: skip
    world.settle()
    world.settle()

    assert world.told() == [
        ("r1", "answer_not_taken", [["a-b/1", 0, 16, "part"], ["b-c/1", 8, 16, "part"], ["a-b/1", 16, 32, "part"]]),
        ("r2", "answer_not_taken", [["a-b/1", 64, 96, "part"]]),
    ]
    assert world.losses.by_qc() == {"a-b/1": 64, "b-c/1": 8}
    assert world.asked == [["k1", "k2", "k3"]]


def test_what_keys_cost_is_asked_again_until_the_database_answers(world):
    """However long it is away."""

    def away(_: object) -> list[tuple[str, str, Range]]:
        raise DatabaseUnreachable("away")

    world.losses.add_keys("answer_not_taken", ["k1"])
    world.known = [("k1", "r1", Range("a-b/1", 0, 16))]
    for _ in range(3):
        world.now += LOST_OPEN_S
        with pytest.raises(DatabaseUnreachable):
            world.losses.settle(away)
    world.settle()

    assert world.losses.by_qc() == {"a-b/1": 16}


def test_allocation_that_may_come_to_be_yet_is_asked_for_again_and_then_no_more(world):
    """The statement may be on its way to the database; after so long the kernel has given its connection up."""
    world.losses.add_keys("database_unreachable", ["late", "never"])
    world.settle()
    world.now += LOST_OPEN_S / 2
    world.known = [("late", "r1", Range("a-b/1", 0, 16))]
    world.settle()
    world.now += LOST_OPEN_S / 2
    world.settle()
    world.settle()

    assert world.asked == [["late", "never"], ["late", "never"], ["never"]]
    assert world.told() == [("r1", "database_unreachable", [["a-b/1", 0, 16, "part"]])]


def test_many_lost_keys_are_asked_for_in_turn_and_the_oldest_are_forgotten(world):
    """Memory and a call have a bound."""
    world.losses.add_keys("database_unreachable", map(str, range(LOST_KEYS_KEPT + 10)))
    for _ in range(LOST_KEYS_KEPT // LOST_KEYS_PER_CALL):
        world.settle()

    asked = [key_id for call in world.asked for key_id in call]
    assert asked == [str(i) for i in range(10, LOST_KEYS_KEPT + 10)]
    assert {len(call) for call in world.asked} == {LOST_KEYS_PER_CALL}


def test_nothing_is_asked_where_nothing_is_lost(world):
    """No timer looks at everything to find nothing."""
    world.settle()

    assert world.asked == []


def test_answer_about_keys_that_nobody_asked_for_counts_for_nothing(world):
    """A database may err."""
    world.losses.add_keys("answer_not_taken", ["k1"])
    world.losses.settle(lambda _: [("other", "r1", Range("a-b/1", 0, 16))])

    assert world.losses.by_qc() == {}
