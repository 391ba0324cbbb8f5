"""Implicit key sessions: opened by a first request, shared by those who come meanwhile, ended by idleness."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from etsi.gs004 import QoS
from mtls import deadline
from mtls.call import Reply
from mtls.serve import Problem
from node.associations.implicit import ImplicitSessions
from node.associations.sessions import Association, Sessions
from node.failures import NoSession, SessionRefused
from node.limits import OPENINGS, OPENINGS_PER_SAE
from node.material.key_store import KeyStore
from node.tree.datastore import Datastore
from node.waiting_limits import Places
from tests.support import open_session
from tests.support.open_session import MASTER, SLAVE
from tests.support.waiting import until

OTHER_LINK = "77777777-0000-4000-8000-000000000000"


class Network:
    """The slave's node and the controller, which configures the node under test."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.announced = 0
        self.asked = 0
        self.opened: list[str] = []
        self.away = False
        self.slave_status = 204
        self.gone_at_once = False
        self.obstacle = False
        self.wait = threading.Event()
        self.wait.set()

    def request(self, method: str, url: str, **_: object) -> Reply:
        """The slave's node is asked to register its side."""
        assert (method, url) == ("POST", "https://b/qkd/v1/applications")
        self.announced += 1
        return Reply(self.slave_status, {"message": "no", "details": [{"cause": "controller_unreachable"}]})

    def ask(self, *who: object, implicit: bool) -> Association | None:
        """The node registers its own side."""
        assert (*who, implicit) == (MASTER, SLAVE, "master", QoS(), True)
        self.asked += 1
        assert self.wait.wait(10)
        if self.away:
            raise Problem(503, "no", cause="controller_unreachable")
        ksid = f"{len(self.opened):08d}-0000-4000-8000-000000000000"
        self.opened.append(ksid)
        self.bench.sessions.mark_implicit(ksid)
        self.bench.configure(ksid)
        found = self.bench.sessions.get(ksid)
        if self.gone_at_once:
            self.bench.datastore.end_app(ksid)
        return found

    def may_be_led(self, *pair: str) -> bool:
        """The controller says whether there is an obstacle."""
        assert pair == (MASTER, SLAVE)
        return not self.obstacle


class Bench:
    """A node's implicit sessions with a network and a clock of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.config = open_session.config(directory, "a", "b")
        self.time = 0.0
        self.restart()
        self.network = Network(self)
        self.implicit = self.implicit_sessions()

    def restart(self) -> None:
        """The node reads what it kept."""
        self.datastore = Datastore(self.config, self.store)
        self.sessions = Sessions(self.config, self.datastore, self.store)

    def implicit_sessions(self) -> ImplicitSessions:
        """Those of the node as it is now."""
        return ImplicitSessions(
            "a", self.sessions, self.network, nodes=self.config.nodes, caller=self.network, now=lambda: self.time,
            openings=Places(OPENINGS, OPENINGS_PER_SAE),
        )  # fmt: skip

    def configure(self, ksid: str) -> None:
        """As the controller does."""
        open_session.configure(self.datastore, "b", ksid)

    def lead(self, ksid: str) -> None:
        """As the controller does when a session gets another path."""
        open_session.feed(self.datastore, ksid, OTHER_LINK)

    def ask(self) -> Association:
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
    assert len(bench.network.opened) == 1


def test_requests_that_come_meanwhile_wait_for_the_same_session(bench):
    """Ten at once open one session."""
    bench.network.wait.clear()
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(bench.ask) for _ in range(10)]
        bench.network.wait.set()
        assert len({call.result(10).ksid for call in asked}) == 1
    assert len(bench.network.opened) == 1


def test_more_waiting_requests_than_there_are_places_are_refused(bench):
    """They would take all of the server's threads."""
    bench.network.wait.clear()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(bench.ask) for _ in range(OPENINGS_PER_SAE + 4)]
        refused = [call for call in asked if isinstance(_early(call), SessionRefused)]
        bench.network.wait.set()
        assert len(refused) == 4
        assert all(call.exception(10) is None for call in asked if call not in refused)


def _early(call) -> BaseException | None:
    try:
        return call.exception(0.2)
    except TimeoutError:
        return None


def test_refusal_reaches_the_one_who_asked_and_the_next_may_try_again(bench):
    """Nothing is kept of a session that did not come to be."""
    bench.network.away = True
    with pytest.raises(SessionRefused):
        bench.ask()
    bench.network.away = False

    assert bench.ask().ksid == bench.network.opened[0]


