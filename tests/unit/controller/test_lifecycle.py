"""How key sessions end whose nodes tell of it: what is confirmed will be carried out, whatever else waits."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.agents.configuration import Wants
from controller.agents.peer_shares import Turns
from controller.following.follower import Follower
from controller.following.state import Following
from controller.network.graph import Graph
from controller.network.identities import Identities
from controller.network.nodes import Agent
from controller.network.settings import Parameters, Settings
from controller.network.store import FileStore
from controller.sessions.key_session import CONFIGURING, ENDING, OPEN, KeySession, SessionError
from controller.sessions.lifecycle import KeySessions
from controller.sessions.lighting import Lighting
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_nodes import SessionAgents, Upkeep
from etsi.gs004 import QoS
from telemetry import journal
from telemetry.journal import Journal
from tests.support.waiting import until
from tests.unit.decisions.test_move_verdicts import Shown

PAIR = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
WAIT_S = 10.0


class Nodes:
    """In place of the agents: they do what they are told, at once or when `go` is set. `removed`: where resources were.

    One step for a node is under way at a time, and one more may wait.
    """

    def __init__(self, journal: Journal) -> None:
        self.removed: list[str] = []
        self.configured = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.turns = Turns("steps", journal, threads=4, for_one=1, waiting=1)

    def configure(self, _: object) -> None:
        self.configured.set()
        assert self.go.wait(WAIT_S)

    def remove(self, resources: Mapping[Agent, Sequence[str]]) -> set[str]:
        self.removed += [agent.name for agent in resources]
        return set()

    def later(self, node: str, step: Any, *arguments: Any, **named: Any) -> bool:
        return self.turns.take(node, step, *arguments, **named)

    def idle(self, node: str) -> bool:
        """Whether no step is under way for it, nor waits."""
        return node not in self.turns._running

    def on_the_way_s(self, _: Agent) -> float:
        return 0.0

    def node(self, _: Agent) -> dict[str, Any]:
        return {}

    def application(self, *_: object) -> dict[str, Any]:
        return {}


class Said:
    """In place of the words: the state of each that was said to a node."""

    def __init__(self) -> None:
        self.words: list[tuple[str, str]] = []

    def say(self, node: str, _: object, document: Mapping[str, Any], **__: object) -> None:
        self.words.append((node, document["state"]))

    def forget(self, *_: object) -> None:
        """Nobody waits."""


class Desk:
    """A controller of two nodes, a and b."""

    def __init__(self, directory: Path, graph: Graph) -> None:
        self.graph, self.journal = graph, Journal(directory / "journal.jsonl", "ctl")
        journal = self.journal
        self.store = FileStore(directory / "controller.db")
        self.book = Book(self.store)
        self.nodes, self.said = Nodes(journal), Said()
        self.settings = Settings(graph, Parameters(), journal, self.store)
        lighting = Lighting(graph, self.book, self.nodes, journal)
        choice = Choice(graph, self.book, self.settings, lighting)
        self.agents = agents = SessionAgents(graph, self.nodes, self.said)
        self.upkeep = Upkeep(self.book, choice, agents, journal)
        self.sessions = KeySessions(
            graph, self.book, choice, agents, journal, upkeep=self.upkeep, lighting=lighting, saes={},
            half_open_timeout_s=30.0,
        )  # fmt: skip

    def register(self, *sides: str, implicit: bool = False) -> KeySession:
        """Those sides of the pair register: the master's node is a, the slave's b."""
        for side in sides:
            session = self.sessions.register("ab"[side == "slave"], PAIR, side, Wants(QoS(), {}), implicit=implicit)
        return session

    def comes_again(self, name: str) -> Follower:
        """That node comes, without anything that was configured."""
        follower = Follower(
            self.graph.nodes()[name].agent, graph=self.graph, agents=self.nodes, journal=self.journal,
            identities=Identities(self.store, {}), sessions=self.sessions, settings=self.settings, upkeep=self.upkeep,
            on_tended=int, number=lambda: 1,
        )  # fmt: skip
        follower.state = Following().heard(object(), extended=False).read()
        return follower

    def stored(self) -> list[str]:
        """The states of the sessions in the store."""
        return [document["state"] for document in self.store.sessions()]

    def read_only(self) -> None:
        """From now on the store takes nothing, as on a full disk."""
        self.store._db.execute("PRAGMA query_only = ON")

    def writable(self) -> None:
        """From now on the store takes what it is given."""
        self.store._db.execute("PRAGMA query_only = OFF")

    @contextmanager
    def opening(self) -> Iterator[KeySession]:
        """A session whose nodes are being told of it; behind the block they have, and it is open or is not."""
        self.nodes.go.clear()
        self.register("slave")
        with ThreadPoolExecutor(1) as opener:
            opened = opener.submit(self.register, "master")
            assert self.nodes.configured.wait(WAIT_S)
            try:
                yield self.book.all()[0]
            finally:
                self.nodes.go.set()
            opened.exception(WAIT_S)

    @contextmanager
    def busy(self, node: str, *, full: bool = True) -> Iterator[None]:
        """For the block no further step for that node is begun; and none more can wait if it is `full`."""
        go, begun = threading.Event(), threading.Event()

        def stay() -> None:
            begun.set()
            go.wait(WAIT_S)

        assert self.nodes.turns.take(node, stay)
        assert begun.wait(WAIT_S)
        assert not full or self.nodes.turns.take(node, int)
        try:
            yield
        finally:
            go.set()
        assert until(lambda: self.nodes.turns.take(node, int))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A controller that has found a - b."""
    shown = Shown()
    shown.show("a", ab="ACTIVE")
    shown.show("b", ab="ACTIVE")
    made = Desk(tmp_path, shown.graph)
    yield made
    made.nodes.go.set()
    made.nodes.turns._pool.shutdown(wait=True)
    made.store.close()


