"""What the controllers of a network share in its PostgreSQL: the lease of who leads, and the store that only he writes.

Every call is one statement and has a deadline. A connection that broke, as the server restarted, say, is made anew, and
the call repeated once: what is kept twice is kept once, and a lease is taken over only once a term.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import threading
import time
from collections.abc import Callable

import psycopg
import psycopg.sql

from controller import limits
from controller.leading.lease import Leader
from controller.network.store import NotKept, Store
from mtls.connections import libpq

_log = logging.getLogger(__name__)
_ADMIN_CONNECT_S = 3
_CONNECT_S = 2  # libpq takes no less
_TERM_OVER = "QK011"
_STATEMENTS = {
    "lead": "SELECT * FROM ctl_lead($1, $2, $3)",
    "renew": "SELECT * FROM ctl_renew($1, $2, $3, $4)",
    "resign": "SELECT ctl_resign($1, $2)",
    "keep": "SELECT ctl_keep($1, $2, $3, $4, $5)",
    "kept": "SELECT * FROM ctl_kept($1, $2)",
}
_FUNCTIONS = "ctl_lead, ctl_renew, ctl_resign, ctl_keep, ctl_kept"


class TermOver(NotKept):
    """Another controller leads by now."""


def install_schema(url: str, schema: str, role: str | None, *, first: str, round_trip_s: float) -> None:
    """Make `schema` in the database at `url`; `role`, if it is not the owner, may call its functions and nothing else.

    The controller `first` may lead at once, any other one only if that has not come after a lease.
    """
    name = psycopg.sql.Identifier(schema)
    sql = importlib.resources.files("controller.leading").joinpath("shared_store.sql").read_text()
    with psycopg.connect(url, connect_timeout=_ADMIN_CONNECT_S) as connection:
        libpq.make_schema(connection, schema, sql)
        connection.execute(
            "INSERT INTO leader (name, term, until, heard) VALUES (%s, 0, clock_timestamp() + %s * interval '1 s',"
            " clock_timestamp()) ON CONFLICT DO NOTHING",
            (first, limits.lease_s(round_trip_s)),
        )
        if role is not None:
            for grant in ("GRANT USAGE ON SCHEMA {} TO {}", f"GRANT EXECUTE ON FUNCTION {_FUNCTIONS} TO {{1}}"):
                connection.execute(psycopg.sql.SQL(grant).format(name, psycopg.sql.Identifier(role)))


class Calls:
    """One connection to the database at `url` for controller `name`, made when it is needed. Thread-safe."""

    def __init__(self, url: str, schema: str, name: str, *, round_trip_s: float) -> None:
        self._url = url
        self._name = name
        self._options = f"-c search_path={schema} -c statement_timeout={limits.STORE_CALL_S * 1000:.0f}"
        self._call_s = limits.STORE_CALL_S + limits.STORE_ROUND_TRIPS * round_trip_s
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def call(self, statement: str, *values: str | int | None) -> list[libpq.Row]:
        """The rows that it gives for this controller. NotKept; TermOver if the database says so."""
        given = [None if value is None else str(value).encode() for value in (self._name, *values)]
        with self._lock:
            for is_last in (False, True):
                made_before = self._connection is not None
                try:
                    connection = self._connection or self._connect()
                    return libpq.call(connection.pgconn, statement, given, time.monotonic() + self._call_s)
                except psycopg.Error as error:
                    state = error.sqlstate or ""
                    if state == _TERM_OVER:
                        raise TermOver("another controller leads by now") from None
                    self._drop()
                    if is_last or not made_before:
                        _log.info("the shared database: %s", " ".join(str(error).split()))
                        why = f"refuses (SQLSTATE {state})" if state else "does not answer"
                        raise NotKept(f"the shared database, which has the controllers' store, {why}") from None
        raise AssertionError  # the second try is the last one

    def close(self) -> None:
        """Drop the connection."""
        with self._lock:
            self._drop()

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        connect_s = _CONNECT_S + round(self._call_s - limits.STORE_CALL_S)
        self._connection = psycopg.connect(
            self._url, autocommit=True, options=self._options, connect_timeout=connect_s,
            keepalives_idle=1, keepalives_interval=1, keepalives_count=3, tcp_user_timeout=round(self._call_s * 1000),
        )  # fmt: skip
        libpq.prepare(self._connection.pgconn, _STATEMENTS, time.monotonic() + self._call_s)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection = None


class LeaseCalls:
    """The lease, as the database keeps it, for so many seconds at a time."""

    def __init__(self, calls: Calls, lease_s: float) -> None:
        self._calls = calls
        self._lease_ms = round(lease_s * 1000)

    def lead(self, *, take: bool = True) -> tuple[Leader, float | None]:
        """Who leads, and seconds since the leader, or the one before, was heard.

        It is this controller if nobody else does and it is to (`take`), or if what it was before does.
        """
        ((name, term, _, silent_ms),) = self._calls.call("lead", self._lease_ms, str(take))
        return Leader(name, int(term)), None if int(silent_ms) < 0 else int(silent_ms) / 1000

    def renew(self, term: int, above: int) -> Leader:
        """This controller, which leads in `term`, is there: who leads. Its term is above `above` from then on."""
        ((name, now),) = self._calls.call("renew", term, above, self._lease_ms)
        return Leader(name, int(now))

    def resign(self, term: int) -> None:
        """This controller does not lead any more."""
        self._calls.call("resign", term)


class SharedStore(Store):
    """The store of the leader, in a term that may grow. `sure` says whether it leads for certain.

    If it does not, nothing is asked of the database: each thread that keeps something would wait for it in vain. What
    cannot be forgotten now is forgotten later (`catch_up`). `on_over` is called when the term is over.
    """

    def __init__(
        self, calls: Calls, term: Callable[[], int], sure: Callable[[], bool], on_over: Callable[[], None]
    ) -> None:
        self._calls = calls
        self._term = term
        self._sure = sure
        self._on_over = on_over
        self._lock = threading.Lock()
        self._to_forget: set[tuple[str, str]] = set()

    def close(self) -> None:
        """Drop the connection."""
        self._calls.close()

    def catch_up(self) -> None:
        """Forget what was to be forgotten and could not."""
        with self._lock:
            waiting = list(self._to_forget)
        for kind, name in waiting:
            self._keep(kind, name, None)
            with self._lock:
                self._to_forget.discard((kind, name))

    def _put(self, kind: str, name: str, text: str | None) -> None:
        with self._lock:
            (self._to_forget.add if text is None else self._to_forget.discard)((kind, name))
        try:
            self._keep(kind, name, text)
        except NotKept:
            if text is not None:
                raise
            return
        with self._lock:
            self._to_forget.discard((kind, name))

    def _keep(self, kind: str, name: str, text: str | None) -> None:
        if not self._sure():
            raise NotKept("this controller has not reached the shared database lately, and may lead no more: try again")
        try:
            self._calls.call("keep", self._term(), kind, name, text)
        except TermOver:
            self._on_over()
            raise

    def _texts(self, kind: str) -> dict[str, str]:
        return {key: document for key, document, *_ in self._calls.call("kept", kind)}
