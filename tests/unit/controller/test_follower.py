"""Who follows a node's agent changes nothing any more once it was told to stop, whatever it was at."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import limits
from controller.following.follower import Followers
from controller.network.graph import Graph
from controller.network.identities import Identities
from controller.network.nodes import Agent
from telemetry.journal import Journal
from tests.support.waiting import until
from tests.unit.controller.test_lifecycle import WAIT_S, Desk, Nodes

ID, ENDED = "00000000-0000-4000-8000-00000000000a", "33333333-3333-4333-8333-333333333333"


class Quiet:
    """In place of an event stream on which nothing comes until it is closed."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def events(self) -> Iterator[Any]:
        assert self.over.wait(WAIT_S)
        yield from ()

    def close(self) -> None:
        self.over.set()


class Slow(Nodes):
    """Agents that answer what is asked of `slow` when `go` is set. `asked`: what was read last."""

    asked = slow = ""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.told: list[Any] = []
        self.full: list[Exception] = []

    def listen(self, _: Agent) -> tuple[Quiet, bool]:
        return Quiet(), True

    def node(self, _: Agent) -> dict[str, Any]:
        return self._answer("node", {"qkdn_id": ID})

    def additions(self, _: Agent) -> dict[str, Any]:
        return self._answer("additions", {"ended": [ENDED]})

    def set_additions(self, _: Agent, document: Any) -> None:
        self.told.append(document["parameters"])
        if self.full:
            raise self.full.pop()

    def _answer(self, what: str, answer: dict[str, Any]) -> dict[str, Any]:
        self.asked = what
        assert what != self.slow or self.go.wait(WAIT_S)
        return answer


class World:
    """A controller without a node."""

    def __init__(self, directory: Path) -> None:
        self.desk = Desk(directory, Graph())
        self.nodes = Slow(self.desk.journal)
        self.ended: list[str] = []
        self.desk.sessions.ended = lambda ksid, *, node: self.ended.append(f"{node} {ksid}")
        self.followers = Followers(
            self.desk.graph, self.nodes, self.desk.journal, identities=Identities(self.desk.store, {}),
            sessions=self.desk.sessions, settings=self.desk.settings, upkeep=self.desk.upkeep,
        )  # fmt: skip
        self.followers.start()

    def follow(self, url: str) -> None:
        """Follow node a, at that address."""
        self.followers.follow(Agent("a", url))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One; whoever waits in it is let go at the end."""
    made = World(tmp_path)
    yield made
    made.nodes.go.set()
    made.followers.stop()


def threads() -> list[str]:
    """Who follows."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("follow-")]


@pytest.mark.parametrize("slow", ["node", "additions"])
def test_node_that_is_forgotten_while_it_is_read_stays_forgotten(world, slow):
    """Nobody follows it: it would be in the graph for ever, and its ID would be nobody else's."""
    world.nodes.slow = slow
    world.nodes.go.clear()
    world.follow("https://a")
    assert until(lambda: world.nodes.asked == slow)

    assert world.followers.forget("a")
    world.nodes.go.set()

    assert until(lambda: not threads())
    assert (world.desk.graph.nodes(), world.desk.store.setting("identities"), world.ended) == ({}, {}, [])


def test_who_follows_a_node_no_more_does_not_say_that_it_is_lost(world):
    """Another one follows it, at another address."""
    world.follow("https://old")
    assert until(lambda: "a" in world.desk.graph.nodes())
    world.follow("https://new")
    assert until(lambda: world.desk.graph.nodes()["a"].agent.url == "https://new")
    assert until(lambda: len(threads()) == 1)

    assert world.desk.graph.nodes()["a"].reachable


def test_node_is_told_again_of_what_the_store_could_not_take_down(world, monkeypatch):
    """On a full disk. It was told again after minutes only, and of nothing that was set meanwhile."""
    monkeypatch.setattr(limits, "AGAIN_S", 0.05)
    world.nodes.full = [sqlite3.OperationalError("database or disk is full")]
    world.follow("https://a")
    assert until(lambda: len(world.nodes.told) == 2)

    world.desk.settings.set_parameters({"ttl_slots": 20})

    assert until(lambda: world.nodes.told[-1]["ttl_slots"] == 20)
