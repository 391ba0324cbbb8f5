"""What of the caller's environment counts for a database of his own."""

from __future__ import annotations

import psycopg.conninfo
import pytest

from testbed.database.shared_database import complete_url
from testbed.errors import UserError


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Variables of libpq, one of them a service of a file."""
    (tmp_path / "services").write_text("[lab]\nport=5433\ndbname=physics\n")
    for name, value in (("PGPASSWORD", "secret"), ("PGSERVICEFILE", str(tmp_path / "services")), ("PGSERVICE", "lab")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_url_is_completed_by_what_libpq_reads_in_the_environment(environment):
    """What the URL says itself comes first."""
    found = psycopg.conninfo.conninfo_to_dict(complete_url("postgresql://me@db.example/tests"))

    given = {"host": "db.example", "user": "me", "dbname": "tests", "password": "secret", "port": "5433"}
    assert found.items() >= given.items()


def test_completed_url_needs_the_environment_no_more(environment):
    """It says itself what the service stands for."""
    complete = complete_url("postgresql://me@db.example")
    for name in ("PGSERVICE", "PGSERVICEFILE", "PGPASSWORD"):
        environment.delenv(name)

    assert psycopg.conninfo.conninfo_to_dict(complete).items() >= {"dbname": "physics", "port": "5433"}.items()
    assert "service" not in psycopg.conninfo.conninfo_to_dict(complete)


def test_what_is_no_url_is_refused():
    """With the form that is expected."""
    with pytest.raises(UserError, match=r"--shared-db: .*expected postgresql://"):
        complete_url("http://x")
