"""Connections to the shared database: each call has a deadline, and a connection that failed serves nobody again.

A server that restarted, was cut off, or is no longer the one that takes writes has broken every connection, not only
the one on which that is noticed: those that are older than the failure are closed in place of being tried one by one.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg.conninfo
import psycopg.errors
from psycopg.pq.abc import PGconn
from psycopg_pool import ConnectionPool

from mtls import deadline, liveness
from mtls.connections import libpq
from mtls.connections.libpq import Row
from node.limits import (
    DATABASE_CALL_S,
    DATABASE_CONNECT_S,
    DATABASE_CONNECTIONS,
    DATABASE_IDLE_S,
    DATABASE_KEPT_S,
    DATABASE_KNOCK_S,
    DATABASE_LOCK_S,
    DATABASE_ONE_OF_SEVERAL_S,
    DATABASE_PATIENCE_S,
    DATABASE_SEEK_S,
    DATABASE_SILENT_S,
    DATABASE_STATEMENT_S,
    DATABASE_TAP_S,
    DATABASE_TRY_S,
    DATABASE_UPKEEP,
    DATABASE_WAIT_S,
)
from node.waiting_limits import Turns

# The database has decided, and would decide the same again: on data, constraints, privileges, by RAISE in a function.
_DECIDED = ("22", "23", "42501", "P0001", "QK")
_LOCKED, _SLOW = "55P03", "57014"  # lock_timeout, statement_timeout
# Others were in the way, deadlocks among them, or this node was. The connection is good.
_PASSING = ("40", _LOCKED, _SLOW, "53400")
# A refused connection has its cause in words alone. The second one: what is left is kept for the superuser.
_FULL = ("too many clients", "remaining connection slots")
_WHY = {
    "": "does not answer",
    "25006": "takes no writes: it is read-only, or a standby",
    _LOCKED: "is held up by another session",
    "53100": "has no room left on its disk",
    "53200": "is short of memory",
    "53300": "takes no more connections",
    "53400": "has this node wait, which held up others",
    _SLOW: "takes too long",
    "57P01": "is stopping",
    "57P02": "has crashed",
    "57P03": "is starting",
}
_ROUND_TRIPS_OF_A_CALL = 2  # more are other packets that were lost
_PORT = 5432  # of PostgreSQL, where none is named
ROUND_TRIPS_TO_CONNECT = 6  # TCP, PostgreSQL's own hello, TLS, the session, our statements
_log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """The database did not do what was asked. The text goes on after "the shared database"."""


class Servers:
    """The servers that a URL names, of which one takes writes: in which order they are asked. Thread-safe.

    The one that took writes last comes first. One that said nothing comes last, and is left out for a moment: those
    that answer are asked often meanwhile, so that the one that takes over is found at once.
    """

    def __init__(self, url: str) -> None:
        given = psycopg.conninfo.conninfo_to_dict(url)
        places = [str(given.get(name) or "").split(",") for name in ("host", "hostaddr", "port")]
        number = max(map(len, places))
        # As libpq reads it: a single port is that of all.
        hosts, addresses, ports = (found * number if len(found) == 1 else found for found in places)
        self._all = [
            {name: value for name, value in (("host", host), ("hostaddr", address), ("port", port)) if value}
            for host, address, port in zip(hosts, addresses, ports, strict=True)
        ]
        self._silent_until: dict[str, float] = {}

    @property
    def are_several(self) -> bool:
        """Whether there is a choice."""
        return len(self._all) > 1

    def to_ask(self, now: float) -> list[dict[str, str]]:
        """Where to connect to, in that order; `now`: monotonic seconds."""
        found = [place for place in self._all if self._silent_until.get(_name(place), 0.0) <= now]
        return found or self._all

    def doubts(self, place: Mapping[str, str]) -> bool:
        """Whether that one was silent, and has not taken writes since, where there is another one to ask."""
        return self.are_several and _name(place) in self._silent_until

    def took_writes(self, place: Mapping[str, str]) -> None:
        """That one is the right one now."""
        self._silent_until.pop(_name(place), None)
        self._all = sorted(self._all, key=lambda other: other != place)

    def was_silent(self, name: str, now: float) -> None:
        """The server at that address, or of that name, did not answer."""
        self._silent_until[name] = now + DATABASE_SILENT_S
        self._all = sorted(self._all, key=lambda other: _name(other) == name)


def _name(place: Mapping[str, str]) -> str:
    return place.get("hostaddr") or place.get("host", "")


def _somebody_is_at(place: Mapping[str, str], within_s: float) -> bool:
    """Whether a server takes connections there."""
    try:
        socket.create_connection((_name(place), int(place.get("port") or _PORT)), within_s).close()
    except TimeoutError:
        return False
    except OSError:  # refused, say: libpq tells why
        return True
    return True


class _Connection(psycopg.Connection[tuple[object, ...]]):
    born = 0.0  # monotonic seconds

    @classmethod
    def connect(cls, *where: Any, **options: Any) -> _Connection:
        """As psycopg's, to that of the `servers` which takes writes.

        A server that strangers have filled has a place now and then: who knocks often gets it. Where there are several,
        one of them may be about to take over: one that was silent, as a host does that is cut off, is waited for
        `knock_s` at most, and not for the seconds that libpq takes at least.
        """
        servers: Servers = options.pop("servers")
        knock_s: float = options.pop("knock_s")
        until = time.monotonic() + DATABASE_CONNECT_S
        while True:
            why = psycopg.OperationalError("no server")
            for place in servers.to_ask(time.monotonic()):
                if servers.doubts(place) and not _somebody_is_at(place, knock_s):
                    servers.was_silent(_name(place), time.monotonic())
                    continue
                try:
                    found = super().connect(*where, **(options | place))
                except psycopg.OperationalError as error:
                    why = error
                    if isinstance(error, psycopg.errors.ConnectionTimeout):
                        servers.was_silent(_name(place), time.monotonic())
                else:
                    servers.took_writes(place)
                    return found
            again = servers.are_several or any(words in str(why) for words in _FULL)
            if not again or time.monotonic() >= until:
                raise why
            time.sleep(DATABASE_SEEK_S if servers.are_several else DATABASE_KNOCK_S)


class Connections:
    """To the database at `url`: the statements of `prepared` can be called by their names. Thread-safe.

    The statements `free` are called, one after the other, when another session holds rows for too long.
    For the statements `upkeep`, a few at a time, there is always a connection. `round_trip_s`: to the server, at most.
    """

    def __init__(
        self,
        url: str,
        *,
        search_path: str,
        prepared: Mapping[str, str],
        free: Sequence[str],
        upkeep: Collection[str],
        round_trip_s: float,
    ) -> None:
        self._prepared = prepared
        self._free = free
        self._upkeep = upkeep
        self._places = Turns(DATABASE_CONNECTIONS - DATABASE_UPKEEP)
        self._expected_s = round_trip_s
        self._measured_s = 0.0
        self._broken_at = 0.0  # connections born before that moment are not used again
        self._connecting_since: float | None = None  # in vain
        self._servers = Servers(url)
        # All that a node asks for is found by an index. PostgreSQL takes a table that it has not counted for a small
        # one and would read it from end to end at each call: it counts once a minute, and keys come by the thousand.
        self._options = {
            "servers": self._servers,
            "autocommit": True,
            "options": f"-c search_path={search_path} -c statement_timeout={DATABASE_STATEMENT_S * 1000:.0f}"
            f" -c lock_timeout={DATABASE_LOCK_S * 1000:.0f} -c enable_seqscan=off",
            "keepalives_idle": round(DATABASE_IDLE_S),
            "keepalives_interval": 1,
            "keepalives_count": 3,
        }
        self._pool = ConnectionPool(
            url, connection_class=_Connection, kwargs=self._options_now, configure=self._prepare, min_size=2,
            max_size=DATABASE_CONNECTIONS, timeout=DATABASE_WAIT_S, open=False, reconnect_timeout=2,
            max_lifetime=DATABASE_KEPT_S,
        )  # fmt: skip

    @property
    def round_trip_s(self) -> float:
        """How far away the server is, as expected or as measured, whichever is more."""
        return max(self._expected_s, self._measured_s)

    def open(self) -> None:
        """Start connecting; returns at once."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def call(self, statement: str, values: Sequence[bytes | None], on_again: Callable[[], object]) -> list[Row]:
        """The rows that it gives. NoAnswer; or the psycopg.Error by which the database refuses what was asked.

        What was not answered is asked again once, on another connection, after `on_again`: the database may yet do what
        it was asked first.
        """
        call_s = DATABASE_CALL_S + 2 * _ROUND_TRIPS_OF_A_CALL * self.round_trip_s
        until = time.monotonic() + deadline.left(call_s)
        with self._place(statement, until):
            try:
                return self._try(statement, values, until)
            except NoAnswer as first:
                if time.monotonic() >= until:
                    raise
                on_again()
                try:
                    return self._try(statement, values, until)
                except NoAnswer as second:  # of which the first may know more: the second has got no connection
                    raise first if str(second) == _WHY[""] else second from None

    @contextmanager
    def _place(self, statement: str, until: float) -> Iterator[None]:
        """One of those who may want a connection; NoAnswer if there are too many."""
        if statement in self._upkeep:
            yield
            return
        with self._places.taken(["connections"], _patience_s(until), full=NoAnswer(_WHY[""])):
            yield

    def _try(self, statement: str, values: Sequence[bytes | None], until: float) -> list[Row]:
        connection = self._get(until)
        good = hurried = False
        tried_until = time.monotonic() + DATABASE_TRY_S + _ROUND_TRIPS_OF_A_CALL * self.round_trip_s
        try:
            rows = libpq.call(connection.pgconn, statement, values, min(until, tried_until))
            good = True
        except psycopg.Error as error:
            state = error.sqlstate or ""
            hurried = not state and until <= time.monotonic() < tried_until
            if isinstance(error, psycopg.errors.ConnectionTimeout) and not hurried:
                self._servers.was_silent(connection.pgconn.hostaddr.decode(), time.monotonic())
            good = state.startswith(_DECIDED + _PASSING)
            if state.startswith(_DECIDED):
                raise
            if state in (_LOCKED, _SLOW):  # rows of many, each for less than lock_timeout, may be held up, too
                good = self._free_rows(connection, until)
            elif state not in _WHY:
                _log.warning("the shared database refused %s: SQLSTATE %s", statement, state)
            raise NoAnswer(_WHY.get(state, f"refused (SQLSTATE {state})")) from error
        finally:
            self._measured_s = _round_trip_s(connection.pgconn)
            if not good:
                # That it did not answer a request which had no time says nothing of the others.
                self._broken_at = self._broken_at if hurried else time.monotonic()
                connection.close()
            self._pool.putconn(connection)
        return rows

    def _free_rows(self, connection: _Connection, until: float) -> bool:
        """Have the database end who holds them; whether it did."""
        try:
            for statement in self._free:
                libpq.call(connection.pgconn, statement, (), until)
        except psycopg.Error:
            return False
        return True

    def _get(self, until: float) -> _Connection:
        """A connection that is not known to be broken; NoAnswer."""
        while True:
            try:
                connection = self._pool.getconn(_patience_s(until))
            except psycopg.OperationalError as error:  # none is free in time, or the node stops
                raise NoAnswer(_WHY[""]) from error
            if connection.born > self._broken_at:
                return connection
            connection.close()
            self._pool.putconn(connection)

    def _options_now(self) -> dict[str, Any]:
        """For a connection that is to be made. How far away the server is may have changed since the last one."""
        now = time.monotonic()
        if self._connecting_since is None:
            self._connecting_since = now
        trips_s = ROUND_TRIPS_TO_CONNECT * self.round_trip_s
        # The longer there is none, the longer it is waited for: no connection, no measure. Of several servers one that
        # is silent keeps from asking the others meanwhile.
        waited_s, least_s = now - self._connecting_since, DATABASE_CONNECT_S
        if self._servers.are_several:
            waited_s, least_s = waited_s / 4, DATABASE_ONE_OF_SEVERAL_S
        patience_s = min(max(least_s + trips_s, waited_s), DATABASE_PATIENCE_S)
        knock_s = DATABASE_TAP_S + _ROUND_TRIPS_OF_A_CALL * self.round_trip_s
        dead_s = {"knock_s": knock_s, "tcp_user_timeout": round((DATABASE_CONNECT_S + trips_s) * 1000)}
        return self._options | dead_s | {"connect_timeout": round(patience_s)}

    def _prepare(self, connection: _Connection) -> None:
        connection.born = time.monotonic()
        self._connecting_since = None
        pgconn = connection.pgconn
        self._measured_s = _round_trip_s(pgconn)
        until = connection.born + DATABASE_CONNECT_S + self.round_trip_s
        libpq.prepare(pgconn, self._prepared, until)


def _patience_s(until: float) -> float:
    """For how long to wait for a connection, in a call that has time until then."""
    return min(DATABASE_WAIT_S, max(0.001, until - time.monotonic()))


def _round_trip_s(pgconn: PGconn) -> float:
    """To the server of that connection, as measured; 0 if that is nothing much."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=pgconn.socket)
    except psycopg.Error:  # it is closed
        return 0.0
    try:
        return liveness.round_trip_s(sock)
    finally:
        sock.detach()  # it is libpq's
