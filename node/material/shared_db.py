"""The shared database as a node uses it: every call one round trip, every decision made there under row locks.

Both ends of a QC allocate from the same stream; who was first is decided by the row lock of that QC in PostgreSQL,
never here. A connection that the server dropped (it restarted, say) is noticed at its next use; the call is then
repeated once on a fresh one. That is harmless, because allocations and deliveries carry an ID of their own and get
the same answer twice, and of reports the last one counts.

A server that was not there all the time may have lost what another one had given. So a node enters each server anew
(see KeyStore.follow), and a server gives ranges of a QC only when both its ends have reported to it.
"""

from __future__ import annotations

import importlib.resources
import logging
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg.sql

from decisions.ranges import Allocation, Answer, Claim, Instruction, Range, Shortage
from mtls import deadline
from mtls.connections import libpq
from mtls.connections.libpq import Row
from node.failures import DatabaseChanged, DatabaseRefused, DatabaseUnreachable, KeyFailure, TooLate
from node.limits import (
    ANSWER_S,
    DATABASE_CONNECTIONS,
    DATABASE_CONNECTIONS_PER_QC,
    DATABASE_REPORT_S,
    DATABASE_WAIT_S,
    LEAST_S,
)
from node.material.connections import Connections, NoAnswer
from node.waiting_limits import Turns
from telemetry import trace

CONNECTIONS_PER_NODE = 2 * DATABASE_CONNECTIONS  # at most: those of a node that died may be there for a moment
_ADMIN_CONNECT_S = 3
_READ_TIMEOUT_MS = 30_000
_COLLECTED_AT_ONCE = 1000
_MOST_IN_DOUBT = 1000  # deliveries
_SECRET_BYTES = 32
_HMAC_BLOCK_BYTES = 64  # of SHA-256
_OTHER_SERVER, _NOT_REPORTED = "QK002", "QK003"  # see shared_db.sql

# Prepared on every connection.
_STATEMENTS = {
    "enter": "SELECT * FROM qkd_enter($1, $2, $3)",
    "count": "SELECT qkd_count($1, $2)",
    "report": "SELECT * FROM qkd_report($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    "allocate": "SELECT * FROM qkd_allocate($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    "deliver": "SELECT * FROM qkd_deliver($1, $2, $3, $4, $5, $6)",
    "collect": "SELECT * FROM qkd_collect($1, $2, $3, $4)",
    "cost": "SELECT * FROM qkd_cost($1, $2)",
    "available": "SELECT * FROM qkd_available($1)",
    "end_holders": "SELECT qkd_end_holders()",
    "end_barred": "SELECT qkd_end_barred()",
}
# What a node says and asks of its own accord. Requests of SAEs make all other calls.
_UPKEEP = {"enter", "count", "report", "collect", "cost"}

_Value = str | int | Sequence[str] | Sequence[int] | None
_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in a network: its nodes, the node of each SAE, the two nodes that each QC joins."""

    nodes: Sequence[str]
    saes: Mapping[str, str]
    qcs: Mapping[str, tuple[str, str]]


def install_schema(url: str, schema: str, role: str | None) -> None:
    """Make `schema` in the database at `url`; `role`, if it is not the owner, may call its functions and nothing else.

    Each network has a schema of its own: streams of an earlier one, whose offsets mean other bytes, are out of sight.
    """
    name = psycopg.sql.Identifier(schema)
    sql = importlib.resources.files("node.material").joinpath("shared_db.sql").read_text()
    with psycopg.connect(url, connect_timeout=_ADMIN_CONNECT_S) as connection:
        libpq.make_schema(connection, schema, sql)
        if role is None:
            return
        grants = (
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT EXECUTE ON FUNCTION qkd_enter, qkd_count, qkd_report, qkd_allocate, qkd_deliver, qkd_collect,"
            " qkd_cost, qkd_available, qkd_end_holders, qkd_end_barred TO {role}",
        )
        for grant in grants:
            connection.execute(psycopg.sql.SQL(grant).format(schema=name, role=psycopg.sql.Identifier(role)))


def declare(url: str, schema: str, members: Members) -> None:
    """As the schema's owner: these belong to the network, beside those declared before. To be done before they come."""
    with psycopg.connect(url, connect_timeout=_ADMIN_CONNECT_S) as connection:
        connection.execute(psycopg.sql.SQL("SET search_path = {}").format(psycopg.sql.Identifier(schema)))
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO node VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(node, *_secrets()) for node in members.nodes],
            )
            cursor.executemany("INSERT INTO sae VALUES (%s, %s) ON CONFLICT DO NOTHING", list(members.saes.items()))
            cursor.executemany(
                "INSERT INTO qc (name, node_a, node_b) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [(qc, *sorted(ends)) for qc, ends in members.qcs.items()],
            )