def test_end_for_which_there_is_no_room_is_told_again_and_counts_then(desk):
    """What was confirmed and not carried out, nobody would end any more."""
    session = desk.register("slave", "master")

    with desk.busy("a"):
        desk.sessions.ended(session.ksid, node="a")

        assert desk.book.open() == [session]
        assert ("a", "ended") not in desk.said.words

    until(lambda: desk.sessions.ended(session.ksid, node="a") or ("a", "ended") in desk.said.words)
    assert until(lambda: sorted(desk.nodes.removed) == ["a", "b"])


def test_withdrawal_for_which_there_is_no_room_is_told_again_and_counts_then(desk):
    """The other side has come meanwhile, so that it is an end."""
    session = desk.register("slave", "master")

    with desk.busy("b"):
        desk.sessions.withdraw("b", PAIR, request="w")

        assert desk.book.open() == [session]
        assert ("b", "withdrawn") not in desk.said.words

    until(lambda: desk.sessions.withdraw("b", PAIR, request="w") or ("b", "withdrawn") in desk.said.words)
    assert until(lambda: sorted(desk.nodes.removed) == ["a", "b"])


def test_end_is_written_down_when_it_is_confirmed(desk):
    """Though its nodes are told later, by a thread."""
    session = desk.register("slave", "master")
    with desk.book.holding(session):  # nodes are being told something else
        desk.sessions.ended(session.ksid, node="a")

        assert desk.said.words[-1] == ("a", "ended")
        assert desk.stored() == [ENDING]
    assert until(lambda: desk.stored() == [])


@pytest.mark.parametrize("full", [False, True])
def test_session_that_its_end_is_done_with_too_early_is_never_written_down_as_open(desk, full):
    """The end is confirmed: a controller that is killed at whatever moment goes on to end it."""
    with desk.busy("a", full=full):
        with desk.opening() as session:
            desk.sessions.ended(session.ksid, node="a")

            assert desk.said.words[-1] == ("a", "ended")
            assert desk.stored() == [CONFIGURING]

        assert desk.stored() == []
        assert desk.book.all() == []

    assert sorted(desk.nodes.removed) == ["a", "b"]


def test_registration_that_is_taken_back_too_late_is_no_session(desk):
    """The nodes are being told of it."""
    with desk.opening():
        desk.sessions.withdraw("b", PAIR, request="w")

        assert desk.said.words[-1] == ("b", "withdrawn")

    assert desk.stored() == []
    assert sorted(desk.nodes.removed) == ["a", "b"]


def test_end_that_cannot_be_written_down_is_told_again(desk):
    """It is neither confirmed nor taken, or a controller that is started anew would have the session open.

    Whoever hears the node goes on: it has no part in what fills the controller's disk.
    """
    session = desk.register("slave", "master")
    desk.read_only()
    desk.sessions.ended(session.ksid, node="a")
    assert until(lambda: desk.nodes.idle("a"))

    assert desk.book.open() == [session]
    assert ("a", "ended") not in desk.said.words

    desk.writable()
    desk.sessions.ended(session.ksid, node="a")
    assert ("a", "ended") in desk.said.words
    assert until(lambda: sorted(desk.nodes.removed) == ["a", "b"])


@pytest.mark.parametrize("over", [False, True])
def test_session_that_cannot_be_written_down_as_open_is_refused(desk, over):
    """Its nodes forget it; so the end of one of its ends, which is confirmed, is one."""
    with desk.opening() as session:
        desk.read_only()
        if over:
            desk.sessions.ended(session.ksid, node="a")

    assert desk.book.all() == []
    assert ("a", "refused") in desk.said.words
    assert until(lambda: sorted(desk.nodes.removed) == ["a", "b"])


def test_pair_whose_implicit_session_cannot_be_ended_registers_later(desk):
    """It is not blocked for ever by a session that nobody goes on to open."""
    implicit = desk.register("slave", "master", implicit=True)
    desk.register("slave")
    desk.read_only()
    with pytest.raises(sqlite3.OperationalError):
        desk.register("master")

    assert desk.book.all() == [implicit]
    assert ("a", "refused") in desk.said.words

    desk.writable()
    registered = desk.register("slave", "master")
    assert desk.book.open() == [registered]
    assert desk.stored() == [OPEN]


