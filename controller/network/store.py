"""What the controller must not forget when it is killed: key sessions, parameters, rates of QCs. Thread-safe.

Its graph is not among that: the agents know it better, and tell.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (ksid TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
"""


class Store:
    """A small database in `path`, made with mode 0600."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # A commit is in the kernel's hands when it returns, so that no death of the process undoes it.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def put_session(self, ksid: str, document: Mapping[str, Any]) -> None:
        """Keep a session, in place of what was known of it."""
        self._execute("INSERT OR REPLACE INTO session VALUES (?, ?)", ksid, json.dumps(document))

    def remove_session(self, ksid: str) -> None:
        """Forget a session."""
        self._execute("DELETE FROM session WHERE ksid = ?", ksid)

    def sessions(self) -> list[dict[str, Any]]:
        """All sessions, by KSID."""
        return [json.loads(text) for (text,) in self._execute("SELECT document FROM session ORDER BY ksid")]

    def put_setting(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a setting, in place of what it was."""
        self._execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", name, json.dumps(document))

    def setting(self, name: str) -> dict[str, Any]:
        """That setting; empty if it was never kept."""
        rows = self._execute("SELECT document FROM setting WHERE name = ?", name)
        return dict(json.loads(rows[0][0])) if rows else {}

    def _execute(self, sql: str, *values: str) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()
