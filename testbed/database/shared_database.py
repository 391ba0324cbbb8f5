"""The shared database of a run: a private cluster on host `db`, or a server of the user's reached by way of that host.

A server of the user's lives in the machine's network, which no emulated host can see. Nodes connect to `db` all the
same, and the forwarder there carries the connection out, so that both kinds are reached over the emulated links.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import psycopg.conninfo
import psycopg.sql

from controller.leading.shared_store import install_schema as install_schema_of_controllers
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.material.shared_db import Members, Rows, declare, install_schema, read_allocations
from testbed.database import controllers
from testbed.database.postgres import Cluster, nodes_url
from testbed.database.private_database import PrivateDatabase
from testbed.database.replicated_database import ReplicatedDatabase
from testbed.errors import UserError
from testbed.machine.namespaces import call_in_network
from testbed.planning.documents import SharedDatabaseAt
from testbed.planning.plan import DATABASE_PORT, Plan

_TIMEOUT_S = 5
_FREE_CONNECTIONS = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
"""


class Database(Protocol):
    """The shared database, as far as faults break and heal it. All of it raises UserError."""

    def restart(self) -> None:
        """Start it again, now that it was killed; returns when it answers."""

    def fail_over(self) -> None:
        """Kill it and have a standby in its place, which holds all that was committed and takes no writes."""

    def promote(self) -> None:
        """Have that standby take writes."""


class SharedDatabase(Protocol):
    """The shared database of a network, whosever it is. `breakable`: None if it is the user's."""

    @property
    def schema(self) -> str:
        """Its schema of the network."""

    @property
    def breakable(self) -> Database | ReplicatedDatabase | None:
        """As faults break it."""

    def node_url(self, node: str) -> str:
        """The URL for that node."""

    def allocations(self) -> tuple[Rows, Rows]:
        """What was allocated, and the keys that it became; psycopg.Error, ClusterError."""

    def version(self) -> str:
        """Of PostgreSQL, as far as it is ours."""


class OwnDatabase:
    """A private one, with its servers at these addresses; `run`: the run directory, with all nodes' credentials."""

    schema = "qkd"

    def __init__(
        self, database: PrivateDatabase | ReplicatedDatabase, servers: Mapping[Identity, str], run: Path,
        identities: Mapping[Identity, Credentials],
    ) -> None:  # fmt: skip
        self.breakable: Database | ReplicatedDatabase | None = database
        self._database = database
        self._servers = servers
        self._run = run
        self._identities = identities

    @property
    def cluster(self) -> Cluster:
        """That of the server which takes writes; ClusterError."""
        return self._database.cluster

    def node_url(self, node: str) -> str:
        """The URL for that node."""
        given = by_descriptor(self._run, self._identities[Identity(Role.NODE, node)])
        return nodes_url(node, given, self._servers, DATABASE_PORT)

    def allocations(self) -> tuple[Rows, Rows]:
        """What was allocated, and the keys that it became; psycopg.Error, ClusterError."""
        with self.cluster.admin_url() as url:
            return read_allocations(url, self.schema)

    def version(self) -> str:
        """Of PostgreSQL."""
        return Cluster.version()


@functools.cache
def _folder(run: Path) -> int:
    return os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def by_descriptor(run: Path, given: Credentials) -> Credentials:
    """Credentials in run directory `run`, as libpq finds them.

    It takes a colon in a key's path for the name of a cryptographic engine: by way of the folder's descriptor, which
    this process (the run's first) holds open, no character of the run directory's path matters.
    """
    folder = Path(f"/proc/1/fd/{_folder(run)}")
    return Credentials(*(folder / path.relative_to(run) for path in (given.certificate, given.key, given.ca)))


def controller_store(
    plan: Plan, run: Path, credentials: Credentials, name: str, theirs: UserDatabase | None
) -> SharedDatabaseAt:
    """Where controller `name` finds the store that it shares with others; `theirs`: the user's database, if it is that.

    It is known before the database is there, for there is no way to that one before a controller has switches forward.
    """
    if theirs is not None:
        ip = plan.hosts["db"].ip
        url = psycopg.conninfo.make_conninfo(theirs.url, hostaddr=ip, port=DATABASE_PORT)
        return SharedDatabaseAt(url, controllers.schema_beside(theirs.schema))
    url = nodes_url(name, by_descriptor(run, credentials), plan.database_servers, DATABASE_PORT)
    own = psycopg.conninfo.make_conninfo(url, user=controllers.role(name))
    return SharedDatabaseAt(own, controllers.schema_beside(OwnDatabase.schema))


