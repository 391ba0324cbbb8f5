"""A node's local database: the QCs' streams and relayed keys, encrypted at rest, erased when used or expired.

Every byte leaves this store once: `take` reads and deletes in one transaction, before anybody sees the bytes. Whatever
kills the process, the machine's kernel has what was committed.
That holds whatever the shared database says. A server of that database may have lost allocations that another one made
(a fail-over, an older copy put back). So an end follows one server at a time, from before it makes up its first report
to that server, and gives out nothing that another one allocated. The floor of that report lies behind all that was
taken here before, so that the other end is not given the same bytes.

Age runs by the machine's clock (CLOCK_BOOTTIME), whatever QCs do. That clock begins anew with the machine, so after a
restart of the machine the age of what lies here is unknown, and it is erased. What the machine's disk forgot, should it
fail, is erased with it; so nothing that concerns keys need wait for the disk.

A copy of this database that is older than what was handed out since would hand it out again. So it counts, reports of
what it holds and keys that waited and were handed out, and the shared database is told. Before the first key is handed
out after a start, it is asked; if it knows of more, all that lies here is erased. What is not seen: a copy that lacks
nothing but what was handed out in the moment before the node died, and the shared database was not told any more.

Keys over one hop are collected from the shared database under a name that changes with the commit by which they wait
here. A node that dies in between, or cannot write, asks under the same name again, and gets them again.

Rows are sealed with AES-GCM under the node's key; `secure_delete` overwrites what is deleted, and the write-ahead log
is cut once a slot. SQLite's file system keeps no promise on flash; the encryption is for that.
"""

from __future__ import annotations

import collections
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from decisions.ranges import MOST_MARKS, Claim, Instruction, Mark, Range, promised_slots, spare_slots
from documents.secret import Secret
from node.material.blocks import Block, boottime

# A fragment is rewritten when part of it is taken, so it should be small; but thousands of them in a block take long to
# seal and to write.
_FRAGMENT_BYTES = 1024
_LARGE_FRAGMENT_BYTES = 4096
_MANY_FRAGMENTS = 256
_NONCE_BYTES = 12
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine
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


class Outdated(Missing):
    """Bytes that another server of the shared database allocated than the one that this end follows now."""


@dataclass(frozen=True, slots=True)
class Held:
    """What this end can promise of a QC's current epoch, bytes [floor, head) less those used.

    Bytes held and counters of bytes are those of all epochs; slots, too, are counted on when a device begins anew.
    """

    qc: str
    head: int
    floor: int
    slot: int
    stored: int
    generated: int
    used: int
    expired: int
    differing: int = 0  # erased, because the other end held other bytes in their place
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class RelayedKey:
    """A key that waits for its slave SAE; `made` when by the clock of the node, or earlier."""

    key_id: str
    ksid: str
    master_sae: str
    slave_sae: str
    key: Secret
    made: float


