"""The private shared database under faults of its own: real PostgreSQL, killed and followed by a standby."""

from __future__ import annotations

import psycopg
import pytest

from testbed.database.private_database import PrivateDatabase
from testbed.errors import UserError
from testbed.network.loopback import Stack

TIMELINE = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"


@pytest.fixture(scope="module")
def database(stack: Stack) -> PrivateDatabase:
    """It, with a table."""
    made = PrivateDatabase(stack.cluster, stack.processes, [])
    made.start()
    stack.cluster.create(stack.schema)
    run(stack, "CREATE TABLE kept (n int)")
    return made


def run(stack: Stack, statement: str) -> list[tuple[object, ...]]:
    """What the superuser gets for a statement on a connection of its own."""
    with stack.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:
        done = admin.execute(statement)
        return done.fetchall() if done.description else []


@pytest.mark.parametrize("turn", [1, 2])
def test_standby_has_all_that_was_committed_and_takes_writes_once_promoted(stack, database, turn):
    """And so has the standby's standby."""
    run(stack, "INSERT INTO kept SELECT coalesce(max(n), 0) + 1 FROM kept")
    before = run(stack, TIMELINE)

    database.fail_over()

    assert run(stack, "SELECT max(n) FROM kept") == [(turn,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run(stack, "INSERT INTO kept VALUES (0)")
    assert [p.name for p in stack.processes.dead()] == []

    database.promote()

    run(stack, "INSERT INTO kept VALUES (0)")
    assert run(stack, TIMELINE) > before


def test_killed_standby_comes_back_as_one_and_can_be_promoted(stack, database):
    """Two faults at once; promoting what is dead is one line."""
    database.fail_over()
    stack.processes.named("postgres").kill()
    with pytest.raises(UserError, match="heal standby: ") as error:
        database.promote()
    assert "\n" not in str(error.value)

    database.restart()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run(stack, "INSERT INTO kept VALUES (0)")
    database.promote()

    run(stack, "INSERT INTO kept VALUES (0)")


def test_standby_that_does_not_start_leaves_the_database_as_it_was(stack, database, monkeypatch):
    """Nothing waits for a standby that is not there."""
    monkeypatch.setattr(stack.cluster, "copy", lambda: ["false"])

    with pytest.raises(UserError, match="fault standby: PostgreSQL ended at once"):
        database.fail_over()

    run(stack, "INSERT INTO kept VALUES (0)")
    assert [p.name for p in stack.processes.dead()] == []
