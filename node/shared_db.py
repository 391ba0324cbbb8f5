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

import psycopg
import psycopg.sql

from mtls import trace
from node.connections import Connections, NoAnswer, Row
from node.failures import DatabaseUnreachable
from node.limits import DATABASE_CONNECTIONS
from node.ranges import Answer, Claim, Instruction, Range, Shortage

CONNECTIONS_PER_NODE = 2 * DATABASE_CONNECTIONS  # at most: those of a node that died may be there for a moment
_ADMIN_CONNECT_S = 3
_READ_TIMEOUT_MS = 30_000
_COLLECTED_AT_ONCE = 1000

# Prepared on every connection.
_STATEMENTS = {
    "register_qc": "SELECT qkd_register_qc($1, $2, $3)",
    "report": "SELECT * FROM qkd_report($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    "allocate": "SELECT * FROM qkd_allocate($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    "deliver": "SELECT * FROM qkd_deliver($1, $2, $3, $4, $5)",
    "collect": "SELECT * FROM qkd_collect($1, $2, $3)",
    "available": "SELECT * FROM qkd_available($1)",
    "end_holders": "SELECT qkd_end_holders()",
}

_Value = str | int | Sequence[str] | Sequence[int] | None


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
    with psycopg.connect(url, connect_timeout=_ADMIN_CONNECT_S) as connection:
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
            " qkd_available, qkd_register_qc, qkd_report, qkd_allocate, qkd_deliver, qkd_collect, qkd_end_holders"
            " TO {role}",
        )
        for grant in grants:
            connection.execute(psycopg.sql.SQL(grant).format(schema=name, role=psycopg.sql.Identifier(role)))


def read_allocations(url: str, schema: str) -> list[tuple[str, int, int, int, str]]:
    """Every allocation ever made, as (QC, epoch, start, end, request), for its owner to audit."""
    query = psycopg.sql.SQL("SELECT qc, epoch, start_at, end_at, request::text FROM {}.allocation").format(
        psycopg.sql.Identifier(schema)
    )
    with psycopg.connect(
        url, connect_timeout=_ADMIN_CONNECT_S, tcp_user_timeout=_READ_TIMEOUT_MS,
        options=f"-c statement_timeout={_READ_TIMEOUT_MS}",
    ) as connection:  # fmt: skip
        return connection.execute(query).fetchall()


class SharedDatabase:
    """Calls of node `node` to the shared database."""

    def __init__(self, url: str, schema: str, node: str, *, round_trip_s: float = 0.0) -> None:
        self._node = node
        self._connections = Connections(
            url, search_path=schema, prepared=_STATEMENTS, free="end_holders", round_trip_s=round_trip_s
        )

    def open(self) -> None:
        """Start connecting; returns at once."""
        self._connections.open()

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def register_qc(self, qc: str, peer: str) -> None:
        """Announce a QC between this node and `peer`."""
        self._call("register_qc", qc, self._node, peer)

    def report(self, claims: Sequence[Claim], number: int) -> dict[str, Answer]:
        """Say what this end holds; what the other end holds alike can be allocated from then on. The answers by QC.

        `number` grows with each report: one that others have overtaken counts for nothing, and has no answers.
        """
        marks = [(claim.qc, mark) for claim in claims for mark in claim.marks]
        rows = self._call(
            "report", self._node, number, [c.qc for c in claims], [c.epoch for c in claims], [c.floor for c in claims],
            [c.after for c in claims], [qc for qc, _ in marks], [m.start for _, m in marks], [m.end for _, m in marks],
            [m.digest.hex() for _, m in marks],
        )  # fmt: skip
        epochs = {claim.qc: claim.epoch for claim in claims}
        differing: dict[str, list[Range]] = {qc: [] for qc, *_ in rows}
        for qc, known, start, end in rows:
            if not known:
                differing[qc].append(Range(qc, int(start), int(end), epochs[qc]))
        return {qc: Answer(int(known), differing[qc]) for qc, known, *_ in rows if known}

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
        whose = (owner.ksid, owner.master_sae, owner.slave_sae, owner.slave_node) if owner else (None,) * 4
        span = trace.current()
        rows = self._call(
            "allocate", request, self._node, [qc for qc, _ in needs], [n for _, n in needs], key_ids, key_bytes, *whose,
            span.trace if span else None,
        )  # fmt: skip
        qc, *_, short = rows[0]
        if int(short):
            return Shortage(qc, int(short))
        return [_range(*place) for *place, _ in rows]

    def deliver(self, master_sae: str, slave_sae: str, key_ids: Sequence[str]) -> list[Instruction]:
        """The instructions of all `key_ids` and of keys made with them; Foreign or NotFound, and none is delivered."""
        rows = self._call("deliver", str(uuid.uuid4()), self._node, master_sae, slave_sae, key_ids)
        if rows[0][0] == "foreign":
            raise Foreign
        if rows[0][0] == "missing":
            raise NotFound
        return [
            Instruction(key, request, ksid, master_sae, slave_sae, _range(*place), verdict == "ok", _hex(of))
            for verdict, key, request, ksid, *place, of in rows
        ]

    def collect(self) -> list[Instruction]:
        """Instructions for this node that nobody has asked for yet; they count as delivered."""
        rows = self._call("collect", str(uuid.uuid4()), self._node, _COLLECTED_AT_ONCE)
        return [
            Instruction(key, request, ksid, master, slave, _range(*place), False, _hex(of))
            for key, request, ksid, master, slave, *place, of in rows
        ]

    def available(self, qcs: Sequence[str]) -> dict[str, int]:
        """Bytes that could be allocated now on each of `qcs`; a QC that nobody registered is left out."""
        return {qc: int(n_bytes) for qc, n_bytes in self._call("available", list(qcs))}

    def _call(self, statement: str, *values: _Value) -> list[Row]:
        try:
            return self._connections.call(statement, [_encoded(value) for value in values])
        except NoAnswer as error:
            raise DatabaseUnreachable(f"the shared database {error}") from error


def _range(qc: str, epoch: str, start: str, end: str) -> Range:
    return Range(qc, int(start), int(end), int(epoch))


def _hex(trace_id: str) -> str:
    """A trace ID as a journal has it: PostgreSQL keeps it as a UUID, of the same 16 bytes."""
    return trace_id.replace("-", "")


def _encoded(value: _Value) -> bytes | None:
    """A value as PostgreSQL reads it."""
    if value is None:
        return None
    if isinstance(value, str | int):
        return str(value).encode()
    quoted = (str(v).replace("\\", r"\\").replace('"', r"\"") for v in value)
    return ("{" + ",".join(f'"{v}"' for v in quoted) + "}").encode()
