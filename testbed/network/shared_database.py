"""The shared database of a run: a private cluster on host `db`, or a server of the user's reached by way of that host.

A server of the user's lives in the machine's network, which no emulated host can see. Nodes connect to `db` all the
same, and the forwarder there carries the connection out, so that both kinds are reached over the emulated links.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass

import psycopg
import psycopg.conninfo
import psycopg.sql

from node.material.shared_db import Members, declare, install_schema
from testbed.errors import UserError
from testbed.planning.plan import DATABASE_PORT, Plan

_TIMEOUT_S = 5
_FREE_CONNECTIONS = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
"""


@dataclass(frozen=True, slots=True)
class UserDatabase:
    """A PostgreSQL of the user's: its URL, the address that it resolved to, and the schema made there for a run."""

    url: str
    address: str
    port: int
    schema: str

    def node_url(self, ip: str) -> str:
        """The URL for nodes, which find the server at `ip` on the emulated network."""
        return psycopg.conninfo.make_conninfo(self.url, hostaddr=ip, port=DATABASE_PORT)

    def drop(self) -> None:
        """Remove the schema."""
        statement = psycopg.sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(psycopg.sql.Identifier(self.schema))
        options = f"-c statement_timeout={_TIMEOUT_S}s -c lock_timeout={_TIMEOUT_S}s"
        try:
            with psycopg.connect(
                self.url, connect_timeout=_TIMEOUT_S, options=options, tcp_user_timeout=_TIMEOUT_S * 1000
            ) as connection:
                connection.execute(statement)
        except psycopg.Error as error:
            print(f"run.py: schema {self.schema} is left in your database: {_one_line(error)}", file=sys.stderr)


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
    qcs = {qc.name: (link.a, link.b) for link in plan.topology.links for qc in link.qcs}
    return Members(plan.nodes, {sae.id: sae.node for sae in plan.saes}, qcs)


def open_user_database(url: str, schema: str, network: Members, *, connections: int) -> UserDatabase:
    """Connect to `url` and make `schema` for `network`; UserError that says what is wrong, without a password in it.

    Also if the server allows fewer than `connections`.
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
    except psycopg.OperationalError as error:
        raise UserError(f"{where} cannot be used: {_one_line(error)}: is it running, is the URL right?") from None
    except psycopg.Error as error:
        raise UserError(f"{where} cannot hold our schema: {_one_line(error)}: its user must own the database") from None
    return UserDatabase(url, str(address), int(port), schema)


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
