"""The shared database as a node uses it: every call one round trip, every decision made there under row locks.

Both ends of a QC allocate from the same stream; who was first is decided by the row lock of that QC in PostgreSQL,
never here. A connection that the server dropped (it restarted, say) is noticed at its next use; the call is then
repeated once on a fresh one. That is harmless, because allocations and deliveries carry an ID of their own and get
the same answer twice, and reports only grow.
"""

from __future__ import annotations

import importlib.resources
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg.sql
from psycopg_pool import ConnectionPool, PoolTimeout

from node.failures import DatabaseUnreachable
from node.key_stream import Held
from node.ranges import Instruction, Range, Shortage

# They bound how long a request waits for a database that is away; GS QKD 014 clients give up after seconds.
_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 3000
_WAIT_S = 2.0
_READ_TIMEOUT_MS = 30_000
_COLLECTED_AT_ONCE = 1000


class Foreign(Exception):
    """A key ID asked for belongs to another SAE (GS QKD 014, clause 5.4: 401)."""


class NotFound(Exception):
    """A key ID asked for is unknown, was fetched already, or is another master's (clause 5.4: 400)."""


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whose keys an allocation makes: the session, its SAEs and the slave's node."""

    ksid: str
    master_sae: str
    slave_sae: str
    slave_node: str


def install_schema(url: str, schema: str, role: str | None) -> None:
    """Make `schema` in the database at `url`; `role`, if it is not the owner, may call its functions and nothing else.

    Each network has a schema of its own: streams of an earlier one, whose offsets mean other bytes, are out of sight.
    """
    name = psycopg.sql.Identifier(schema)
    sql = importlib.resources.files("node").joinpath("shared_db.sql").read_text()
    with psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        # Temporary tables last: by default they come first, and a caller's own would shadow ours in functions that run
        # with the owner's rights.
        connection.execute(psycopg.sql.SQL("SET search_path = {}, pg_temp").format(name))
        connection.execute(sql)
        if role is None:
            return
        grants = (
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT EXECUTE ON FUNCTION"
            " qkd_available, qkd_register_qc, qkd_report, qkd_allocate, qkd_deliver, qkd_collect TO {role}",
        )
        for grant in grants:
            connection.execute(psycopg.sql.SQL(grant).format(schema=name, role=psycopg.sql.Identifier(role)))


def read_allocations(url: str, schema: str) -> list[tuple[str, int, int, str]]:
    """Every allocation ever made, as (QC, start, end, request), for its owner to audit."""
    query = psycopg.sql.SQL("SELECT qc, start_at, end_at, request::text FROM {}.allocation").format(
        psycopg.sql.Identifier(schema)
    )
    with psycopg.connect(
        url, connect_timeout=_CONNECT_TIMEOUT_S, tcp_user_timeout=_READ_TIMEOUT_MS,
        options=f"-c statement_timeout={_READ_TIMEOUT_MS}",
    ) as connection:  # fmt: skip
        return connection.execute(query).fetchall()


class SharedDatabase:
    """A pool of connections to the shared database as node `node`."""

    def __init__(self, url: str, schema: str, node: str, *, connections: int = 8) -> None:
        self._node = node
        options = {
            "autocommit": True,
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "options": f"-c search_path={schema} -c statement_timeout={_STATEMENT_TIMEOUT_MS}",
            "tcp_user_timeout": _STATEMENT_TIMEOUT_MS,
            # Prepared at its first use, a statement costs a second round trip once a connection, and a sixth less of
            # the server's and our own time ever after.
            "prepare_threshold": 0,
        }
        self._pool = ConnectionPool(
            url, kwargs=options, min_size=2, max_size=connections, timeout=_WAIT_S, open=False,
            reconnect_timeout=2,
        )  # fmt: skip

    def open(self) -> None:
        """Start connecting; returns at once."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def register_qc(self, qc: str, peer: str) -> None:
        """Announce a QC between this node and `peer`."""
        self._call("SELECT qkd_register_qc(%s, %s, %s)", (qc, self._node, peer))

    def report(self, held: Sequence[Held]) -> None:
        """Say what this end holds; from then on it can be allocated as far as the other end holds it too."""
        self._call(
            "SELECT qkd_report(%s, %s, %s, %s)",
            (self._node, [h.qc for h in held], [h.head for h in held], [h.floor for h in held]),
        )

    def allocate(
        self,
        request: str,
        needs: Sequence[tuple[str, int]],
        *,
        key_ids: Sequence[str] = (),
        key_bytes: int = 0,
        owner: KeyOwner | None = None,
    ) -> list[Range] | Shortage:
        """Ranges for all of `needs` (QC, bytes), in that order, or the shortage. With `key_ids`, single-hop keys."""
        rows = self._call(
            "SELECT * FROM qkd_allocate(%s, %s, %s, %s, %s::uuid[], %s, %s, %s, %s, %s)",
            (
                uuid.UUID(request), self._node, [qc for qc, _ in needs], [n for _, n in needs],
                list(key_ids), key_bytes,
                owner and owner.ksid, owner and owner.master_sae, owner and owner.slave_sae, owner and owner.slave_node,
            ),
        )  # fmt: skip
        if rows[0][3]:
            return Shortage(rows[0][0], rows[0][3])
        return [Range(qc, start, end) for qc, start, end, _ in rows]

    def deliver(self, master_sae: str, slave_sae: str, key_ids: Sequence[str]) -> list[Instruction]:
        """The instructions of all `key_ids` and of keys made with them; Foreign or NotFound, and none is delivered."""
        rows = self._call(
            "SELECT * FROM qkd_deliver(%s, %s, %s, %s, %s::uuid[])",
            (uuid.uuid4(), self._node, master_sae, slave_sae, list(key_ids)),
        )
        if rows[0][0] == "foreign":
            raise Foreign
        if rows[0][0] == "missing":
            raise NotFound
        return [
            Instruction(
                str(key), str(request), str(ksid), master_sae, slave_sae, Range(qc, start, end), asked=verdict == "ok"
            )
            for verdict, key, request, ksid, qc, start, end in rows
        ]

    def collect(self) -> list[Instruction]:
        """Instructions for this node that nobody has asked for yet; they count as delivered."""
        rows = self._call("SELECT * FROM qkd_collect(%s, %s, %s)", (uuid.uuid4(), self._node, _COLLECTED_AT_ONCE))
        return [
            Instruction(str(key), str(request), str(ksid), str(master), str(slave), Range(qc, start, end), asked=False)
            for key, request, ksid, master, slave, qc, start, end in rows
        ]

    def available(self, qcs: Sequence[str]) -> dict[str, int]:
        """Bytes that could be allocated now on each of `qcs`; a QC that nobody registered is left out."""
        return dict(self._call("SELECT * FROM qkd_available(%s)", (list(qcs),)))

    def _call(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            try:
                return self._once(sql, values)
            except psycopg.OperationalError:
                self._pool.check()  # a restart broke all of them, not only this one
                return self._once(sql, values)
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise DatabaseUnreachable(f"the shared database does not answer ({type(error).__name__})") from error

    def _once(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        # Not as a context: that would end a transaction, where there is none.
        connection = self._pool.getconn()
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            self._pool.putconn(connection)
