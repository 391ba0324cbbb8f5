"""A shared database that is read-only, silent, promoted, or held up by one of its clients, as nodes meet it."""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import psycopg
import pytest

from decisions.ranges import Allocation, Claim, Mark, Range
from mtls import deadline
from mtls.identity import Role
from node import limits
from node.failures import DatabaseChanged, DatabaseUnreachable, TooLate
from node.material import connections
from node.material.shared_db import CONNECTIONS_PER_NODE, KeyOwner, Members, SharedDatabase
from testbed.database.postgres import node_url
from testbed.database.private_database import PrivateDatabase
from testbed.network.loopback import LOOPBACK, Stack

QC = "a-b/1"
CLAIM = Claim(QC, epoch=1, floor=0, marks=[Mark(0, 1_000_000, bytes(16))])
ALICE, BOB = (str(uuid.UUID(int=i)) for i in (1, 2))
HEALS_S = 10.0


@pytest.fixture(scope="module")
def database(stack: Stack) -> PrivateDatabase:
    """It, with a QC between nodes a and b."""
    made = PrivateDatabase(stack.cluster, stack.processes, [])
    made.start()
    stack.cluster.create(stack.schema)
    stack.cluster.admit(stack.schema, Members("ab", {ALICE: "a", BOB: "b"}, {QC: ("a", "b")}))
    report(stack)
    return made


def report(stack: Stack) -> None:
    """Have both ends of the QC say to the server that is there now that they hold a million bytes."""
    with node_at(stack, "a", stack.database_port) as a, node_at(stack, "b", stack.database_port) as b:
        for node, peer in ((a, "b"), (b, "a")):
            node.enter({QC: peer})
            node.report([CLAIM], time.time_ns())


@contextmanager
def node_at(stack: Stack, name: str, port: int) -> Iterator[SharedDatabase]:
    """That node, whose database is at that port of the loopback."""
    url = node_url(name, stack.issue(Role.NODE, name), stack.database, LOOPBACK, port)
    node = SharedDatabase(url, stack.schema, name)
    node.open()
    try:
        yield node
    finally:
        node.close()


@pytest.fixture
def node(stack: Stack, database: PrivateDatabase) -> Iterator[SharedDatabase]:
    """Node a, which has connections."""
    with node_at(stack, "a", stack.database_port) as found:
        found.enter({QC: "b"})
        assert take(found)
        yield found


@pytest.fixture
def of_b(stack: Stack, database: PrivateDatabase) -> Iterator[str]:
    """URL of node b, whose sessions are over afterwards, and its misdeeds forgotten."""
    yield node_url("b", stack.issue(Role.NODE, "b"), stack.database, LOOPBACK, stack.database_port)
    admin(
        stack, "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'node-b'",
        "DELETE FROM blame",
    )  # fmt: skip


def take(node: SharedDatabase, qc: str = QC) -> list[Range]:
    """A range of the QC that was never given before."""
    key_id, owner = str(uuid.uuid4()), KeyOwner(str(uuid.uuid4()), ALICE, BOB, "b")
    found = node.allocate(str(uuid.uuid4()), [(qc, 10)], key_ids=[key_id], key_bytes=10, owner=owner)
    assert isinstance(found, Allocation)
    return list(found.ranges)


def take_until_refused(node: SharedDatabase) -> None:
    """Raises what the last one raised."""
    while take(node):
        pass


def admin(stack: Stack, *statements: str) -> None:
    """Have the superuser do that, each in a transaction of its own."""
    with stack.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as session:
        session.execute(f"SET search_path = {stack.schema}")
        for statement in statements:
            session.execute(statement)