def test_implicit_session_that_gives_way_is_written_down_as_over(desk):
    """Before its nodes are told: one is still being told something else."""
    implicit = desk.register("slave", "master", implicit=True)
    with desk.book.holding(implicit):
        assert desk.book.take_implicit(PAIR) is implicit

        assert desk.stored() == [ENDING]


def test_session_that_both_ends_are_done_with_ends_once(desk, tmp_path):
    """Whoever told of it first."""
    session = desk.register("slave", "master")

    for node in "ab":
        desk.sessions.ended(session.ksid, node=node)

    assert desk.said.words[-2:] == [("a", "ended"), ("b", "ended")]
    assert until(lambda: desk.stored() == [])
    assert len(until(lambda: journal.read(tmp_path / "journal.jsonl", "ksid_released"))) == 1


def test_end_whose_step_comes_before_the_session_is_taken_is_an_end(desk, monkeypatch):
    """A thread may be free at once, while the one that hears the node is at the store."""
    session, take = desk.register("slave", "master"), desk.book.take

    def late(session: KeySession) -> bool:
        time.sleep(0.05)
        return take(session)

    monkeypatch.setattr(desk.book, "take", late)
    desk.sessions.ended(session.ksid, node="a")

    assert until(lambda: sorted(desk.nodes.removed) == ["a", "b"])
    assert until(lambda: desk.stored() == [])


def test_implicit_session_that_its_node_has_lost_is_looked_for_again_if_there_is_no_room_for_its_end(desk):
    """The node has no more to tell: it has forgotten the session."""
    session = desk.register("slave", "master", implicit=True)
    node = desk.comes_again("a")

    with desk.busy("a"):
        node.tend()

        assert desk.book.open() == [session]
        assert node.needs_tending

    node.tend()
    assert not node.needs_tending
    assert until(lambda: sorted(desk.nodes.removed) == ["a", "b"])


class Forgetting:
    """What becomes of resources that nodes are to forget: `told` of which, `go` before they answer, `done` or not."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.go = threading.Event()
        self.done = True

    def remove(self, resources: Mapping[str, Sequence[str]]) -> set[str]:
        self.told += [path for paths in resources.values() for path in paths]
        assert self.go.wait(WAIT_S)
        return set(resources) if self.done else set()


@pytest.fixture
def forgetting(desk, monkeypatch) -> Iterator[Forgetting]:
    """Of the nodes at the desk."""
    made = Forgetting()
    monkeypatch.setattr(desk.agents, "remove", made.remove)
    yield made
    made.go.set()


def test_node_that_forgets_slowly_is_told_by_one_step_at_a_time(desk, forgetting):
    """However often it is looked at: its other steps are for those who register there."""
    desk.book.ended("1", {"a": ["x"]})
    for _ in range(3):
        desk.upkeep.clean_again()
        assert until(lambda: forgetting.told)

    assert desk.nodes.turns.take("a", int)


def test_refused_sessions_take_one_step_of_a_node_at_a_time(desk, forgetting):
    """And all of them are forgotten by it, those that are refused meanwhile, too."""
    session = desk.register("slave", "master")
    for ksid in "123":
        desk.upkeep.withdraw_later(replace(session, ksid=ksid))
        assert until(lambda: forgetting.told)

    assert desk.nodes.turns.take("a", int)
    forgetting.go.set()
    assert until(lambda: not desk.book.unsettled_nodes())


def test_node_that_did_not_forget_is_told_again(desk, forgetting):
    """The step before has ended."""
    desk.book.ended("1", {"a": ["x"]})
    forgetting.done = False
    forgetting.go.set()
    desk.upkeep.clean_again()
    assert until(lambda: desk.nodes.idle("a"))

    forgetting.done = True
    desk.upkeep.clean_again()

    assert until(lambda: not desk.book.unsettled_nodes())
    assert forgetting.told == ["x", "x"]


def test_node_for_which_too_much_waited_is_told_later(desk, forgetting):
    """When there is a place again."""
    forgetting.go.set()
    desk.book.ended("1", {"a": ["x"]})
    with desk.busy("a"):
        desk.upkeep.clean_again()

    desk.upkeep.clean_again()

    assert until(lambda: forgetting.told == ["x"])


@pytest.mark.parametrize(("node", "side", "cause"), [("a", "slave", "foreign"), ("b", "master", "same_node")])
def test_registration_that_is_refused_at_once_is_counted(desk, tmp_path, node, side, cause):
    """As one is for which there is no path: in the journal, the metrics, and the list for the operator."""
    desk.register("slave")

    with pytest.raises(SessionError):
        desk.sessions.register(node, PAIR, side, Wants(QoS(), {}))

    (event,) = journal.read(tmp_path / "journal.jsonl", "application_refused")
    (shown,) = desk.sessions.refusals()
    assert event["cause"] == shown["cause"] == cause
    assert f'qkd_admissions_total{{cause="{cause}",result="refused"}} 1.0' in desk.sessions.metrics.page().decode()
