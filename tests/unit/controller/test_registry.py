"""The book of key sessions: who waits for a session there, and what wakes whoever does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from controller import limits
from controller.agents.configuration import Route, Wants
from controller.network.store import FileStore
from controller.sessions.key_session import KeySession, SessionError
from controller.sessions.registry import Book
from decisions.paths import Path as Way
from etsi.gs004 import QoS
from mtls import deadline

PAIR = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
WANTS = Wants(QoS(), {})


class Desk:
    """A book with a clock of the test's, and one who waits."""

    def __init__(self, directory: Path, waiter: ThreadPoolExecutor) -> None:
        self.time = 0.0
        self.store = FileStore(directory / "controller.db")
        self.book = Book(self.store, now=lambda: self.time)
        self._waiter = waiter

    def register(self, *sides: str, implicit: bool = False) -> KeySession:
        """Those sides of the pair register: the master's node is a, the slave's b."""
        for side in sides:
            session, _ = self.book.register("ab"[side == "slave"], PAIR, side, WANTS, implicit=implicit)
        return session

    def configuring(self, *, implicit: bool = False) -> KeySession:
        """A session of which the nodes are being told."""
        session = self.register("slave", "master", implicit=implicit)
        session.path, session.route = Way(("a", "b"), ("q",)), Route(["A", "B"], ["L"])
        self.book.begin(session)
        return session

    def waits(self, step: Callable[..., object], *arguments: object) -> Future[object]:
        """Take a step that must not return yet."""
        waiting = self._waiter.submit(step, *arguments)
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        return waiting


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty book."""
    with ThreadPoolExecutor(1) as waiter:
        made = Desk(tmp_path, waiter)
        yield made
    made.store.close()


def test_half_a_session_is_dropped_when_it_was_not_asked_for_in_time(desk):
    """It counts from the last time: an application that has just tried again waits as long as any other."""
    half = desk.register("slave")
    desk.time = 29.0
    assert desk.register("slave") is half

    desk.time = 31.0
    assert desk.book.expire(30.0) == []

    desk.time = 59.5
    assert desk.book.expire(30.0) == [half]
    assert desk.book.all() == []


def test_half_of_an_implicit_session_holds_up_nobody(desk):
    """The pair has registered: whoever opens its session does not wait for the other half, which may never come."""
    desk.register("slave", implicit=True)

    assert desk.book.take_implicit(PAIR) is None
    assert desk.book.all() == []


@pytest.mark.parametrize("end", ["opened", "drop"])
def test_implicit_session_that_is_being_opened_is_waited_for(desk, end):
    """Until it is open or refused."""
    session = desk.configuring(implicit=True)
    waiting = desk.waits(desk.book.take_implicit, PAIR)

    getattr(desk.book, end)(session)

    assert waiting.result(10) is (session if end == "opened" else None)


def test_session_that_an_end_is_done_with_while_it_is_being_opened_is_never_open(desk):
    """It is out of the book with the last node's word that it has it, and the store has no other word of it."""
    session = desk.configuring()
    assert desk.book.over_once_open(session, "a")

    desk.book.opened(session)

    assert desk.book.all() == []
    assert [stored["state"] for stored in desk.store.sessions()] == ["ending"]
    assert not desk.book.over_once_open(session, "b")


def test_implicit_half_gives_way_to_the_session_that_was_registered_meanwhile(desk):
    """Or the pair would have two sessions, and its nodes would each go by another one."""
    session = desk.configuring()
    desk.register("slave", implicit=True)
    desk.book.opened(session)

    found = desk.register("master", implicit=True)

    assert found is session
    assert desk.book.all() == [session]


def test_session_that_is_never_let_go_is_a_bug_and_no_wait_for_ever(desk, monkeypatch):
    """Whatever holds it has time-outs of its own."""
    monkeypatch.setattr(limits, "HELD_S", 0.05)
    session = desk.configuring()
    desk.book.opened(session)

    with desk.book.holding(session), pytest.raises(RuntimeError, match="nobody let go"), desk.book.holding(session):
        pass


