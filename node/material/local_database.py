"""A node's local database: SQLite, encrypted at rest. What the tables mean: `node.material.key_stream`.

Rows of key material are sealed with AES-GCM under the node's key; `secure_delete` overwrites what is deleted, and the
write-ahead log is cut once a slot. SQLite's file system keeps no promise on flash; the encryption is for that.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
# Pages that a slot's commits wrote, from which on the next slot's are expected to be as many.
_BUSY_PAGES = 100

_SCHEMA = """
-- `made`, `at` and `until` are seconds of CLOCK_BOOTTIME.
-- An epoch of a QC. The one that came last is current; blocks of others are refused. `slots_before`: of earlier epochs.
CREATE TABLE IF NOT EXISTS stream (
    number INTEGER PRIMARY KEY, qc TEXT NOT NULL, epoch INTEGER NOT NULL, head INTEGER NOT NULL, gap INTEGER NOT NULL,
    slot INTEGER NOT NULL, slots_before INTEGER NOT NULL, made REAL NOT NULL, last_used INTEGER NOT NULL DEFAULT 0,
    generated INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL DEFAULT 0, expired INTEGER NOT NULL DEFAULT 0,
    differing INTEGER NOT NULL DEFAULT 0, UNIQUE (qc, epoch)
);
-- Blocks as they came, empty ones left out, by which the two ends compare what they hold.
CREATE TABLE IF NOT EXISTS block (
    qc TEXT NOT NULL, epoch INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, made REAL NOT NULL,
    digest BLOB NOT NULL, PRIMARY KEY (qc, epoch, start)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS block_made ON block (made);
CREATE TABLE IF NOT EXISTS machine (
    id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT NOT NULL, told INTEGER NOT NULL, collection TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS fragment (
    qc TEXT NOT NULL, epoch INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, made REAL NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY (qc, epoch, start)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fragment_made ON fragment (made);
-- What left the streams, for ever: the record that an audit replays.
CREATE TABLE IF NOT EXISTS taken (
    qc TEXT NOT NULL, epoch INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, made REAL NOT NULL,
    at REAL NOT NULL, request TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS relayed (
    key_id TEXT PRIMARY KEY, ksid TEXT NOT NULL, master_sae TEXT NOT NULL, slave_sae TEXT NOT NULL,
    made REAL NOT NULL, sealed BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS relayed_made ON relayed (made);
-- Keys of a device that were laid into a key stream, the newest ones, so that none is laid twice.
CREATE TABLE IF NOT EXISTS laid (
    number INTEGER PRIMARY KEY, qc TEXT NOT NULL, key_id BLOB NOT NULL, UNIQUE (qc, key_id)
);
-- Blocks of keys that this end laid, and of which the other end is to be told.
CREATE TABLE IF NOT EXISTS offer (
    qc TEXT NOT NULL, epoch INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, made REAL NOT NULL,
    digest BLOB NOT NULL, key_ids TEXT NOT NULL, PRIMARY KEY (qc, epoch, start)
) WITHOUT ROWID;
-- Why devices are not trusted, until an operator says that they are again.
CREATE TABLE IF NOT EXISTS suspicion (
    number INTEGER PRIMARY KEY, qc TEXT NOT NULL, id TEXT NOT NULL, cause TEXT NOT NULL, lifted INTEGER NOT NULL,
    UNIQUE (qc, id)
);
-- What controllers configured.
CREATE TABLE IF NOT EXISTS document (
    kind TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
"""


class LocalDatabase:
    """The database in `path`, sealed with the 32-byte key in `key_path` (made with mode 0600 if missing).

    Thread-safe. One writer at a time: SQLite allows no more.
    """

    def __init__(self, path: Path, key_path: Path) -> None:
        self._seal = AESGCM(_node_key(key_path))
        self._lock = threading.Lock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._forced = True  # whether a commit waits for the disk

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def put_documents(self, documents: Mapping[tuple[str, str], Any]) -> None:
        """Keep what was configured, by kind and ID, so that it survives a restart; None: forget it."""
        if not documents:
            return
        with self._transaction(forced=True):
            for (kind, name), document in documents.items():
                if document is None:
                    self._db.execute("DELETE FROM document WHERE kind = ? AND id = ?", (kind, name))
                else:
                    row = kind, name, json.dumps(document)
                    self._db.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", row)

    def documents(self) -> dict[tuple[str, str], Any]:
        """All that was kept, by kind and ID."""
        rows = self._query("SELECT kind, id, document FROM document ORDER BY kind, id")
        return {(kind, name): json.loads(document) for kind, name, document in rows}

    def _empty_log(self) -> None:
        """Once a slot: until then the sealed bytes of what was used since stand in the write-ahead log.

        Where much was written, the next slot will overwrite it: a commit into a file that need not grow takes half the
        time. Else it is cut.
        """
        with self._lock:
            _, pages, _ = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._db.execute(f"PRAGMA wal_checkpoint({'RESTART' if pages > _BUSY_PAGES else 'TRUNCATE'})")

    @contextmanager
    def _transaction(self, *, forced: bool = False) -> Iterator[None]:
        """`forced`: what was committed survives a failure of the machine, too."""
        with self._lock:
            if forced != self._forced:
                self._db.execute(f"PRAGMA synchronous={'FULL' if forced else 'NORMAL'}")
                self._forced = forced
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def _query(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _sealed(self, plain: bytes, where: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, plain, where.encode())

    def _opened(self, sealed: bytes, where: str) -> bytes:
        return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], where.encode())


def _node_key(path: Path) -> bytes:
    if path.exists():
        return path.read_bytes()
    key = AESGCM.generate_key(256)
    # Renamed when it is whole: a crash in between must not leave an empty key, with which no start would work.
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return key