def backends(stack: Stack) -> set[int]:
    """Who in the server serves node a."""
    with stack.cluster.admin_url() as url, psycopg.connect(url) as session:
        return {pid for (pid,) in session.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'node-a'")}


def heals(stack: Stack, node: SharedDatabase) -> None:
    """Return when `node` gets ranges again; a failure if it does not before keys should flow again."""
    began = time.monotonic()
    while True:
        try:
            assert take(node)
            return
        except (DatabaseUnreachable, DatabaseChanged) as failure:
            assert time.monotonic() < began + HEALS_S
            if isinstance(failure, DatabaseChanged):
                report(stack)
                node.enter({QC: "b"})


def test_read_only_database_is_unreachable_and_is_used_again_as_soon_as_it_takes_writes(stack, node):
    """Whoever asks is told why; no connection that was read-only is kept."""
    admin(stack, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    try:
        with pytest.raises(DatabaseUnreachable, match="takes no writes"):
            take_until_refused(node)  # the server reads its configuration in its own time
    finally:
        admin(stack, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")

    heals(stack, node)


def test_keys_flow_after_a_standby_was_promoted_behind_the_same_address(stack, database, node):
    """Meanwhile requests are refused; nothing that was given before is given again."""
    before = take(node)
    database.fail_over()
    with pytest.raises(DatabaseUnreachable):
        take(node)

    database.promote()

    heals(stack, node)
    assert take(node)[0].start >= before[0].end


def test_schema_that_is_not_as_it_should_be_is_no_bug_of_the_request(stack, node, caplog):
    """Any error that is no decision: the connection is dropped, and the log has the SQLSTATE."""
    admin(stack, "ALTER FUNCTION qkd_available RENAME TO qkd_gone")
    try:
        with pytest.raises(DatabaseUnreachable, match=r"refused \(SQLSTATE 42883\)"):
            node.available([QC])
    finally:
        admin(stack, "ALTER FUNCTION qkd_gone RENAME TO qkd_available")
    assert "SQLSTATE 42883" in caplog.text

    heals(stack, node)


@pytest.mark.parametrize(
    ("state", "said"),
    [("53100", "has no room left on its disk"), ("53200", "is short of memory"), ("53300", "takes no more connections"),
     ("57P01", "is stopping"), ("57P02", "has crashed"), ("57P03", "is starting"),
     ("XX000", r"refused \(SQLSTATE XX000\)"), ("58030", r"refused \(SQLSTATE 58030\)")],
)  # fmt: skip
def test_error_of_the_server_is_unreachable_with_its_reason(stack, node, state, said):
    """Whatever the server could not do: one cause, in words where users can do something about it, and no bug."""
    admin(
        stack,
        "ALTER FUNCTION qkd_available RENAME TO qkd_kept",
        "CREATE FUNCTION qkd_available(qcs text[]) RETURNS bigint[] LANGUAGE plpgsql AS "
        f"$$BEGIN RAISE 'no' USING ERRCODE = '{state}'; END$$",
    )
    try:
        with pytest.raises(DatabaseUnreachable, match=f"^the shared database {said}$"):
            node.available([QC])
    finally:
        admin(stack, "DROP FUNCTION qkd_available", "ALTER FUNCTION qkd_kept RENAME TO qkd_available")

    heals(stack, node)
    assert node.available([QC])


def lock_rows(connection, stack) -> None:
    """Have node b, whose connection that is, allocate bytes of the QC and say nothing more."""
    connection.execute(f"SET search_path = {stack.schema}")
    (server,) = connection.execute("SELECT server FROM qkd_enter('b', '{}', '{}')").fetchone()
    connection.execute(
        "SELECT qkd_allocate(%s, 'b', %s, %s, '{10}', ARRAY[%s]::uuid[], '10', %s, %s, %s, 'a', NULL)",
        (str(uuid.uuid4()), server, [QC], str(uuid.uuid4()), str(uuid.uuid4()), BOB, ALICE),
    )  # fmt: skip


def test_node_that_locks_rows_and_is_silent_holds_up_nobody(stack, node, of_b):
    """It may set its own time-outs; whoever waited in vain has the database end it."""
    with psycopg.connect(of_b) as hostile:
        hostile.execute("SET idle_in_transaction_session_timeout = 0")
        lock_rows(hostile, stack)
        with deadline.until(time.monotonic() + limits.ANSWER_S):
            assert take(node)
        with pytest.raises(psycopg.OperationalError):
            hostile.execute("SELECT 1")


# A statement that takes for ever, and needs none of PostgreSQL's functions.
BUSY = (
    "SELECT FROM pg_attribute a, pg_attribute b, pg_attribute c"
    " WHERE CASE WHEN a.attacl IS NULL OR b.attacl IS NULL OR c.attacl IS NULL THEN false ELSE true END"
)


def hold_rows_again_and_again(stack: Stack, url: str, over: threading.Event) -> int:
    """Have node b lock rows, be busy meanwhile, and come back at once whenever it is put out: how often that was."""
    put_out = 0
    while not over.is_set():
        try:
            with psycopg.connect(url) as hostile:
                hostile.execute("SET statement_timeout = 0")
                hostile.execute("SET lock_timeout = 0")
                hostile.commit()
                lock_rows(hostile, stack)
                hostile.execute(BUSY)
        except psycopg.OperationalError:
            put_out += 1
    return put_out


@pytest.mark.slow
def test_node_that_holds_rows_and_is_busy_holds_up_nobody_however_often_it_comes_back(stack, node, of_b):
    """Over several connections, to be there again at once: of a hundred requests of another node each is served."""
    over = threading.Event()
    with ThreadPoolExecutor(3) as hostile:
        sessions = [hostile.submit(hold_rows_again_and_again, stack, of_b, over) for _ in range(3)]
        try:
            for _ in range(100):
                time.sleep(0.1)
                with deadline.until(time.monotonic() + limits.ANSWER_S):
                    assert take(node)
        finally:
            over.set()
            admin(stack, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'node-b'")
        assert sum(session.result() for session in sessions) >= 3


def hold_rows_for_a_moment(stack: Stack, url: str, over: threading.Event) -> int:
    """Have node b lock rows again and again, for less than what is noticed: how often that was."""
    times = 0
    with psycopg.connect(url) as hostile:
        hostile.execute("SET lock_timeout = 0")
        hostile.commit()
        while not over.is_set():
            lock_rows(hostile, stack)
            time.sleep(0.04)
            hostile.rollback()
            times += 1
    return times


def test_node_whose_sessions_take_turns_to_hold_rows_holds_up_nobody(stack, node, of_b):
    """With as many sessions as it may have, so that there are always some of them first in line."""
    over = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS_PER_NODE) as hostile:
        sessions = [
            hostile.submit(hold_rows_for_a_moment, stack, of_b, over) for _ in range(CONNECTIONS_PER_NODE)
        ]
        try:
            for _ in range(10):
                with deadline.until(time.monotonic() + limits.ANSWER_S):
                    assert take(node)
        finally:
            over.set()
        assert sum(session.result() for session in sessions) >= CONNECTIONS_PER_NODE


def test_node_that_held_up_others_is_told_so_and_served_again_after_a_while(stack, node, of_b):
    """Should it have been no malice, two seconds are soon over."""
    holder = psycopg.connect(of_b)
    lock_rows(holder, stack)
    with deadline.until(time.monotonic() + limits.ANSWER_S):
        assert take(node)
    holder.close()
    with node_at(stack, "b", stack.database_port) as other:
        with pytest.raises(DatabaseUnreachable, match="has this node wait, which held up others"):
            other.report([CLAIM], time.time_ns())

        began = time.monotonic()
        while True:
            try:
                other.enter({QC: "a"})
                break
            except DatabaseUnreachable:
                assert time.monotonic() < began + HEALS_S


def test_who_finds_others_in_the_way_for_a_moment_blames_nobody(stack, node):
    """Sixteen callers of each of two nodes at the same QC, while one asks all the time who holds rows."""

    def take_in_the_end() -> list[Range]:
        """On a slow machine the turn of somebody may not come in time: that blames nobody either."""
        while True:
            try:
                return take(node)
            except DatabaseUnreachable as refused:
                if "other requests wait" not in str(refused):
                    raise

    with node_at(stack, "b", stack.database_port) as other, ThreadPoolExecutor(32) as callers:
        other.enter({QC: "a"})
        calls = [callers.submit(take_in_the_end) for _ in range(400)]
        calls += [callers.submit(other.report, [CLAIM], time.time_ns()) for _ in range(400)]
        while not all(call.done() for call in calls):
            admin(stack, "SELECT qkd_end_holders()")
        for call in calls:
            call.result()
    with stack.cluster.admin_url() as url, psycopg.connect(url) as session:
        assert session.execute(f"SELECT FROM {stack.schema}.blame").rowcount == 0


def test_a_transaction_that_has_changed_something_gets_no_more(stack, node, of_b):
    """Or its rows would be held while it waits for others, and who is to blame were hard to say."""
    with psycopg.connect(of_b) as hostile:
        lock_rows(hostile, stack)
        with pytest.raises(psycopg.Error, match="expected a transaction for this call alone"):
            lock_rows(hostile, stack)


def test_requests_that_wait_for_rows_leave_connections_to_others(stack, node):
    """Those for another QC, those that take no row, and the node's own reports, however many wait."""
    other = "a-b/2"
    stack.cluster.admit(stack.schema, Members("ab", {}, {other: ("a", "b")}))
    claim = replace(CLAIM, qc=other)
    with node_at(stack, "b", stack.database_port) as far:
        far.enter({other: "a"})
        far.report([claim], time.time_ns())
    node.report([claim], time.time_ns())

    def ask() -> None:
        with deadline.until(time.monotonic() + limits.ANSWER_S), pytest.raises(DatabaseUnreachable):
            take(node)

    with ThreadPoolExecutor(limits.REQUESTS_PER_SAE) as callers, stack.cluster.admin_url() as url:
        with psycopg.connect(url) as holder:
            holder.execute("SET idle_in_transaction_session_timeout = 0")
            holder.execute(f"SELECT FROM {stack.schema}.qc WHERE name = %s FOR UPDATE", (QC,))
            calls = [callers.submit(ask) for _ in range(limits.REQUESTS_PER_SAE)]
            while not all(call.done() for call in calls):
                with deadline.until(time.monotonic() + limits.DATABASE_LOCK_S):
                    assert take(node, other)
                    assert node.available([QC, other])
                    node.report([claim], time.time_ns())
        for call in calls:
            call.result()


def test_requests_in_a_hurry_cost_nobody_a_connection(stack, node):
    """A client may say that it waits for a millisecond only, again and again: that is no failure of the database."""
    before = backends(stack)
    for _ in range(50):
        with deadline.until(time.monotonic() + 0.001), pytest.raises(TooLate):
            take(node)
    assert take(node)
    assert backends(stack) >= before


def test_request_that_has_no_time_left_costs_nobody_else_a_connection(stack, node, of_b):
    """Its own one is closed, for an answer may still come; that the others are broken is not known."""
    with psycopg.connect(of_b) as holder:
        lock_rows(holder, stack)
        before = backends(stack)
        with deadline.until(time.monotonic() + 0.5), pytest.raises(DatabaseUnreachable):
            take(node)
    assert take(node)
    assert len(before) > 1
    assert len(before - backends(stack)) <= 1


def test_node_that_keeps_a_transaction_open_is_put_out(stack, node, of_b):
    """It holds no row; but nothing that changes meanwhile is cleared away, and calls would take longer and longer."""
    with psycopg.connect(of_b) as hostile:
        hostile.execute("SET idle_in_transaction_session_timeout = 0")
        hostile.commit()
        hostile.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        hostile.execute("SELECT 1")
        began = time.monotonic()

        while not select.select([hostile], [], [], 0.01)[0]:  # until the server has something to say
            assert time.monotonic() < began + 6 * HEALS_S
            node.report([CLAIM], time.time_ns())
        with pytest.raises(psycopg.OperationalError):
            hostile.execute("SELECT 1")
    assert take(node)


class Border:
    """Carries connections to the database until it is told to fall silent."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Lose all that comes from now on."""
        self._open.clear()

    def hear(self) -> None:
        """Carry new connections again; what went on before is lost."""
        self._open.set()

    def close(self) -> None:
        """Close everything."""
        for opened in self._sockets:
            opened.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(near)
            if not self._open.is_set():
                continue
            far = socket.create_connection((LOOPBACK, self._to))
            self._sockets.append(far)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if not self._open.is_set():
                    return
                target.sendall(data)
        except OSError:
            return


def test_database_that_falls_silent_is_noticed_in_time_and_used_again(stack, database):
    """Its connections stand and nothing comes: no call waits longer than its deadline, and none uses them again."""
    border = Border(stack.database_port)
    try:
        with node_at(stack, "a", border.port) as node:
            node.enter({QC: "b"})
            assert take(node)
            border.silence()
            with deadline.until((began := time.monotonic()) + 1.0), pytest.raises(DatabaseUnreachable):
                take(node)
            assert time.monotonic() - began < limits.DATABASE_CALL_S
            border.hear()
            heals(stack, node)
    finally:
        border.close()


def test_many_calls_at_once_after_a_restart_all_succeed(stack, database, node):
    """One of them notices that the connections are dead; none is tried for each of the others."""
    database._processes.named("postgres").kill()
    database.restart()
    heals(stack, node)
    with ExitStack() as until:
        answers: list[object] = []
        threads = [threading.Thread(target=lambda: answers.append(take(node))) for _ in range(24)]
        for thread in threads:
            thread.start()
            until.callback(thread.join)
    assert len(answers) == len(threads)


def test_node_has_so_many_connections_and_others_get_in(stack, database, of_b):
    """Whatever a node does, it leaves room."""
    report(stack)
    with ExitStack() as kept:
        for _ in range(CONNECTIONS_PER_NODE):
            kept.enter_context(psycopg.connect(of_b))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            psycopg.connect(of_b)
        with node_at(stack, "a", stack.database_port) as node:
            node.enter({QC: "b"})
            assert take(node)


class Strangers:
    """So many connections to a port that say nothing; where one is refused or put out, it comes as often as a node."""

    def __init__(self, port: int, number: int) -> None:
        self._address = LOOPBACK, port
        self._open = selectors.DefaultSelector()
        self._over = threading.Event()
        for _ in range(number):
            self._knock()
        self._thread = threading.Thread(target=self._come_back)
        self._thread.start()

    def close(self) -> None:
        """Go away."""
        self._over.set()
        self._thread.join()
        for key in list(self._open.get_map().values()):
            key.fileobj.close()
        self._open.close()

    def _knock(self) -> None:
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.connect_ex(self._address)
        self._open.register(stranger, selectors.EVENT_READ)

    def _come_back(self) -> None:
        while not self._over.is_set():
            gone = [key.fileobj for key, _ in self._open.select(0.1)]
            for stranger in gone:
                self._open.unregister(stranger)
                stranger.close()
            time.sleep(limits.DATABASE_KNOCK_S)
            for _ in gone:
                self._knock()


def test_strangers_who_say_nothing_keep_no_node_from_a_database_that_begins_anew(stack, database, node):
    """More than PostgreSQL has places for, there before the nodes are, and there again whenever they are put out."""
    with node_at(stack, "b", stack.database_port) as other, closing(Strangers(stack.database_port, 300)):
        database._processes.named("postgres").kill()
        database.restart()

        def come_in() -> None:
            while True:
                admin(stack)

        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            come_in()
        began = time.monotonic()
        while True:
            try:
                for end, peer in ((node, "b"), (other, "a")):
                    end.enter({QC: peer})
                    end.report([CLAIM], time.time_ns())
                assert take(node)
                break
            except DatabaseUnreachable:
                assert time.monotonic() < began + 3 * HEALS_S


def test_full_database_is_asked_again_until_it_has_a_place(stack, database):
    """Strangers who throng at its door leave one now and then, before anybody has been asked who he is."""
    url = node_url("a", stack.issue(Role.NODE, "a"), stack.database, LOOPBACK, stack.database_port)
    with ExitStack() as crowd, stack.cluster.admin_url() as admin, ThreadPoolExecutor(1) as waiter:
        sessions: list[psycopg.Connection] = []

        def fill() -> None:
            while True:
                sessions.append(crowd.enter_context(psycopg.connect(admin)))

        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            fill()
        there = connections.Servers(url)
        waiting = waiter.submit(connections._Connection.connect, url, servers=there, knock_s=0.3)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)

        for session in sessions[:2]:  # these places are the superuser's
            session.close()
        with pytest.raises(TimeoutError):
            waiting.result(0.3)

        for session in sessions[2:10]:
            session.close()

        waiting.result(HEALS_S).close()


SORTED = "SELECT FROM (SELECT a.* FROM pg_attribute a, pg_attribute b ORDER BY a.attname) AS s OFFSET '100000000'"


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("SELECT pg_advisory_lock(n) FROM generate_series(1, 100000) AS n", psycopg.errors.InsufficientPrivilege),
        ("SELECT pg_try_advisory_xact_lock(n, 1) FROM generate_series(1, 100000) AS n",
         psycopg.errors.InsufficientPrivilege),
        ("SELECT lo_from_bytea(0, decode(repeat('00', 1000000), 'hex')) FROM generate_series(1, 1000)",
         psycopg.errors.InsufficientPrivilege),
        ("SELECT lo_create(0)", psycopg.errors.InsufficientPrivilege),
        ("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) FROM generate_series(1, 1000)",
         psycopg.errors.InsufficientPrivilege),
        ("SELECT pg_sleep('3600')", psycopg.errors.InsufficientPrivilege),
        ("SELECT '2'::numeric ^ '0.5'::numeric", psycopg.errors.InsufficientPrivilege),
        ("DO $$BEGIN LOOP END LOOP; END$$", psycopg.errors.InsufficientPrivilege),
        (SORTED, psycopg.errors.ConfigurationLimitExceeded),
        ("SET temp_file_limit = -1", psycopg.errors.InsufficientPrivilege),
        (f"SET work_mem = '2GB'; {SORTED}", psycopg.errors.OutOfMemory),
    ],
    ids=[
        "locks", "more locks", "objects", "object", "log", "sleep", "numbers", "programs", "files", "more files",
        "memory",
    ],
)
def test_node_uses_up_neither_locks_nor_disk_nor_memory_of_the_database(of_b, statement, refused):
    """PostgreSQL lets anybody take some: of locks there are so many for all, and a full disk ends the server."""
    with psycopg.connect(of_b, autocommit=True) as hostile, pytest.raises(refused):
        hostile.execute(statement)