@dataclass(frozen=True, slots=True)
class UserDatabase:
    """A PostgreSQL of the user's: its URL, the address that it resolved to, and the schema made there for a run."""

    url: str
    address: str
    port: int
    schema: str

    def reached_at(self, ip: str, *, outside: int) -> SharedDatabase:
        """As the database of a network, whose nodes find it at `ip`; it is itself in network namespace `outside`."""
        return _Reached(self, ip, outside)

    def drop(self) -> None:
        """Remove the schema."""
        names = map(psycopg.sql.Identifier, (self.schema, controllers.schema_beside(self.schema)))
        statement = psycopg.sql.SQL("DROP SCHEMA IF EXISTS {}, {} CASCADE").format(*names)
        options = f"-c statement_timeout={_TIMEOUT_S}s -c lock_timeout={_TIMEOUT_S}s"
        try:
            with psycopg.connect(
                self.url, connect_timeout=_TIMEOUT_S, options=options, tcp_user_timeout=_TIMEOUT_S * 1000
            ) as connection:
                connection.execute(statement)
        except psycopg.Error as error:
            print(f"run.py: schema {self.schema} is left in your database: {_one_line(error)}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class _Reached:
    database: UserDatabase
    ip: str
    outside: int
    breakable: Database | ReplicatedDatabase | None = None

    @property
    def schema(self) -> str:
        return self.database.schema

    def node_url(self, _: str) -> str:
        return psycopg.conninfo.make_conninfo(self.database.url, hostaddr=self.ip, port=DATABASE_PORT)

    def allocations(self) -> tuple[Rows, Rows]:
        return call_in_network(self.outside, lambda: read_allocations(self.database.url, self.schema))

    def version(self) -> str:
        return "the user's"


def complete_url(url: str) -> str:
    """`url` with what PGPASSWORD, PGSERVICE and the other variables of libpq add to it; UserError."""
    try:
        given = {k: v for k, v in psycopg.conninfo.conninfo_to_dict(url).items() if v is not None}
    except psycopg.Error as error:
        raise UserError(f"--shared-db: {str(error).strip()}: expected postgresql://USER@HOST:PORT/DATABASE") from None
    told = {
        option.keyword.decode(): option.val.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.val not in (None, option.compiled)
    }
    told.pop("service", None)  # what it stands for is among the others
    return psycopg.conninfo.make_conninfo("", **(told | given))


def members(plan: Plan) -> Members:
    """Who is in the network of `plan`."""
    qcs = {qc.name: (a, b) for qc, a, b in plan.topology.qcs()}
    return Members(plan.nodes, plan.places, qcs)


def open_user_database(
    url: str, schema: str, network: Members, *, connections: int, several_in: Plan | None = None
) -> UserDatabase:
    """Connect to `url` and make `schema` for `network`; UserError that says what is wrong, without a password in it.

    Also if the server allows fewer than `connections`. `several_in`: a plan with several controllers.
    """
    given = psycopg.conninfo.conninfo_to_dict(url)
    host, port = str(given.get("hostaddr") or given.get("host") or ""), str(given.get("port") or 5432)
    where = f"--shared-db {host}:{port}"
    if not host or host.startswith("/") or "," in host or not port.isdigit():
        raise UserError("--shared-db: expected one host name or address: nodes reach the server over TCP")
    try:
        address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise UserError(f"{where}: cannot resolve the host name ({error.strerror}): check the URL") from None
    brief = psycopg.conninfo.make_conninfo(url, connect_timeout=_TIMEOUT_S)
    try:
        with psycopg.connect(brief) as connection:
            (allowed,) = connection.execute(_FREE_CONNECTIONS).fetchone() or (0,)
        if allowed < connections:
            raise UserError(f"{where} has {allowed} connections to give, this network takes {connections}:"
                            " raise its max_connections")  # fmt: skip
        install_schema(brief, schema, None)
        declare(brief, schema, network)
        if several_in is not None:
            first = several_in.controllers[0].name
            beside, way_s = controllers.schema_beside(schema), several_in.round_trip_s
            install_schema_of_controllers(brief, beside, None, first=first, round_trip_s=way_s)
    except psycopg.OperationalError as error:
        raise UserError(f"{where} cannot be used: {_one_line(error)}: is it running, is the URL right?") from None
    except psycopg.Error as error:
        raise UserError(f"{where} cannot hold our schema: {_one_line(error)}: its user must own the database") from None
    return UserDatabase(url, str(address), int(port), schema)


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
