"""The account of a node, from a local database that may be anybody's."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

HONEST = (
    "CREATE TABLE stream (number INTEGER PRIMARY KEY, qc, epoch, head, generated, used, expired, differing);"
    "CREATE TABLE fragment (qc, epoch, start, end);"
    "CREATE TABLE taken (qc, epoch, start, end, made, at, request);"
    "INSERT INTO stream VALUES (1, 'a-b/1', 1, 64, 64, 32, 0, 0); INSERT INTO fragment VALUES ('a-b/1', 1, 32, 64);"
)
ENDLESS = (
    "DROP TABLE taken; CREATE VIEW taken AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
    " SELECT x, x, x, x, x, x, x FROM n"
)


def dumped(path: Path) -> subprocess.CompletedProcess[str]:
    """What the program does with it."""
    argv = [sys.executable, "-P", "-m", "node.material.local_db_dump", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_account_of_tables_is_what_they_hold(tmp_path):
    """By QC and epoch."""
    with sqlite3.connect(tmp_path / "local.db") as database:
        database.executescript(HONEST)

    done = dumped(tmp_path / "local.db")

    assert (done.returncode, done.stderr) == (0, "")
    assert '"stored": 32' in done.stdout


@pytest.mark.parametrize(("script", "why"), [
    ("", "expected the tables fragment, stream, taken"),
    (ENDLESS, "expected the tables taken"),
    ("INSERT INTO taken VALUES ('a-b/1', 1, 0, 32, 1.0, 2.0, x'00ff')", "bytes is not JSON serializable"),
    ("INSERT INTO taken VALUES ('a-b/1', 1, 0, 32, 1.0, 2.0, CAST(x'ff' AS TEXT))", "Could not decode to UTF-8"),
])  # fmt: skip
def test_database_that_no_node_writes_is_refused_in_one_line(tmp_path, script, why):
    """As a machine that is not ours may send it: rows without an end, bytes for a number."""
    with sqlite3.connect(tmp_path / "local.db") as database:
        database.executescript(HONEST + script if script else "")

    done = dumped(tmp_path / "local.db")

    assert done.returncode == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
