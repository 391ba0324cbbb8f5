"""What several controllers have in the shared database: a schema of their own, and a way in for each of them."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import psycopg.sql

from controller.leading.shared_store import install_schema
from testbed.database.postgres import CONTROLLERS_ROLE, DATABASE, Cluster

_CONNECTIONS = 4  # of one controller: for its lease and its store, and those of a dead one that may still be there


def schema_beside(schema: str) -> str:
    """The controllers' schema, where the nodes have that one. PURE."""
    return f"{schema}_controllers"


def role(name: str) -> str:
    """A controller's name in PostgreSQL; the functions of its schema compare it with whom it speaks for. PURE."""
    return f"controller-{name}"


def admit(cluster: Cluster, schema: str, names: Sequence[str], *, round_trip_s: float) -> None:
    """Let these controllers into a cluster that has the nodes' `schema`; the first one leads at the beginning.

    `round_trip_s`: the longest one in their network.
    """
    with cluster.admin_url() as url:
        with psycopg.connect(url, autocommit=True) as admin:
            group, database = psycopg.sql.Identifier(CONTROLLERS_ROLE), psycopg.sql.Identifier(DATABASE)
            admin.execute(psycopg.sql.SQL("CREATE ROLE {}").format(group))
            admin.execute(psycopg.sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, group))
            for name in names:
                words = "CREATE ROLE {} LOGIN IN ROLE {} CONNECTION LIMIT {}"
                own = psycopg.sql.Identifier(role(name))
                admin.execute(psycopg.sql.SQL(words).format(own, group, psycopg.sql.Literal(_CONNECTIONS)))
        install_schema(url, schema_beside(schema), CONTROLLERS_ROLE, first=names[0], round_trip_s=round_trip_s)