Rows = list[tuple[object, ...]]


def read_allocations(url: str, schema: str) -> tuple[Rows, Rows]:
    """What the database gave, ever, for its owner to audit: allocations, and the keys that they made.

    (request, position on the path from 1 on, QC, epoch, start, end, node that asked) for each range; (key ID, request,
    master SAE, slave SAE) for each key, in the order in which their parts lie in the ranges (see qkd_cost).
    """
    queries = (
        "SELECT request::text, position, qc, epoch, start_at, end_at, node FROM {}.allocation",
        "SELECT key_id::text, request::text, master_sae, slave_sae FROM {}.key ORDER BY request, start_at, key_id",
    )
    with psycopg.connect(
        url, connect_timeout=_ADMIN_CONNECT_S, tcp_user_timeout=_READ_TIMEOUT_MS,
        options=f"-c statement_timeout={_READ_TIMEOUT_MS}",
    ) as connection:  # fmt: skip
        allocations, keys = (
            connection.execute(psycopg.sql.SQL(query).format(psycopg.sql.Identifier(schema))).fetchall()
            for query in queries
        )
        return allocations, keys


def _nothing() -> None:
    """What is asked again does no harm."""


class SharedDatabase:
    """Calls of node `node` to the shared database. Each may raise DatabaseUnreachable, -Changed, -Refused, TooLate."""

    def __init__(self, url: str, schema: str, node: str, *, round_trip_s: float = 0.0) -> None:
        self._node = node
        self._connections = Connections(
            url, search_path=schema, prepared=_STATEMENTS, free=("end_holders", "end_barred"), upkeep=_UPKEEP,
            round_trip_s=round_trip_s,
        )  # fmt: skip
        self._at_qcs = Turns(DATABASE_CONNECTIONS_PER_QC)
        self._server = ""  # that this node has entered last
        self.secret: bytes | None = None  # which this node shares with the database, once it has entered
        self._on_other_server: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        # Names of deliveries whose answer did not come, by the keys that were asked for.
        self._in_doubt: dict[tuple[str, ...], list[str]] = {}
        self._reported = threading.Event()  # to the server that was the last to answer

    @property
    def round_trip_s(self) -> float:
        """How far away it is, as expected or as measured, whichever is more."""
        return self._connections.round_trip_s

    def open(self) -> None:
        """Start connecting; returns at once."""
        self._connections.open()

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def on_other_server(self, step: Callable[[], None]) -> None:
        """Call `step` when a call has met a server to which an end of a QC has not reported yet, this one perhaps."""
        self._on_other_server = step

    def enter(self, peers: Mapping[str, str]) -> tuple[str, int]:
        """Begin to speak to the server that answers now: it, and how far the local database had counted before.

        `peers`: of this node's QCs, by name. Before the first report the local database has to follow that server.
        """
        ((server, secret, told),) = self._call("enter", self._node, list(peers), list(peers.values()))
        self._server, self.secret = server, bytes.fromhex(secret)
        return server, int(told)

    def count(self, number: int) -> None:
        """Say how far the local database has counted."""
        self._call("count", self._node, number)

    def report(self, claims: Sequence[Claim], number: int) -> dict[str, Answer]:
        """Say what this end holds; what the other end holds alike can be allocated from then on. The answers by QC.

        `number` grows with each report: one that others have overtaken counts for nothing, and has no answers.
        """
        marks = [(claim.qc, mark) for claim in claims for mark in claim.marks]
        rows = self._call(
            "report", self._node, self._server, number, [c.qc for c in claims], [c.epoch for c in claims],
            [c.floor for c in claims], [c.after for c in claims], [qc for qc, _ in marks], [m.start for _, m in marks],
            [m.end for _, m in marks], [m.digest.hex() for _, m in marks],
        )  # fmt: skip
        self._reported.set()
        epochs = {claim.qc: claim.epoch for claim in claims}
        differing: dict[str, list[Range]] = {qc: [] for qc, *_ in rows}
        for qc, known, start, end in rows:
            if not known:
                differing[qc].append(Range(qc, int(start), int(end), epochs[qc]))
        return {qc: Answer(int(known), differing[qc]) for qc, known, *_ in rows if known}

    def allocate(
        self, request: str, needs: Sequence[tuple[str, int]], *, key_ids: Sequence[str], key_bytes: int, owner: KeyOwner
    ) -> Allocation | Shortage:
        """Ranges for all of `needs` (QC, bytes), in the order of the path, for keys of `owner`; or the shortage."""
        span, asked_again = trace.current(), threading.Event()
        qcs = [qc for qc, _ in needs]
        full = DatabaseUnreachable(f"other requests wait at the shared database for {', '.join(qcs)}: try again")
        with self._at_qcs.taken(qcs, min(DATABASE_WAIT_S, deadline.left(DATABASE_WAIT_S)), full=full):
            server, rows = self._given(
                "allocate", request, qcs, [n for _, n in needs], key_ids, key_bytes, owner.ksid, owner.master_sae,
                owner.slave_sae, owner.slave_node, span.trace if span else None, on_again=asked_again.set,
            )  # fmt: skip
        qc, *_, short, _ = rows[0]
        if int(short):
            return Shortage(qc, int(short), in_doubt=asked_again.is_set())
        proofs = [proof for *_, proof in rows if proof]
        ranges = [where for *place, _, _ in rows if (where := _followable(request, place)) is not None]
        if [(where.qc, len(where)) for where in ranges] != list(needs):
            raise DatabaseUnreachable("the shared database gives an answer that makes no sense")
        return Allocation(request, server, ranges, proofs)

    def deliver(
        self, master_sae: str, slave_sae: str, key_ids: Sequence[str]
    ) -> tuple[list[Instruction], list[str]]:
        """The instructions of `key_ids` and of keys made with them; Foreign or NotFound, and none is delivered.

        Beside them the IDs of those keys whose instruction cannot be followed, which are lost.
        """
        server, rows = self._delivered(master_sae, slave_sae, key_ids)
        if rows[0][0] == "foreign":
            raise Foreign
        if rows[0][0] == "missing":
            raise NotFound
        return _instructions(
            (key, request, ksid, master_sae, slave_sae, *where, asked == "ok", server)
            for asked, key, request, ksid, *where in rows
        )

    def _delivered(self, master_sae: str, slave_sae: str, key_ids: Sequence[str]) -> tuple[str, list[Row]]:
        """The rows that say where these keys are, and the server.

        A database that was only slow may have marked them as delivered, under the name that the request for them had.
        So they are asked for under that name again, when their slave comes again.
        """
        asked = master_sae, slave_sae, *sorted(key_ids)
        with self._lock:  # several, if it asked for them several times at once
            names = self._in_doubt.pop(asked, None) or [str(uuid.uuid4())]
        while True:
            try:
                server, rows = self._given("deliver", names[-1], master_sae, slave_sae, key_ids)
            except KeyFailure:
                with self._lock:
                    self._in_doubt.setdefault(asked, []).extend(names)
                    if len(self._in_doubt) > _MOST_IN_DOUBT:
                        del self._in_doubt[next(iter(self._in_doubt))]
                raise
            names.pop()
            if rows[0][0] != "missing" or not names:
                return server, rows

    def collect(self, collection: str) -> tuple[list[Instruction], list[str]]:
        """Instructions for this node that nobody has asked for yet; they count as delivered. The lost as in `deliver`.

        With them those that were given under the same name before: a node has the name until it keeps them.
        """
        server = self._server
        rows = self._call("collect", collection, self._node, server, _COLLECTED_AT_ONCE)
        return _instructions((*row, False, server) for row in rows)

    def cost(self, key_ids: Sequence[str]) -> list[tuple[str, str, Range]]:
        """(key ID, request, range) for each part of an allocation that one of these keys has cost, request by request.

        Nothing of a key that was never allocated, or is neither this node's nor for one of its SAEs. At most 4096 keys.
        """
        rows = self._call("cost", self._node, list(key_ids))
        return [(key, of, where) for key, of, *place in rows if (where := _followable(key, place)) is not None]

    def available(self, qcs: Sequence[str]) -> dict[str, int]:
        """Bytes that could be allocated now on each of `qcs`; a QC that nobody declared is left out."""
        return {qc: int(n_bytes) for qc, n_bytes in self._call("available", list(qcs))}

    def _given(
        self, statement: str, request: str, *values: _Value, on_again: Callable[[], object] = _nothing
    ) -> tuple[str, list[Row]]:
        """The rows, and the server that gave them, to which this node has reported: waits a moment until it has."""
        patience_s = max(0.0, deadline.left(DATABASE_REPORT_S))
        waited = not self._reported.wait(patience_s)
        server = self._server
        try:
            rows = self._call(statement, request, self._node, server, *values, on_again=on_again)
        except DatabaseChanged:
            if waited or not self._reported.wait(patience_s):
                raise
            server = self._server
            rows = self._call(statement, request, self._node, server, *values, on_again=on_again)
        self._reported.set()
        return server, rows

    def _call(self, statement: str, *values: _Value, on_again: Callable[[], object] = _nothing) -> list[Row]:
        # A call that nobody waits for to its end costs a connection, and clients may say how long they wait.
        if deadline.left(ANSWER_S) < LEAST_S + self._connections.round_trip_s:
            raise TooLate
        try:
            return self._connections.call(statement, [_encoded(value) for value in values], on_again)
        except NoAnswer as error:
            raise DatabaseUnreachable(f"the shared database {error}") from error
        except psycopg.Error as error:
            said = error.diag.message_primary or str(error)
            if error.sqlstate in (_OTHER_SERVER, _NOT_REPORTED):
                self._reported.clear()
                self._on_other_server()
                text = f"the shared database has begun anew, and waits for what the ends of QCs hold: {said}: try again"
                raise DatabaseChanged(text) from None
            _log.error("the shared database refuses %s of this node: %s", statement, said)
            raise DatabaseRefused(f"the shared database refuses {statement}: {said}") from error