def test_whoever_holds_a_session_has_so_long_for_all_that_it_tells_its_nodes(desk):
    """A node that answers each call in time, and takes nothing over, could make it as long as it liked."""
    session = desk.configuring()
    desk.book.opened(session)

    with desk.book.holding(session):
        assert deadline.left(1000) <= limits.HOLD_S


def test_session_ends_though_somebody_never_lets_it_go(desk, monkeypatch):
    """Its nodes would never hear of it otherwise."""
    monkeypatch.setattr(limits, "HELD_S", 0.05)
    session = desk.configuring()
    desk.book.opened(session)

    with desk.book.holding(session):
        assert desk.book.end(session)


def test_node_with_too_many_registrations_that_wait_gets_no_more(desk, monkeypatch):
    """It alone: others register as before."""
    monkeypatch.setattr(limits, "HALF_OPEN_OF_ONE", 1)
    desk.register("slave")

    with pytest.raises(SessionError, match="node b wait for their other side: expected fewer than 1"):
        desk.book.register("b", PAIR[::-1], "slave", WANTS, implicit=False)
    assert desk.book.register("a", PAIR[::-1], "master", WANTS, implicit=False)[1] is False


@pytest.mark.parametrize("side", ["master", "slave"])
def test_node_with_too_many_sessions_gets_no_more(desk, monkeypatch, side):
    """Neither as the first side of one nor as the second; others open theirs as before."""
    monkeypatch.setattr(limits, "SESSIONS_OF_ONE", 1)
    desk.book.opened(desk.configuring())
    pair = "33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
    desk.book.register("c", pair, {"master": "slave", "slave": "master"}[side], WANTS, implicit=False)

    for taken in (pair, PAIR[::-1]):
        with pytest.raises(SessionError, match=r"node a has 1 key sessions.*expected fewer than 1") as refused:
            desk.book.register("a", taken, side, WANTS, implicit=False)
        assert refused.value.facts == {"cause": "too_many_sessions", "who": "node a", "most": 1}

    assert desk.book.register("d", pair, side, WANTS, implicit=False)[1] is True


def ended(desk: Desk, *nodes: str) -> KeySession:
    """A session that is over, and that those nodes have not forgotten."""
    session = desk.configuring()
    desk.book.opened(session)
    assert desk.book.take(session)
    desk.book.ended(session.ksid, {node: ["link"] for node in nodes})
    return session


def test_sessions_that_a_node_does_not_forget_count(desk, monkeypatch):
    """Or one that removes nothing could open and end them without end."""
    monkeypatch.setattr(limits, "SESSIONS_OF_ONE", 2)
    over = [ended(desk, "a"), ended(desk, "a")]
    with pytest.raises(SessionError, match="node a has 2 key sessions"):
        desk.register("master")

    desk.book.forgot("a", over[0].ksid)

    assert desk.register("master").nodes == {"master": "a"}


def test_of_very_many_sessions_that_a_node_does_not_forget_the_oldest_is_given_up(desk, monkeypatch):
    """A node between two others, too, which opens none; the other nodes are still told."""
    monkeypatch.setattr(limits, "OVER_AT_ONE", 1)
    first = ended(desk, "relay", "b")
    second = desk.configuring()

    assert desk.book.ended(second.ksid, {"relay": ["link"]}) == ["relay"]

    assert list(desk.book.stale_at("relay")) == [second.ksid]
    assert list(desk.book.stale_at("b")) == [first.ksid]
    desk.book.forgot("b", first.ksid)
    assert [s["ksid"] for s in desk.store.sessions()] == [second.ksid]


def test_node_is_told_of_the_last_links_that_it_does_not_remove(desk, monkeypatch):
    """Of a session that moves to and fro; the number of links does not grow for ever."""
    monkeypatch.setattr(limits, "LEFT_AT_ONE", 2)
    session = desk.configuring()
    for number in range(4):
        session.left_behind(Way(("a", "relay", "b"), ("q", "r")), number)

    assert session.elsewhere["relay"] == [2, 3]