class KeyStore:
    """The local database in `path`, sealed with the 32-byte key in `key_path` (made with mode 0600 if missing).

    Thread-safe. One writer at a time: SQLite allows no more. `clock`: seconds that count from the machine's start.
    """

    def __init__(
        self,
        path: Path,
        key_path: Path,
        *,
        ttl_slots: int,
        slot_s: float = 1.0,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.ttl_slots = ttl_slots  # may change while the node runs
        self.clock = clock
        self._slot_s = slot_s
        self._seal = AESGCM(_node_key(key_path))
        self._lock = threading.Lock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._forced = True  # whether a commit waits for the disk
        self._followed = ""  # a server of the shared database
        self._erase_if_age_is_unknown()

    @property
    def ttl_s(self) -> float:
        """The TTL in seconds."""
        return self.ttl_slots * self._slot_s

    @property
    def promised_s(self) -> float:
        """For how long bytes, or keys that wait for their master, are promised to somebody new, in seconds."""
        return promised_slots(self.ttl_slots) * self._slot_s

    @property
    def spare_s(self) -> float:
        """How often this end has to say what it holds, in seconds, so that what is promised lives long enough."""
        return spare_slots(self.ttl_slots) * self._slot_s

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def store(self, block: Block, digest: bytes) -> bool:
        """Keep a QC's block. False if it was here before (a repetition after a lost acknowledgement).

        `digest` is what the other end has to have of it, too, before a byte of it is allocated.

        A block beyond the head leaves a gap: bytes that this end never got. What lies before the gap can still be
        taken by who was promised it, but nothing new is promised from there (see `held`). So it is with an earlier
        epoch when a new one begins; what comes of an epoch that was left behind is refused.
        """
        with self._transaction():
            current = self._db.execute(
                "SELECT number, epoch, head, slot, slots_before + slot, made FROM stream WHERE qc = ?"
                " ORDER BY number DESC LIMIT 1",
                (block.qc,),
            ).fetchone()
            if current is None or current[1] != block.epoch:
                slots = 0 if current is None else current[4]
                begun = self._db.execute(
                    "INSERT INTO stream (qc, epoch, head, gap, slot, slots_before, made) VALUES (?, ?, 0, 0, ?, ?, ?)"
                    " ON CONFLICT (qc, epoch) DO NOTHING RETURNING number, epoch, head, slot, slots_before, made",
                    (block.qc, block.epoch, block.slot, slots, block.made),
                ).fetchone()
                if begun is None:
                    return False
                current = begun
            number, _, head, slot, _, made_before = current
            if block.offset < head or block.slot < slot:
                return False
            # No block is older than the one before it: that came later than its device told us, if anything.
            made = max(float(block.made), made_before)
            self._db.execute(
                "UPDATE stream SET head = :head, gap = coalesce(:gap, gap), slot = :slot, made = :made,"
                " generated = generated + :n WHERE number = :number",
                {
                    "number": number, "head": block.offset + len(block.payload), "slot": block.slot, "made": made,
                    "gap": block.offset if block.offset > head else None, "n": len(block.payload),
                },
            )  # fmt: skip
            payload = block.payload.reveal()
            if payload:
                self._db.execute(
                    "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)",
                    (block.qc, block.epoch, block.offset, block.offset + len(payload), made, digest),
                )
            step = min(_LARGE_FRAGMENT_BYTES, max(_FRAGMENT_BYTES, len(payload) // _MANY_FRAGMENTS))
            for at in range(0, len(payload), step):
                self._insert(block.qc, block.epoch, block.offset + at, made, payload[at : at + step])
        return True

    @property
    def counted(self) -> int:
        """How far this database has counted."""
        ((number,),) = self._query("SELECT told FROM machine")
        return int(number)

    def catch_up(self, number: int) -> bool:
        """The shared database knows that this one has counted so far. Whether this is an older copy, now erased."""
        with self._transaction(forced=True):
            older = self._db.execute("UPDATE machine SET told = :n WHERE told < :n", {"n": number}).rowcount > 0
            if older:
                self._forget()
        return older

    @property
    def collection(self) -> str:
        """The name under which this node asks for keys that nobody has asked for, until it keeps what it was given."""
        ((name,),) = self._query("SELECT collection FROM machine")
        return str(name)

    def _forget(self) -> None:
        self._db.execute("DELETE FROM relayed")
        self._db.execute("DELETE FROM block")
        self._begin_collection()
        self._erase("expired", "true")

    def _begin_collection(self) -> None:
        self._db.execute("UPDATE machine SET collection = ?", (str(uuid.uuid4()),))

    def follow(self, server: str) -> None:
        """From now on nothing is taken but what that server of the shared database has allocated.

        To be called when this end has caught up, before what is `held` is made up for the first report to the server.
        """
        with self._lock:
            self._followed = server

    def take(
        self, wanted: Sequence[Range], request: str = "", server: str = "", *, spare_slots: float = 0.0
    ) -> list[Secret]:
        """The bytes of all `wanted` ranges, gone from here for good; or Missing, and nothing is gone.

        `request` is the allocation that they are taken for, and is kept for the audit; `server` made it. Bytes with
        less than `spare_slots` to live are missing, too.
        """
        with self._transaction():
            return [self._take(r, request, server, spare_slots) for r in wanted]

    def expire(self) -> int:
        """Erase all bytes and relayed keys older than the TTL; the number of bytes erased. To be called once a slot."""
        with self._transaction():
            oldest = self.clock() - self.ttl_s
            self._db.execute("DELETE FROM relayed WHERE made <= ?", (oldest,))
            self._db.execute("DELETE FROM block WHERE made <= ?", (oldest,))
            n_bytes = self._erase("expired", "made <= ?", oldest)
        self._empty_log()
        return n_bytes

    def claims(self, known: Mapping[str, tuple[int, int]]) -> list[Claim]:
        """What this end holds of every QC, for the other end to agree to: the oldest blocks that nobody knows of yet.

        `known`: by QC an epoch, and up to where the shared database knows what is held of it.
        """
        claims = []
        for h in self.held():
            epoch, after = known.get(h.qc, (h.epoch, 0))
            after = max(h.floor, after if epoch == h.epoch else 0)
            rows = self._query(
                "SELECT start, end, digest FROM block WHERE qc = ? AND epoch = ? AND end > ? ORDER BY start LIMIT ?",
                (h.qc, h.epoch, after, MOST_MARKS),
            )
            claims.append(Claim(h.qc, h.epoch, h.floor, after, [Mark(*row) for row in rows]))
        return claims

    def discard(self, differing: Range) -> bool:
        """Erase a block that is another one at the other end; nothing before it is promised any more.

        False if it is not here (any more).
        """
        place = differing.qc, differing.epoch, differing.start, differing.end
        with self._transaction():
            gone = self._db.execute("DELETE FROM block WHERE qc = ? AND epoch = ? AND start = ? AND end = ?", place)
            if not gone.rowcount:
                return False
            self._erase("differing", "qc = ? AND epoch = ? AND start >= ? AND end <= ?", *place)
            self._db.execute(
                "UPDATE stream SET gap = max(gap, ?) WHERE qc = ? AND epoch = ?",
                (differing.end, differing.qc, differing.epoch),
            )
        return True

    def _erase(self, counter: str, condition: str, *values: str | float) -> int:
        """Erase the fragments for which the condition holds, and count their bytes, which are returned."""
        gone = self._db.execute(
            f"DELETE FROM fragment WHERE {condition} RETURNING qc, epoch, end - start", values  # noqa: S608 - no input
        ).fetchall()
        erased: collections.Counter[tuple[str, int]] = collections.Counter()
        for qc, epoch, n_bytes in gone:
            erased[qc, epoch] += n_bytes
        for (qc, epoch), n_bytes in erased.items():
            self._db.execute(
                f"UPDATE stream SET {counter} = {counter} + ? WHERE qc = ? AND epoch = ?",  # noqa: S608 - no input
                (n_bytes, qc, epoch),
            )
        return erased.total()

    def held(self) -> list[Held]:
        """What this end holds of every QC it knows, in the order of their names.

        The floor lies behind the last gap and behind everything that is expired or will be soon.
        """
        oldest = self.clock() - self.promised_s
        # Nor is anything promised before the last byte that was taken here: if the shared database forgot an allocation
        # (a fail-over that lost commits), the other end, which still holds those bytes, must not be given them again.
        rows = self._query(
            "SELECT s.qc, s.epoch, s.head, s.gap, s.last_used, s.slots_before + s.slot, t.generated, t.used, t.expired,"
            " t.differing,"
            " (SELECT f.start FROM fragment f WHERE f.qc = s.qc AND f.epoch = s.epoch AND f.made > ?"
            "  ORDER BY f.start LIMIT 1)"
            " FROM stream s JOIN (SELECT max(number) AS number, sum(generated) AS generated, sum(used) AS used,"
            "  sum(expired) AS expired, sum(differing) AS differing FROM stream GROUP BY qc) t USING (number)"
            " ORDER BY s.qc",
            (oldest,),
        )
        return [
            Held(
                qc, head, max(gap, last_used, head if first is None else first), slot,
                stored=generated - used - expired - differing, generated=generated, used=used, expired=expired,
                differing=differing, epoch=epoch,
            )
            for qc, epoch, head, gap, last_used, slot, generated, used, expired, differing, first in rows
        ]  # fmt: skip

    def number_report(self) -> int:
        """A number greater than that of all earlier reports, for the next one."""
        with self._transaction():
            (number,) = self._db.execute("UPDATE machine SET told = told + 1 RETURNING told").fetchone()
            return int(number)

    def put_relayed(self, keys: Sequence[RelayedKey]) -> bool:
        """Keep relayed keys until they are fetched or a TTL has passed since their making.

        They are wiped: from here on they wait sealed. False, and none is kept, if one of such an ID waits here already.
        """
        try:
            with self._transaction():
                for key in keys:
                    self._keep(key)
        except sqlite3.IntegrityError:
            return False
        finally:
            for key in keys:
                key.key.wipe()
        return True

    def take_found(self, keys: Sequence[Instruction]) -> dict[str, Secret]:
        """Single-hop keys by their IDs, gone from here for good; or Missing, and nothing is gone."""
        with self._transaction():
            return {key.key_id: self._take(key.where, key.request, key.server) for key in keys}

    def keep_found(self, keys: Sequence[Instruction], asked: float, *, collected: bool = False) -> set[str]:
        """Take keys out of the streams and have them wait as relayed keys do. `asked`: when their age was asked for.

        What is not held any more is left out, and a key of an ID that waits here already; the IDs of those keys.
        `collected`: they are what the shared database gave under the name of the `collection`, which is over.
        """
        gone = set()
        with self._transaction():
            if collected:
                self._begin_collection()
            for key in keys:
                self._db.execute("SAVEPOINT one")
                try:
                    taken = self._take(key.where, key.request, key.server)
                    made = asked - key.age_s
                    self._keep(RelayedKey(key.key_id, key.ksid, key.master_sae, key.slave_sae, taken, made))
                except (Missing, sqlite3.IntegrityError):
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
                    "DELETE FROM relayed WHERE key_id = ? AND made > ?"
                    " RETURNING ksid, master_sae, slave_sae, sealed, made",
                    (key_id, self.clock() - self.ttl_s),
                ).fetchone()
                if row is None:
                    self._db.execute("ROLLBACK")
                    return None
                taken.append(RelayedKey(key_id, row[0], row[1], row[2], Secret(self._opened(row[3], key_id)), row[4]))
            self._db.execute("UPDATE machine SET told = told + 1")
        return taken

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

    def _erase_if_age_is_unknown(self) -> None:
        """If the machine was started anew since, its clock was, too: nothing that lies here has a known age."""
        boot = _BOOT_ID.read_text().strip()
        with self._transaction(forced=True):
            # A database that is made anew must not begin with the numbers of one that was lost.
            row = boot, time.time_ns(), str(uuid.uuid4())
            self._db.execute("INSERT OR IGNORE INTO machine VALUES (1, ?, ?, ?)", row)
            if self._db.execute("UPDATE machine SET boot = :boot WHERE boot <> :boot", {"boot": boot}).rowcount:
                self._forget()
                self._db.execute("UPDATE stream SET made = 0")

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

    def _take(self, wanted: Range, request: str, server: str, spare_slots: float = 0.0) -> Secret:
        if server != self._followed:
            raise Outdated(wanted)
        now = self.clock()
        # From the fragment in which the range starts, so that only its own rows are read. The last condition: expiry
        # runs once a slot, but what is too old is too old at once.
        rows = self._db.execute(
            "DELETE FROM fragment WHERE qc = :qc AND epoch = :epoch AND start < :end AND end > :start AND start >="
            " (SELECT coalesce(max(start), 0) FROM fragment WHERE qc = :qc AND epoch = :epoch AND start <= :start)"
            " AND made > :now - :life RETURNING start, end, made, sealed",
            {
                "qc": wanted.qc, "epoch": wanted.epoch, "start": wanted.start, "end": wanted.end, "now": now,
                "life": (self.ttl_slots - spare_slots) * self._slot_s,
            },
        ).fetchall()  # fmt: skip
        rows.sort()
        data = bytearray()
        for start, end, made, sealed in rows:
            if max(start, wanted.start) != wanted.start + len(data):
                raise Missing(wanted)
            plain = self._opened(sealed, _place(wanted.qc, wanted.epoch, start, end, made))
            data += plain[max(0, wanted.start - start) : wanted.end - start]
            if start < wanted.start:
                self._insert(wanted.qc, wanted.epoch, start, made, plain[: wanted.start - start])
            if end > wanted.end:
                self._insert(wanted.qc, wanted.epoch, wanted.end, made, plain[wanted.end - start :])
        if len(data) != len(wanted):
            raise Missing(wanted)
        if rows:
            self._db.execute(
                "UPDATE stream SET used = used + ?, last_used = max(last_used, ?) WHERE qc = ? AND epoch = ?",
                (len(wanted), wanted.end, wanted.qc, wanted.epoch),
            )
            self._db.execute(
                "INSERT INTO taken VALUES (?, ?, ?, ?, ?, ?, ?)",
                (wanted.qc, wanted.epoch, wanted.start, wanted.end, rows[0][2], now, request),
            )
        taken = Secret(data)
        data[:] = bytes(len(data))  # taken is a copy
        return taken

    def _keep(self, key: RelayedKey) -> None:
        sealed = self._sealed(key.key.reveal(), key.key_id)
        self._db.execute(
            "INSERT INTO relayed VALUES (?, ?, ?, ?, ?, ?)",
            (key.key_id, key.ksid, key.master_sae, key.slave_sae, key.made, sealed),
        )
        key.key.wipe()

    def _insert(self, qc: str, epoch: int, start: int, made: float, plain: bytes) -> None:
        end = start + len(plain)
        sealed = self._sealed(plain, _place(qc, epoch, start, end, made))
        self._db.execute("INSERT INTO fragment VALUES (?, ?, ?, ?, ?, ?)", (qc, epoch, start, end, made, sealed))

    def _sealed(self, plain: bytes, where: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, plain, where.encode())

    def _opened(self, sealed: bytes, where: str) -> bytes:
        return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], where.encode())


def _place(qc: str, epoch: int, start: int, end: int, made: float) -> str:
    """What a fragment's seal binds it to."""
    return f"{qc}:{epoch}:{start}:{end}:{made}"


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
