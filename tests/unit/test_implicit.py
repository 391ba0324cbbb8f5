"""Implicit key sessions: opened by a first request, shared by those who come meanwhile, ended by idleness."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from etsi.gs004 import QoS
from mtls.serve import Problem
from node.failures import SessionRefused
from node.implicit import ImplicitSessions
from node.key_stream import KeyStore
from node.sessions import Session, Sessions

MASTER, SLAVE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class Controller:
    """Opens sessions as the controller does, by telling the node's agent."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.away = False
        self.wait = threading.Event()
        self.wait.set()

    def open_implicit(self, master: str, slave: str, slave_node: str, wanted: QoS) -> None:
        """Asked by the node."""
        assert self.wait.wait(10)
        if self.away:
            raise SessionRefused("no", cause="controller_unreachable")
        ksid = f"{len(self.opened):08d}-0000-4000-8000-000000000000"
        self.opened.append(ksid)
        self.sessions.put(Session(ksid, master, slave, ("a", slave_node), ("q",), "basic", wanted, implicit=True))

    def close(self, ksid: str) -> bool:
        """Asked by the node."""
        if self.away:
            raise Problem(503, "away")
        self.closed.append(ksid)
        return True


class Bench:
    """A node's implicit sessions with a controller and a clock of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.sessions = Sessions(self.store)
        self.controller = Controller(self.sessions)
        self.time = 0.0
        self.implicit = ImplicitSessions("a", self.sessions, self.controller, now=lambda: self.time)

    def ask(self) -> Session:
        """The master asks for keys."""
        return self.implicit.session(MASTER, SLAVE, "b", QoS())


@pytest.fixture
def bench(tmp_path: Path):
    """Node a."""
    made = Bench(tmp_path)
    yield made
    made.store.close()


def test_first_request_opens_a_session_and_the_next_uses_it(bench):
    """The controller is asked once."""
    assert bench.ask() == bench.ask()
    assert len(bench.controller.opened) == 1


def test_requests_that_come_meanwhile_wait_for_the_same_session(bench):
    """Ten at once open one session."""
    bench.controller.wait.clear()
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(bench.ask) for _ in range(10)]
        bench.controller.wait.set()
        assert len({call.result(10).ksid for call in asked}) == 1
    assert len(bench.controller.opened) == 1


def test_more_waiting_requests_than_there_are_places_are_refused(bench):
    """They would take all of the server's threads."""
    bench.controller.wait.clear()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(bench.ask) for _ in range(20)]
        refused = [call for call in asked if isinstance(_early(call), SessionRefused)]
        bench.controller.wait.set()
        assert len(refused) == 4
        assert all(call.exception(10) is None for call in asked if call not in refused)


def _early(call) -> BaseException | None:
    try:
        return call.exception(0.2)
    except TimeoutError:
        return None


def test_refusal_reaches_the_one_who_asked_and_the_next_may_try_again(bench):
    """Nothing is kept of a session that did not come to be."""
    bench.controller.away = True
    with pytest.raises(SessionRefused):
        bench.ask()
    bench.controller.away = False

    assert bench.ask().ksid == bench.controller.opened[0]


def test_session_that_nobody_uses_ends_and_the_controller_hears_of_it(bench):
    """Every request counts anew."""
    session = bench.ask()
    bench.time = 9.0
    bench.ask()
    bench.time = 18.0
    assert bench.implicit.end_idle(10.0) == []

    bench.time = 19.0
    assert bench.implicit.end_idle(10.0) == [session]
    assert bench.controller.closed == [session.ksid]
    assert bench.sessions.all() == []


def test_controller_that_is_away_hears_of_the_end_later(bench):
    """Once, and not again and again."""
    session = bench.ask()
    bench.controller.away, bench.time = True, 60.0
    assert bench.implicit.end_idle(10.0) == [session]
    bench.controller.away = False

    for _ in range(3):
        bench.implicit.end_idle(10.0)

    assert bench.controller.closed == [session.ksid]


def test_registered_session_never_idles(bench):
    """Who registered it ends it."""
    ksid = "99999999-0000-4000-8000-000000000000"
    bench.sessions.put(Session(ksid, MASTER, SLAVE, ("a", "b"), ("q",), "basic", QoS()))
    bench.ask()
    bench.time = 1e6

    assert bench.implicit.end_idle(10.0) == []
    assert bench.controller.opened == []


def test_session_kept_over_a_restart_has_its_whole_time_again(bench):
    """The node cannot know when it was used last."""
    bench.ask()
    again = ImplicitSessions("a", Sessions(bench.store), bench.controller, now=lambda: bench.time)
    bench.time = 100.0

    assert again.end_idle(10.0) == []
    bench.time = 110.0
    assert len(again.end_idle(10.0)) == 1
