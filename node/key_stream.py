"""A node's local database: the QCs' streams and relayed keys, encrypted at rest, erased when used or expired.

Every byte leaves this store once: `take` reads and deletes in one transaction, before anybody sees the bytes. Whatever
kills the process, the machine's kernel has what was committed. Should the machine itself fail, it may forget the last
commits; so a mark, forced to disk ahead of them, says up to where bytes may be out, and after a restart of the machine
what lies before it counts as gone.
That holds whatever the shared database says. Were that to forget an allocation, the floor that this end reports next
lies behind what was taken here, so that the other end is not given the same bytes.

Rows are sealed with AES-GCM under the node's key; `secure_delete` overwrites what is deleted, and the write-ahead log
is cut once a slot. SQLite's file system keeps no promise on flash; the encryption is for that.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from etsi.secret import Secret
from node.blocks import Block
from node.ranges import Instruction, Range, oldest_live_slot, oldest_promised_slot

# A fragment is rewritten when part of it is taken, so it should be small; but thousands of them in a block take long to
# seal and to write.
_FRAGMENT_BYTES = 1024
_LARGE_FRAGMENT_BYTES = 4096
_MANY_FRAGMENTS = 256
_NONCE_BYTES = 12
_BEYOND = 1 << 62  # no stream is as long
# How far the mark of what may be out goes ahead: a disk's wait for so many bytes in place of one for each key.
_LENT_BYTES = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine
# Pages that a slot's commits wrote, from which on the next slot's are expected to be as many.
_BUSY_PAGES = 100

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stream (
    qc TEXT PRIMARY KEY, head INTEGER NOT NULL, gap INTEGER NOT NULL, slot INTEGER NOT NULL,
    generated INTEGER NOT NULL, used INTEGER NOT NULL, expired INTEGER NOT NULL, last_used INTEGER NOT NULL,
    lent INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS machine (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fragment (
    qc TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, slot INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (qc, start)
) WITHOUT ROWID;
-- What left the streams, for ever: the record that an audit replays. `slot` and `ttl` are those of the moment.
CREATE TABLE IF NOT EXISTS taken (
    qc TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, slot INTEGER NOT NULL, ttl INTEGER NOT NULL,
    request TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS relayed (
    key_id TEXT PRIMARY KEY, ksid TEXT NOT NULL, master_sae TEXT NOT NULL, slave_sae TEXT NOT NULL,
    qc TEXT NOT NULL, slot INTEGER NOT NULL, sealed BLOB NOT NULL
) WITHOUT ROWID;
-- What controllers configured.
CREATE TABLE IF NOT EXISTS document (
    kind TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
"""


class Missing(LookupError):
    """Bytes that should be here are not: never received, used already, or expired."""

    def __init__(self, wanted: Range) -> None:
        super().__init__(f"QC {wanted.qc}: bytes {wanted.start} to {wanted.end} are not held here (any more)")
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Held:
    """What this end can promise of a QC, bytes [floor, head) less those used; bytes it holds, and counters of bytes."""

    qc: str
    head: int
    floor: int
    slot: int
    stored: int
    generated: int
    used: int
    expired: int


@dataclass(frozen=True, slots=True)
class RelayedKey:
    """A key that came by trusted relay and waits for its slave SAE."""

    key_id: str
    ksid: str
    master_sae: str
    slave_sae: str
    key: Secret


