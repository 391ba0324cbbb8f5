"""What several controllers have in the shared database: a schema of their own, and a way in for each of them."""

from __future__ import annotations

import psycopg
import psycopg.sql

from controller.leading.shared_store import install_schema
from testbed.database.postgres import CONTROLLERS_ROLE, DATABASE, Cluster
from testbed.planning.plan import Plan

_CONNECTIONS = 4  # of one controller: for its lease and its store, and those of a dead one that may still be there


def schema_beside(schema: str) -> str:
    """The controllers' schema, where the nodes have that one. PURE."""
    return f"{schema}_controllers"


def role(name: str) -> str:
    """A controller's name in PostgreSQL; the functions of its schema compare it with whom it speaks for. PURE."""
    return f"controller-{name}"


def admit(cluster: Cluster, schema: str, plan: Plan) -> None:
    """Let the controllers of `plan` into a cluster that has the nodes' `schema`."""
    names = [each.name for each in plan.controllers]
    with cluster.admin_url() as url:
        with psycopg.connect(url, autocommit=True) as admin:
            group, database = psycopg.sql.Identifier(CONTROLLERS_ROLE), psycopg.sql.Identifier(DATABASE)
            admin.execute(psycopg.sql.SQL("CREATE ROLE {}").format(group))
            admin.execute(psycopg.sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, group))
            for name in names:
                words = "CREATE ROLE {} LOGIN IN ROLE {} CONNECTION LIMIT {}"
                own = psycopg.sql.Identifier(role(name))
                admin.execute(psycopg.sql.SQL(words).format(own, group, psycopg.sql.Literal(_CONNECTIONS)))
        install(url, schema, plan, CONTROLLERS_ROLE)


def install(url: str, schema: str, plan: Plan, group: str | None = None) -> None:
    """Make the controllers' schema in the database at `url`, beside the nodes' `schema`."""
    first = plan.controllers[0].name
    install_schema(url, schema_beside(schema), group, first=first, round_trip_s=plan.round_trip_s)
