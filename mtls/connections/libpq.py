"""What nodes and controllers have in common at PostgreSQL: a schema of their own, and statements answered in time.

Statements go by libpq itself, each with a moment by which its answer must be there. psycopg's own way waits for as long
as the server keeps it waiting, and costs as much again as the server takes.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping, Sequence

import psycopg
import psycopg.errors
import psycopg.sql
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

Row = tuple[str, ...]  # NULL is the empty string


def prepare(pgconn: PGconn, statements: Mapping[str, str], until: float) -> None:
    """Have the server know the statements by their names, in one round trip. psycopg.Error as of `call`."""
    pgconn.enter_pipeline_mode()
    for name, sql in statements.items():
        pgconn.send_prepare(name.encode(), sql.encode())
    pgconn.pipeline_sync()
    for _ in statements:
        _finish(pgconn, until)
    _next_result(pgconn, _poll(pgconn), until)  # of the synchronisation
    pgconn.exit_pipeline_mode()


def make_schema(connection: psycopg.Connection[tuple[object, ...]], schema: str, sql: str) -> None:
    """Make `schema` with what `sql` makes, and have the connection work in it."""
    name = psycopg.sql.Identifier(schema)
    connection.execute("SET client_min_messages = warning")
    connection.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
    # Temporary tables last: by default they come first, and a caller's own would shadow ours in functions that run
    # with the owner's rights.
    connection.execute(psycopg.sql.SQL("SET search_path = {}, pg_temp").format(name))
    connection.execute(sql.encode())


def call(pgconn: PGconn, statement: str, values: Sequence[bytes | None], until: float) -> list[Row]:
    """The rows that a prepared statement gives; psycopg.Error, without SQLSTATE if none came until that moment."""
    pgconn.send_query_prepared(statement.encode(), values)
    return _finish(pgconn, until)


def _finish(pgconn: PGconn, until: float) -> list[Row]:
    """The rows of what was sent."""
    waiting = _poll(pgconn, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        _wait(pgconn, waiting, until)
    waiting.modify(pgconn.socket, select.POLLIN)
    result = None
    while (found := _next_result(pgconn, waiting, until)) is not None:
        result = found
    if result is None or pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError("the connection is lost")
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result)
    columns = range(result.nfields)
    return [tuple((result.get_value(i, c) or b"").decode() for c in columns) for i in range(result.ntuples)]


def _poll(pgconn: PGconn, events: int = select.POLLIN) -> select.poll:
    waiting = select.poll()
    waiting.register(pgconn.socket, events)
    return waiting


def _next_result(pgconn: PGconn, waiting: select.poll, until: float) -> PGresult | None:
    while pgconn.is_busy():
        _wait(pgconn, waiting, until)
    return pgconn.get_result()


def _wait(pgconn: PGconn, waiting: select.poll, until: float) -> None:
    left_ms = 1000 * (until - time.monotonic())
    if left_ms <= 0 or not waiting.poll(left_ms):
        raise psycopg.errors.ConnectionTimeout("no answer in time")
    pgconn.consume_input()