def _secrets() -> tuple[bytes, bytes, bytes]:
    """A new secret, and the two keys of HMAC that are made of it (RFC 2104)."""
    secret = secrets.token_bytes(_SECRET_BYTES)
    padded = secret.ljust(_HMAC_BLOCK_BYTES, b"\0")
    return secret, bytes(b ^ 0x36 for b in padded), bytes(b ^ 0x5C for b in padded)


def _range(qc: str, epoch: str, start: str, end: str) -> Range:
    return Range(qc, int(start), int(end), int(epoch))


def _followable(key_or_request: str, place: Sequence[str]) -> Range | None:
    """Where the database says that something lies; None, and a line in the log, if nothing can lie there."""
    try:
        return _range(*place)
    except ValueError:
        _log.error("the shared database says of %s that it lies at %s", key_or_request, place)
        return None


def _instructions(rows: Iterable[tuple[Any, ...]]) -> tuple[list[Instruction], list[str]]:
    """Those of the rows that can be followed, and the IDs of the keys of the others, with a line each in the log."""
    found: list[Instruction] = []
    lost: list[str] = []
    for key, request, ksid, master, slave, *place, of, age_ms, asked, server in rows:
        try:
            where, age_s = _range(*place), int(age_ms) / 1000
        except ValueError:
            _log.error("the shared database says of key %s that it lies at %s, %s ms old", key, place, age_ms)
            lost.append(key)
        else:
            found.append(Instruction(key, request, ksid, master, slave, where, asked, _hex(of), age_s, server))
    return found, lost


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
