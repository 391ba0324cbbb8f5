"""Parties at the two ends of a real wire, which grows long, loses one direction, or goes dead without a word.

Nothing that a test does to the wire is told to the parties: they know what their kernels notice.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from decisions.ranges import Allocation, Claim, Mark
from mtls import deadline
from mtls.call import Caller, Listener, Unreachable
from mtls.events import Feed, answer_with
from mtls.identity import Identity, Role
from mtls.liveness import BEAT_S, DEAD_S, SILENCE_S
from mtls.serve import allow, new_app
from mtls.server import Server
from node import limits
from node.failures import DatabaseUnreachable
from node.material.shared_db import KeyOwner, Members, SharedDatabase
from testbed.database.postgres import node_url
from testbed.machine.namespaces import call_in_network, network_of, threads_in_network
from testbed.network.loopback import Stack
from tests.support.waiting import until
from tests.support.wire import Wire, Y

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")

FAR = Identity(Role.NODE, "b")
QC = "a-b/1"
CLAIM = Claim(QC, epoch=1, floor=0, marks=[Mark(0, 1_000_000, bytes(16))])
ALICE, BOB = (str(uuid.UUID(int=i)) for i in (1, 2))
BUSY_MACHINE_S = 5.0


class Far:
    """Node a is at x. At y are node b, which is a server that answers, waits or streams, and the shared database."""

    def __init__(self, directory: Path) -> None:
        self.wire = Wire(directory)
        self.wire.start()
        self.networks = {end: network_of(self.wire.holders[end].pid) for end in "xy"}
        self.at_x: ThreadPoolExecutor = threads_in_network(self.networks["x"], 16, "x")
        self.stack = Stack(directory / "stack")
        self.feeds: list[Feed] = []
        self.answers = threading.Event()
        self._server = Server(self._app(), Y, 0, self.stack.issue(Role.NODE, "b"))
        call_in_network(self.networks["y"], self._server.start)
        self.url = f"https://{Y}:{self._server.port}"
        self._start_database()

    def _app(self):
        app = new_app("far")
        app.get("/")(allow(Role.NODE)(lambda: {}))

        @app.get("/wait")
        @allow(Role.NODE)
        def wait():
            self.answers.wait(60)
            return {}

        @app.get("/events")
        @allow(Role.NODE)
        def events():
            self.feeds.append(Feed())
            return answer_with(self.feeds[-1])

        return app

    def _start_database(self) -> None:
        cluster = self.stack.cluster
        cluster.initialise(listen=Y, port=self.stack.database_port)
        command = [*self.wire.enter("y"), *cluster.command()]
        process = self.stack.processes.start("postgres", command, says_ready=False, stop_signal=2)
        cluster.wait_ready(process.alive, process.log)
        cluster.create(self.stack.schema)
        cluster.admit(self.stack.schema, Members("ab", {ALICE: "a", BOB: "b"}, {QC: ("a", "b")}))
        for name, peer in ("ab", "ba"):
            with self.database(name) as node:
                node.enter({QC: peer})
                node.report([CLAIM], time.time_ns())

    @contextmanager
    def database(self, name: str = "a") -> Iterator[SharedDatabase]:
        """As that node, which is at x, sees it. It was told nothing of the way to it."""
        credentials = self.stack.issue(Role.NODE, name)
        url = node_url(name, credentials, self.stack.database, Y, self.stack.database_port)
        node = SharedDatabase(url, self.stack.schema, name)
        self.at_x.submit(node.open).result()  # whose threads connect
        try:
            yield node
        finally:
            node.close()

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        """As node a, which was told nothing of the way either."""
        caller = Caller(self.stack.issue(Role.NODE, "a"))
        yield caller
        caller.close()

    def ask(self, caller: Caller, path: str = "/", timeout_s: float = 5.0) -> str:
        """Why no answer of node b comes; empty if one does."""
        try:
            self.at_x.submit(caller.request, "GET", self.url + path, to=FAR, timeout_s=timeout_s).result()
        except Unreachable as error:
            return error.reason
        return ""

    def listen(self, silence_s: float | None) -> Listener:
        """To node b's events."""
        credentials = self.stack.issue(Role.NODE, "a")
        make = lambda: Listener(credentials, f"{self.url}/events", FAR, timeout_s=5, silence_s=silence_s)  # noqa: E731
        return self.at_x.submit(make).result()

    def backends(self) -> set[int]:
        """Who in the database serves node a."""
        with self.stack.cluster.admin_url() as url, psycopg.connect(url) as session:
            return {pid for (pid,) in session.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'node-a'")}

    def end_backends(self) -> None:
        """Break node a's connections to the database."""
        with self.stack.cluster.admin_url() as url, psycopg.connect(url) as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'node-a'")

    def close(self) -> None:
        """End everything."""
        self.answers.set()
        self._server.stop()
        self.at_x.shutdown()
        self.stack.stop()
        for fd in self.networks.values():
            os.close(fd)
        self.wire.stop()


def take(node: SharedDatabase) -> bool:
    """Whether the database gives a range of the QC that was never given before."""
    key_id, owner = str(uuid.uuid4()), KeyOwner(str(uuid.uuid4()), ALICE, BOB, "b")
    try:
        found = node.allocate(str(uuid.uuid4()), [(QC, 10)], key_ids=[key_id], key_bytes=10, owner=owner)
    except DatabaseUnreachable:
        return False
    return isinstance(found, Allocation)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """Both ends of the wire."""
    made = Far(tmp_path_factory.mktemp("far"))
    yield made
    made.close()


@pytest.fixture
def far(ends: Far) -> Iterator[Far]:
    """Both ends of the wire, which is short when the test begins."""
    ends.wire.change(delay_ms=1)
    yield ends
    ends.wire.change(delay_ms=1)


@pytest.mark.parametrize("warm", [True, False], ids=["kept connection", "new connection"])
def test_partition_does_not_count_as_a_long_round_trip(far, warm):
    """What y sends is lost for a while. What comes then answers packets of seconds ago; the way is as short as ever."""
    with far.caller() as caller:
        if warm:
            assert not far.ask(caller)
        far.wire.change(back={"delay_ms": 1, "loss_percent": 100}, delay_ms=1)
        asked = threading.Thread(target=far.ask, args=(caller, "/", 10.0))
        asked.start()
        time.sleep(2.5)
        far.wire.change(delay_ms=1)
        asked.join()

        assert not far.ask(caller)
        assert caller.round_trip_s == 0


def test_way_that_grew_long_is_noticed_and_one_that_grew_short_again_too(far):
    """On connections that are kept, in a few dozen calls; on new ones at the first."""
    with far.caller() as caller:
        assert not far.ask(caller)
        far.wire.change(delay_ms=150)
        assert until(lambda: not far.ask(caller) and caller.round_trip_s >= 0.25)
        assert caller.round_trip_s < 0.5
        with far.caller() as newcomer:
            assert not far.ask(newcomer)
            assert newcomer.round_trip_s >= 0.3

        far.wire.change(delay_ms=1)
        assert until(lambda: not far.ask(caller) and caller.round_trip_s == 0)


def test_call_has_its_time_once_however_long_it_takes_to_connect(far):
    """A partition ends after four seconds, and then the other party is asleep: nobody shakes hands."""
    asleep = call_in_network(far.networks["y"], lambda: socket.create_server((Y, 0)))
    url = f"https://{Y}:{asleep.getsockname()[1]}/"
    far.wire.change(back={"delay_ms": 1, "loss_percent": 100}, delay_ms=1)
    with asleep, far.caller() as caller:
        began = time.monotonic()
        call = far.at_x.submit(caller.request, "GET", url, to=FAR, timeout_s=6.0)
        time.sleep(4)
        far.wire.change(delay_ms=1)
        with pytest.raises(Unreachable, match="no answer within 6 s"):
            call.result()
        assert time.monotonic() - began < 4.0 + 6.0, "as its time would begin anew once it is connected"


@pytest.mark.slow
def test_database_that_is_far_away_all_at_once_serves_who_was_there_and_who_comes(far):
    """TLS and PostgreSQL's greetings take six round trips: who comes needs more time than there is at first."""
    with far.database() as node:
        node.enter({QC: "b"})
        assert take(node)
        far.wire.change(delay_ms=300)
        assert take(node)

        far.end_backends()
        assert until(lambda: take(node))
        assert node.round_trip_s >= 0.6
        with far.database() as newcomer:
            assert until(lambda: newcomer.round_trip_s >= 0.6)
            newcomer.enter({QC: "b"})
            assert take(newcomer)


@pytest.mark.slow
def test_wire_that_goes_dead_without_a_word_is_noticed_at_both_ends(far):
    """In seconds, by whoever waits for something and by whoever serves."""
    listeners = [far.listen(SILENCE_S), far.listen(None)]
    with far.caller() as caller, far.database() as node:
        node.enter({QC: "b"})
        assert take(node)
        assert not far.ask(caller)
        waiting = far.at_x.submit(far.ask, caller, "/wait", 60.0)
        assert until(lambda: len(far.feeds) == 2)
        backends = far.backends()
        far.wire.change(delay_ms=1, loss_percent=100)
        began = time.monotonic()

        def heard(listener: Listener) -> None:
            with pytest.raises(Unreachable):
                for _ in listener.events():
                    pass

        def statement() -> None:
            with deadline.until(began + limits.ANSWER_S):
                assert not take(node)

        watched: dict[str, tuple[float, Callable[[], object]]] = {
            "a call that was under way": (DEAD_S, waiting.result),
            "a call that is made now": (DEAD_S, lambda: far.ask(caller, "/", 60.0)),
            "a listener": (SILENCE_S, lambda: heard(listeners[0])),
            "a listener who expects no comments": (DEAD_S, lambda: heard(listeners[1])),
            "those who stream": (BEAT_S + DEAD_S, lambda: until(lambda: all(f.closed for f in far.feeds))),
            "a statement": (limits.ANSWER_S, statement),
            "the database": (DEAD_S, lambda: until(lambda: not backends & far.backends())),
        }

        def seconds(notice: Callable[[], object]) -> float:
            notice()
            return time.monotonic() - began

        with ThreadPoolExecutor(len(watched)) as pool:
            noticed = {who: pool.submit(seconds, notice) for who, (_, notice) in watched.items()}
        for listener in listeners:
            listener.close()

    late = {who: took.result() for who, took in noticed.items() if took.result() > watched[who][0] + BUSY_MACHINE_S}
    assert not late
