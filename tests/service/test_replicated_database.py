"""The shared database that fails over: real etcd, Patroni and PostgreSQL, on addresses of the loopback."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from decisions.ranges import Allocation, Claim, Mark, Range
from node.failures import DatabaseChanged, DatabaseUnreachable
from node.material.shared_db import KeyOwner, Members, SharedDatabase, read_allocations
from telemetry import journal
from testbed.database.patroni import API_PORT, CLIENT_PORT, PEER_PORT
from testbed.errors import UserError
from tests.support.replicated import SCHEMA, Replicated
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes mount and PID namespaces: needs root")

QC = "a-b/1"
ALICE, BOB = (str(uuid.UUID(int=i)) for i in (1, 2))
MEMBERS = Members("ab", {ALICE: "a", BOB: "b"}, {QC: ("a", "b")})
END = 1_000_000


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    """It, for which commits wait; with a QC between nodes a and b."""
    made = Replicated(tmp_path_factory.mktemp("replicated"))
    try:
        made.start(MEMBERS, waits=True)
        yield made
    finally:
        made.stop()


@contextmanager
def node_at(replicated: Replicated, name: str) -> Iterator[SharedDatabase]:
    """That node, which knows both servers."""
    node = SharedDatabase(replicated.node_url(name), SCHEMA, name)
    node.open()
    try:
        yield node
    finally:
        node.close()


@pytest.fixture
def nodes(replicated: Replicated) -> Iterator[tuple[SharedDatabase, SharedDatabase]]:
    """Both nodes, which have connections."""
    with node_at(replicated, "a") as a, node_at(replicated, "b") as b:
        until(lambda: takes(a, b))
        yield a, b


def report(a: SharedDatabase, b: SharedDatabase, floor: int = 0) -> None:
    """Have both ends of the QC say to the server that is there now that they hold a million bytes, from `floor` on."""
    for node, peer in ((a, "b"), (b, "a")):
        node.enter({QC: peer})
        node.report([Claim(QC, epoch=1, floor=floor, marks=[Mark(0, END, bytes(16))])], time.time_ns())


def takes(a: SharedDatabase, b: SharedDatabase, floor: int = 0) -> list[Range]:
    """A range of the QC that was never given before; nothing if there is none now. Reports if it has to."""
    try:
        return takes_or_raises(a)
    except DatabaseChanged:
        with suppress(DatabaseUnreachable):
            report(a, b, floor)
        return []


def takes_or_raises(a: SharedDatabase) -> list[Range]:
    """The same; DatabaseChanged if it has to report first."""
    key_id, owner = str(uuid.uuid4()), KeyOwner(str(uuid.uuid4()), ALICE, BOB, "b")
    with suppress(DatabaseUnreachable):
        found = a.allocate(str(uuid.uuid4()), [(QC, 10)], key_ids=[key_id], key_bytes=10, owner=owner)
        return list(found.ranges) if isinstance(found, Allocation) else []
    return []


def allocated(replicated: Replicated) -> set[tuple[object, object]]:
    """Start and end of all that the server which takes writes has given."""
    with replicated.database.cluster.admin_url() as url:
        rows, _ = read_allocations(url, SCHEMA)
    return {(row[4], row[5]) for row in rows}


@pytest.mark.parametrize("turn", [1, 2])
def test_standby_takes_over_with_all_that_was_committed(replicated, nodes, turn):
    """Of both servers in turn: nodes find it by themselves, the journal says so, and who was killed follows it."""
    until(replicated.database.has_spare)
    given = [until(lambda: takes(*nodes))[0] for _ in range(20)]
    killed = until(lambda: replicated.database.in_command)

    replicated.database.kill(killed)

    given += until(lambda: takes(*nodes))
    now = until(lambda: replicated.database.in_command)
    assert now != killed
    assert {(r.start, r.end) for r in given} <= allocated(replicated)
    assert len({r.start for r in given}) == len(given)
    switches = until(lambda: journal.read(replicated.journal)[turn - 1:])
    assert {"event": "database_switch", "host": now, "before": killed}.items() <= switches[0].items()

    replicated.database.restart(killed)

    until(replicated.database.has_spare)
    assert replicated.hosts[killed].timeline() == 0, "it takes no writes"
    assert len(journal.read(replicated.journal)) == turn


def test_witness_may_die_and_nothing_happens(replicated, nodes):
    """Two of three members of etcd see each other."""
    until(replicated.database.has_spare)
    before = until(lambda: replicated.database.in_command)
    replicated.database.kill("db3")

    assert all(takes(*nodes) for _ in range(5))
    replicated.database.restart("db3")
    assert replicated.database.in_command == before


def test_dead_host_cannot_be_killed_again(replicated):
    """One line."""
    replicated.database.kill("db3")
    with pytest.raises(UserError, match="fault database db3: all of it has ended already"):
        replicated.database.kill("db3")
    replicated.database.restart("db3")


@pytest.mark.parametrize("port", [API_PORT, CLIENT_PORT, PEER_PORT])
def test_nobody_but_the_hosts_of_the_database_speaks_to_etcd_and_patroni(replicated, port):
    """A node's certificate is of another CA; the hosts' own is let in."""
    where = f"https://{replicated.addresses['db']}:{port}/version"
    node, host = replicated.issue("a"), replicated.inner["db"]
    curl = ["curl", "-s", "--http1.1", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"]
    curl += ["--cacert", str(host.ca)]
    for given, let_in in ((node, False), (host, True), (None, False)):
        shown = [] if given is None else ["--cert", str(given.certificate), "--key", str(given.key)]
        done = subprocess.run([*curl, *shown, where], capture_output=True, text=True, check=False)
        assert (done.stdout != "000") == let_in, "an answer by HTTP, or none"


def test_node_may_not_follow_or_rewind_as_a_server_does(replicated):
    """Roles of servers want a server's certificate."""
    url = replicated.node_url("a")
    for options in ({"user": "qkd_rewinder", "dbname": "template1"}, {"user": "qkd_replicator", "replication": "true"}):
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry|certificate authentication failed"):
            psycopg.connect(url, **options)