def test_node_has_no_process_of_the_database_beside_those_of_its_connections(stack, of_b):
    """However much it asks PostgreSQL to share a statement out among others."""
    with psycopg.connect(of_b, autocommit=True) as hostile, stack.cluster.admin_url() as url:
        for setting in ("max_parallel_workers_per_gather = 8", "parallel_setup_cost = 0", "parallel_tuple_cost = 0",
                        "min_parallel_table_scan_size = 0"):  # fmt: skip
            hostile.execute(f"SET {setting}")
        with ThreadPoolExecutor(1) as asker, psycopg.connect(url, autocommit=True) as session:
            asked = asker.submit(hostile.execute, BUSY)
            with pytest.raises(TimeoutError):
                asked.result(0.5)
            workers = session.execute("SELECT FROM pg_stat_activity WHERE backend_type = 'parallel worker'").rowcount
            hostile.cancel()
            assert isinstance(asked.exception(), psycopg.errors.QueryCanceled)
    assert workers == 0


def test_what_a_node_is_refused_fills_no_log(stack, database, of_b):
    """An error quotes what was wrong, be it of many megabytes."""
    log = database._processes.named("postgres").log
    before = log.stat().st_size
    with psycopg.connect(of_b, autocommit=True) as hostile, pytest.raises(psycopg.errors.InvalidTextRepresentation):
        hostile.execute(f"SELECT '{'x' * 10_000_000}'::int")
    assert log.stat().st_size < before + 1_000_000


def test_node_that_tells_others_without_end_fills_no_disk(stack, node, of_b):
    """PostgreSQL keeps for a listener what it has not heard yet, up to 8 GB."""
    with psycopg.connect(of_b, autocommit=True) as listener, psycopg.connect(of_b) as hostile:
        for statement in ("SET idle_in_transaction_session_timeout = 0", "LISTEN it", "BEGIN", "SELECT"):
            listener.execute(statement)

        def tell() -> None:
            for i in range(5000):
                hostile.execute(f"NOTIFY it, '{i:08d}{'x' * 7000}'")
            hostile.commit()

        with pytest.raises(psycopg.errors.DiskFull):
            tell()
    assert sum(file.stat().st_size for file in (stack.cluster.directory / "data").rglob("pg_notify/*")) < 20_000_000
    assert take(node)
