"""`python -m node.material.local_db_dump LOCAL.DB`: what a node's streams came to, as JSON for an audit; no key byte.

Reads the local database of a node that is down; it needs no key, because only what is sealed there is secret. The file
may come from a machine that is not ours: what is no table of numbers and texts is refused.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

_TABLES = {"stream", "fragment", "taken"}


def account(path: Path) -> dict[str, Any]:
    """`streams`: head, bytes generated, used, expired, differing and stored of each epoch of each QC, oldest first.

    Differing ones were erased because the other end held others in their place.
    `taken`: every range that was used, [QC, epoch, start, end, made, at, request]: made when at the latest age that
    this end knew, and used when, both in seconds of the machine's clock since its start (CLOCK_BOOTTIME).
    """
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0").fetchall()
        if missing := _TABLES - {name for (name,) in tables}:  # a view may have rows without an end
            raise sqlite3.DatabaseError(f"expected the tables {', '.join(sorted(missing))}")
        streams = database.execute(
            "SELECT s.qc, s.epoch, s.head, s.generated, s.used, s.expired, s.differing,"
            " coalesce(sum(f.end - f.start), 0) FROM stream s LEFT JOIN fragment f USING (qc, epoch)"
            " GROUP BY s.number ORDER BY s.qc, s.number"
        ).fetchall()
        taken = database.execute(
            "SELECT qc, epoch, start, end, made, at, request FROM taken ORDER BY rowid"
        ).fetchall()
    finally:
        database.close()
    names = ("qc", "epoch", "head", "generated", "used", "expired", "differing", "stored")
    return {"streams": [dict(zip(names, row, strict=True)) for row in streams], "taken": taken}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m node.material.local_db_dump LOCAL.DB", file=sys.stderr)
        sys.exit(2)
    try:
        json.dump(account(Path(sys.argv[1])), sys.stdout)
    except (sqlite3.Error, TypeError) as error:  # the latter where a value is neither number nor text
        print(f"account: {sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(2)
