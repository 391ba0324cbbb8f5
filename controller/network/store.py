"""What the controller must not forget when it is killed: key sessions, parameters, rates of QCs. Thread-safe.

Its graph is not among that: the agents know it better, and tell.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telemetry.bugs import Away

_SESSION, _SETTING = "session", "setting"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
"""


class NotKept(Away):
    """The store does not take or tell anything now; one line that says why. It may have taken what was told last."""


class Store(ABC):
    """Documents by kind and name. Each method may raise NotKept, and sqlite3.Error where the store is a file."""

    @abstractmethod
    def close(self) -> None:
        """Keep nothing any more."""

    @abstractmethod
    def _put(self, kind: str, name: str, text: str | None) -> None:
        """Keep a text, in place of what was there; None: forget it."""

    @abstractmethod
    def _texts(self, kind: str) -> dict[str, str]:
        """All texts of that kind by name, in the order of their names."""

    def put_session(self, ksid: str, document: Mapping[str, Any]) -> None:
        """Keep a session, in place of what was known of it."""
        self._put(_SESSION, ksid, json.dumps(document))

    def remove_session(self, ksid: str) -> None:
        """Forget a session."""
        self._put(_SESSION, ksid, None)

    def sessions(self) -> list[dict[str, Any]]:
        """All sessions, by KSID."""
        return [json.loads(text) for text in self._texts(_SESSION).values()]

    def put_setting(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a setting, in place of what it was."""
        self._put(_SETTING, name, json.dumps(document))

    def setting(self, name: str) -> dict[str, Any]:
        """That setting; empty if it was never kept."""
        return dict(json.loads(self._texts(_SETTING).get(name, "{}")))


class FileStore(Store):
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

    def _put(self, kind: str, name: str, text: str | None) -> None:
        if text is None:
            self._execute(f"DELETE FROM {kind} WHERE name = ?", name)  # noqa: S608 - one of two words of ours
        else:
            self._execute(f"INSERT OR REPLACE INTO {kind} VALUES (?, ?)", name, text)  # noqa: S608

    def _texts(self, kind: str) -> dict[str, str]:
        return dict(self._execute(f"SELECT name, document FROM {kind} ORDER BY name"))  # noqa: S608

    def _execute(self, sql: str, *values: str) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()