class KeyStore:
    """The local database in `path`, sealed with the 32-byte key in `key_path` (made with mode 0600 if missing).

    Thread-safe. One writer at a time: SQLite allows no more, and one fsync a transaction is the price of never
    handing a byte out twice.
    """

    def __init__(self, path: Path, key_path: Path, *, ttl_slots: int) -> None:
        self.ttl_slots = ttl_slots  # may change while the node runs
        self._seal = AESGCM(_node_key(key_path))
        self._lock = threading.Lock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._forced = True  # whether a commit waits for the disk
        self._give_up_lent()
        self._lent = dict(self._db.execute("SELECT qc, lent FROM stream").fetchall())

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def store(self, block: Block) -> bool:
        """Keep a QC's block durably. False if it was here before (a repetition after a lost acknowledgement).

        A block beyond the head leaves a gap: bytes that this end never got. What lies before the gap can still be
        taken by who was promised it, but nothing new is promised from there (see `held`).
        """
        with self._transaction():
            row = self._db.execute("SELECT head, slot FROM stream WHERE qc = ?", (block.qc,)).fetchone()
            head, slot = row or (0, block.slot)
            if block.offset < head or block.slot < slot:
                return False
            end = block.offset + len(block.payload)
            gap = block.offset if block.offset > head else None
            self._db.execute(
                "INSERT INTO stream VALUES (:qc, :head, coalesce(:gap, 0), :slot, :n, 0, 0, 0, 0)"
                " ON CONFLICT (qc) DO UPDATE SET head = :head, gap = coalesce(:gap, gap), slot = :slot,"
                " generated = generated + :n",
                {"qc": block.qc, "head": end, "gap": gap, "slot": block.slot, "n": len(block.payload)},
            )
            payload = block.payload.reveal()
            step = min(_LARGE_FRAGMENT_BYTES, max(_FRAGMENT_BYTES, len(payload) // _MANY_FRAGMENTS))
            for at in range(0, len(payload), step):
                self._insert(block.qc, block.offset + at, block.slot, payload[at : at + step])
        return True

    def take(self, wanted: Sequence[Range], request: str = "", *, spare_slots: int = 0) -> list[Secret]:
        """The bytes of all `wanted` ranges, gone from here for good; or Missing, and nothing is gone.

        `request` is the allocation that they are taken for, and is kept for the audit. Bytes with less than
        `spare_slots` to live are missing, too.
        """
        with self._taking(wanted):
            return [self._take(r, request, spare_slots) for r in wanted]

    def expire(self, qc: str) -> int:
        """Erase all bytes and relayed keys of `qc` older than the TTL; the number of bytes erased."""
        with self._transaction():
            row = self._db.execute("SELECT slot FROM stream WHERE qc = ?", (qc,)).fetchone()
            if row is None:
                return 0
            oldest = oldest_live_slot(row[0], self.ttl_slots)
            # A key handed out by its first node in the last moment of the TTL is still there for the slave to fetch.
            grace = oldest_promised_slot(row[0], self.ttl_slots) - oldest
            self._db.execute("DELETE FROM relayed WHERE qc = ? AND slot < ?", (qc, oldest - 1 - grace))
            # Later bytes are younger, so what is too old is at the beginning.
            gone = self._db.execute(
                "DELETE FROM fragment WHERE qc = :qc AND start < coalesce((SELECT start FROM fragment"
                " WHERE qc = :qc AND slot >= :oldest ORDER BY start LIMIT 1), :all) RETURNING end - start",
                {"qc": qc, "oldest": oldest, "all": _BEYOND},
            ).fetchall()
            n_bytes = sum(int(n) for (n,) in gone)
            if n_bytes:
                self._db.execute("UPDATE stream SET expired = expired + ? WHERE qc = ?", (n_bytes, qc))
        self._empty_log()
        return n_bytes

    def held(self) -> list[Held]:
        """What this end holds of every QC it knows, in the order of their names.

        The floor lies behind the last gap and behind everything that is expired or will be soon.
        """
        # Nor is anything promised before the last byte that was taken here: if the shared database forgot an allocation
        # (a fail-over that lost commits), the other end, which still holds those bytes, must not be given them again.
        rows = self._query(
            "SELECT s.qc, s.head, s.gap, s.slot, s.generated, s.used, s.expired,"
            " s.last_used, (SELECT f.start FROM fragment f WHERE f.qc = s.qc AND f.slot >= s.slot - ?"
            "  ORDER BY f.start LIMIT 1)"
            " FROM stream s ORDER BY s.qc",
            (-oldest_promised_slot(0, self.ttl_slots),),
        )
        return [
            Held(
                qc, head, max(gap, last_used, head if first is None else first), slot,
                stored=generated - used - expired, generated=generated, used=used, expired=expired,
            )
            for qc, head, gap, slot, generated, used, expired, last_used, first in rows
        ]  # fmt: skip

    def slot(self, qc: str) -> int:
        """The newest slot that `qc` has begun; 0 before its first block."""
        rows = self._query("SELECT slot FROM stream WHERE qc = ?", (qc,))
        return int(rows[0][0]) if rows else 0

    def put_relayed(self, keys: Sequence[RelayedKey], qc: str) -> None:
        """Keep relayed keys durably until they are fetched or the TTL, counted in slots of `qc`, has passed.

        They are wiped: from here on they wait sealed.
        """
        with self._transaction():
            for key in keys:
                self._keep(key, qc)

    def take_found(self, keys: Sequence[Instruction]) -> dict[str, Secret]:
        """Single-hop keys by their IDs, gone from here for good; or Missing, and nothing is gone."""
        with self._taking([key.where for key in keys]):
            return {key.key_id: self._take(key.where, key.request) for key in keys}

    def keep_found(self, keys: Sequence[Instruction]) -> set[str]:
        """Take keys out of the streams and have them wait as relayed keys do.

        What is not held any more is left out; the IDs of those keys.
        """
        gone = set()
        with self._transaction():
            for key in keys:
                self._db.execute("SAVEPOINT one")
                try:
                    taken = self._take(key.where, key.request)
                    self._keep(RelayedKey(key.key_id, key.ksid, key.master_sae, key.slave_sae, taken), key.where.qc)
                except Missing:
                    self._db.execute("ROLLBACK TO one")
                    gone.add(key.key_id)
                self._db.execute("RELEASE one")
        return gone

    def relayed_owners(self, key_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """(master SAE, slave SAE) of those of `key_ids` that wait here."""
        marks = ",".join("?" * len(key_ids))
        rows = self._query(
            f"SELECT key_id, master_sae, slave_sae FROM relayed WHERE key_id IN ({marks})",  # noqa: S608 - only marks
            tuple(key_ids),
        )
        return {key_id: (master, slave) for key_id, master, slave in rows}

    def take_relayed(self, key_ids: Sequence[str]) -> list[RelayedKey] | None:
        """All these relayed keys, gone from here for good; None, and nothing is gone, if one of them is not here."""
        with self._transaction():
            taken = []
            for key_id in key_ids:
                row = self._db.execute(
                    "DELETE FROM relayed WHERE key_id = ? RETURNING ksid, master_sae, slave_sae, sealed", (key_id,)
                ).fetchone()
                if row is None:
                    self._db.execute("ROLLBACK")
                    return None
                taken.append(RelayedKey(key_id, row[0], row[1], row[2], Secret(self._opened(row[3], key_id))))
        return taken

    def put_documents(self, documents: Mapping[tuple[str, str], Any]) -> None:
        """Keep what was configured, by kind and ID, so that it survives a restart; None: forget it."""
        if not documents:
            return
        with self._transaction():
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

    def _give_up_lent(self) -> None:
        """If the machine was started anew since, erase what may have been used without its disk knowing."""
        boot = _BOOT_ID.read_text().strip()
        with self._transaction():
            row = self._db.execute("SELECT boot FROM machine").fetchone()
            self._db.execute("INSERT OR REPLACE INTO machine VALUES (1, ?)", (boot,))
            if row is None or row[0] == boot:
                return
            for qc, lent in self._db.execute("SELECT qc, lent FROM stream").fetchall():
                gone = self._db.execute(
                    "DELETE FROM fragment WHERE qc = ? AND start < ? RETURNING end - start", (qc, lent)
                ).fetchall()
                self._db.execute("UPDATE stream SET expired = expired + ? WHERE qc = ?", (sum(n for (n,) in gone), qc))

    @contextmanager
    def _taking(self, wanted: Sequence[Range]) -> Iterator[None]:
        """A transaction that takes these ranges: forced to disk only if one goes beyond the mark of what may be out."""
        beyond = {r.qc: r.end + _LENT_BYTES for r in wanted if r.end > self._lent.get(r.qc, 0)}
        with self._transaction(forced=bool(beyond)):
            yield
            for qc, lent in beyond.items():
                self._db.execute("UPDATE stream SET lent = max(lent, ?) WHERE qc = ?", (lent, qc))
        for qc, lent in beyond.items():
            self._lent[qc] = max(lent, self._lent.get(qc, 0))

    @contextmanager
    def _transaction(self, *, forced: bool = True) -> Iterator[None]:
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

    def _take(self, wanted: Range, request: str, spare_slots: int = 0) -> Secret:
        # From the fragment in which the range starts, so that only its own rows are read. The last condition: expiry
        # runs once a slot, but what is too old is too old at once.
        rows = self._db.execute(
            "DELETE FROM fragment WHERE qc = :qc AND start < :end AND end > :start AND start >="
            " (SELECT coalesce(max(start), 0) FROM fragment WHERE qc = :qc AND start <= :start)"
            " AND slot > (SELECT slot FROM stream WHERE qc = :qc) - :ttl RETURNING start, end, slot, sealed",
            {"qc": wanted.qc, "start": wanted.start, "end": wanted.end, "ttl": self.ttl_slots - spare_slots},
        ).fetchall()
        data = bytearray()
        for start, end, slot, sealed in sorted(rows):
            if max(start, wanted.start) != wanted.start + len(data):
                raise Missing(wanted)
            plain = self._opened(sealed, f"{wanted.qc}:{start}:{end}:{slot}")
            data += plain[max(0, wanted.start - start) : wanted.end - start]
            if start < wanted.start:
                self._insert(wanted.qc, start, slot, plain[: wanted.start - start])
            if end > wanted.end:
                self._insert(wanted.qc, wanted.end, slot, plain[wanted.end - start :])
        if len(data) != len(wanted):
            raise Missing(wanted)
        self._db.execute(
            "UPDATE stream SET used = used + ?, last_used = max(last_used, ?) WHERE qc = ?",
            (len(wanted), wanted.end, wanted.qc),
        )
        self._db.execute(
            "INSERT INTO taken SELECT qc, ?, ?, slot, ?, ? FROM stream WHERE qc = ?",
            (wanted.start, wanted.end, self.ttl_slots, request, wanted.qc),
        )
        taken = Secret(data)
        data[:] = bytes(len(data))  # taken is a copy
        return taken

    def _keep(self, key: RelayedKey, qc: str) -> None:
        self._db.execute(
            "INSERT INTO relayed SELECT ?, ?, ?, ?, ?, coalesce(max(slot), 0), ? FROM stream WHERE qc = ?",
            (key.key_id, key.ksid, key.master_sae, key.slave_sae, qc, self._sealed(key.key.reveal(), key.key_id), qc),
        )
        key.key.wipe()

    def _insert(self, qc: str, start: int, slot: int, plain: bytes) -> None:
        end = start + len(plain)
        sealed = self._sealed(plain, f"{qc}:{start}:{end}:{slot}")
        self._db.execute("INSERT INTO fragment VALUES (?, ?, ?, ?, ?)", (qc, start, end, slot, sealed))

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