def test_keys_of_a_host_are_for_postgres_alone(replicated):
    """In a folder that nobody else may enter."""
    for host in replicated.hosts.values():
        keys = [path.stat() for path in host.directory.glob("*.key")]
        assert len(keys) == 2
        assert {(stat.st_mode & 0o777, stat.st_uid) for stat in keys} == {(0o600, host.directory.stat().st_uid)}
        assert host.directory.stat().st_mode & 0o077 == 0


def test_server_starts_again_though_another_process_has_its_number_now(replicated):
    """It left its number behind when it was killed; processes are counted anew where it starts."""
    until(replicated.database.has_spare)
    (standby,) = {"db", "db2"} - {replicated.database.in_command}
    replicated.database.kill(standby)
    left = replicated.hosts[standby].directory / "data" / "postmaster.pid"
    left.write_text("\n".join(["1", *left.read_text().splitlines()[1:]]) + "\n")

    replicated.database.restart(standby)

    until(replicated.database.has_spare)


def test_commits_that_did_not_wait_are_lost_and_what_they_gave_is_not_given_again(tmp_path):
    """What the old server gave, and the new one never heard of, lies below what the ends of the QC have given up."""
    made = Replicated(tmp_path)
    try:
        made.start(MEMBERS, waits=False)
        with node_at(made, "a") as a, node_at(made, "b") as b:
            until(lambda: takes(a, b))
            made.database.kill("db2")
            lost = until(lambda: takes(a, b))[0]
            made.database.kill("db")
            made.database.restart("db2")
            until(lambda: made.database.in_command == "db2")

            assert (lost.start, lost.end) not in allocated(made)
            with pytest.raises(DatabaseChanged):
                until(lambda: takes_or_raises(a))
            given = until(lambda: takes(a, b, floor=lost.end))[0]

            assert given.start >= lost.end
            made.database.restart("db")
            until(made.database.has_spare)
            assert (lost.start, lost.end) not in allocated(made)
    finally:
        made.stop()