def _waiting(implicit) -> int:
    """How many wait for what the first one is told: having a place is not waiting yet."""
    return sum(len(told._condition._waiters) for told in [*implicit._opening._running.values()])


def test_refusal_is_that_of_all_who_waited(bench):
    """One after the other would wait for a controller that does not answer, each as long as the first."""
    bench.network.away = True
    bench.network.wait.clear()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(bench.ask) for _ in range(5)]
        until(lambda: _waiting(bench.implicit) == 4)
        bench.network.wait.set()
        assert all(isinstance(call.exception(10), SessionRefused) for call in asked)

    assert bench.network.asked == 1


def test_session_that_ends_as_soon_as_it_is_open_is_no_fault_of_the_request(bench):
    """503: the next try may succeed. 400 would tell the client that it asked in the wrong way."""
    bench.network.gone_at_once = True

    with pytest.raises(NoSession) as caught:
        bench.ask()

    assert caught.value.status == 503


def test_refusal_of_the_slaves_node_reaches_the_one_who_asked(bench):
    """503 with its cause, and the controller is not asked."""
    bench.network.slave_status = 503

    with pytest.raises(SessionRefused) as caught:
        bench.ask()

    assert (caught.value.status, caught.value.cause) == (503, "controller_unreachable")
    assert bench.network.opened == []


def test_session_that_nobody_uses_ends(bench):
    """Every request counts anew."""
    session = bench.ask()
    bench.time = 9.0
    bench.ask()
    bench.time = 18.0
    assert list(bench.implicit.idle(10.0)) == []

    bench.time = 19.0
    assert list(bench.implicit.idle(10.0)) == [session]


def test_session_lives_for_what_the_rhythm_of_its_pair_needs(bench):
    """One key every 24 s, with 10 s set: the third request opens the last session."""
    for at_s in range(0, 240, 24):
        bench.time = float(at_s)
        bench.ask()
        bench.time += 23.0
        for idle in bench.implicit.idle(10.0):
            bench.datastore.end_app(idle.ksid)

    assert len(bench.network.opened) == 3
    bench.time = 216.0 + 60.0
    assert len(list(bench.implicit.idle(10.0))) == 1


def test_session_that_is_used_while_others_end_does_not_idle(bench):
    """Each is judged at its own moment, not when the first one was."""
    bench.ask()
    bench.time = 10.0
    idle = bench.implicit.idle(10.0)
    bench.ask()

    assert list(idle) == []


def test_registered_session_never_idles(bench):
    """Who registered it ends it."""
    bench.configure("99999999-0000-4000-8000-000000000000")
    bench.ask()
    bench.time = 1e6

    assert list(bench.implicit.idle(10.0)) == []
    assert bench.network.opened == []


def test_session_kept_over_a_restart_has_its_whole_time_again(bench):
    """The node cannot know when it was used last; that it is implicit, it knows."""
    bench.ask()
    bench.restart()
    again = bench.implicit_sessions()
    bench.time = 100.0

    assert list(again.idle(10.0)) == []
    bench.time = 110.0
    assert len(list(again.idle(10.0))) == 1


def test_session_that_is_led_over_another_path_is_waited_for(bench):
    """It is what it is as soon as the controller has configured it so."""
    ksid = bench.ask().ksid
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(bench.implicit.led, ksid, 2)
        assert _early(waits) is None
        bench.lead(ksid)

        assert waits.result(10).backing[-1] == OTHER_LINK
    assert bench.implicit.led(ksid, 2).ksid == ksid


@pytest.mark.parametrize("why", ["obstacle", "end", "deadline", "places"])
def test_session_that_gets_no_other_path_is_waited_for_no_longer(bench, why):
    """The controller says that there is none, or it is over; or there is no time left, or no place to wait at."""
    ksid = bench.ask().ksid
    places = [bench.implicit._openings.take(MASTER) for _ in range(OPENINGS_PER_SAE if why == "places" else 0)]
    with ThreadPoolExecutor(1) as pool, deadline.until(time.monotonic() if why == "deadline" else None):
        waits = pool.submit(contextvars.copy_context().run, bench.implicit.led, ksid, 2)
        if why == "obstacle":
            bench.network.obstacle = True
        elif why == "end":
            open_session.remove(bench.datastore, ksid)

        assert waits.result(10) is None
    assert all(places)
    assert bench.implicit._openings._taken == len(places), "the place is free again"
