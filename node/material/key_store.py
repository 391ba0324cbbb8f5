"""All that a node holds of key material: streams, keys that wait for their slave SAE, and what it had from devices.

Keys over one hop are collected from the shared database under a name that changes with the commit by which they wait
here. A node that dies in between, or cannot write, asks under the same name again, and gets them again.

A key of a device is laid into a stream by one commit with its ID and with the offer of it to the other end. So whatever
kills the node, a key that lies in the stream is offered, and is not laid again.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from decisions.ranges import Instruction
from documents.secret import Secret
from node.limits import LAID_KEPT, SUSPICIONS_KEPT
from node.material.blocks import Block
from node.material.key_stream import KeyStreams, Missing


@dataclass(frozen=True, slots=True)
class RelayedKey:
    """A key that waits for its slave SAE; `made` when by the clock of the node, or earlier."""

    key_id: str
    ksid: str
    master_sae: str
    slave_sae: str
    key: Secret
    made: float


class LaidAlready(Exception):
    """A key of that ID was laid into the stream of this QC before."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A block [start, end) of keys of a device, in their order, of which the other end is told; `made` as in Block."""

    epoch: int
    start: int
    end: int
    made: float
    digest: bytes
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why the devices of a QC are not trusted, in a word; `id` says at both ends that it is the same one."""

    id: str
    cause: str


class KeyStore(KeyStreams):
    """Streams and keys, in one database: a key leaves a stream and waits here in one step."""

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

    def place(self, qc: str) -> tuple[int, int, int]:
        """Epoch, head and slot of a QC's current stream; zeros if nothing has come of it yet."""
        rows = self._query("SELECT epoch, head, slot FROM stream WHERE qc = ? ORDER BY number DESC LIMIT 1", (qc,))
        return rows[0] if rows else (0, 0, 0)

    def lay(self, block: Block, digest: bytes, key_ids: Sequence[str], *, offered: bool) -> bool:
        """Keep a block of keys of a device, as `store` does; LaidAlready, and nothing is kept.

        `offered`: the other end is to be told of it.
        """
        with self._transaction():
            try:
                self._db.executemany(
                    "INSERT INTO laid (qc, key_id) VALUES (?, ?)",
                    [(block.qc, uuid.UUID(key_id).bytes) for key_id in key_ids],
                )
            except sqlite3.IntegrityError:
                raise LaidAlready from None
            if not self._append(block, digest):
                self._db.execute("ROLLBACK")
                return False
            self._db.execute("DELETE FROM laid WHERE number <= (SELECT max(number) FROM laid) - ?", (LAID_KEPT,))
            if offered:
                end = block.offset + len(block.payload)
                row = block.qc, block.epoch, block.offset, end, block.made, digest, json.dumps(list(key_ids))
                self._db.execute("INSERT INTO offer VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return True

    def offers(self, qc: str) -> list[Offer]:
        """What the other end is to be told of, the oldest first."""
        rows = self._query(
            "SELECT epoch, start, end, made, digest, key_ids FROM offer WHERE qc = ? ORDER BY made, start", (qc,)
        )
        return [Offer(row[0], row[1], row[2], row[3], row[4], tuple(json.loads(row[5]))) for row in rows]

    def withdraw(self, qc: str, offers: Sequence[Offer]) -> None:
        """The other end need not be told of these any more."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM offer WHERE qc = ? AND epoch = ? AND start = ?", [(qc, o.epoch, o.start) for o in offers]
            )

    def suspect(self, qc: str, suspicion: Suspicion) -> bool:
        """Do not trust the QC's devices any more; False if this suspicion is known already, be it lifted."""
        with self._transaction(forced=True):
            new = self._db.execute(
                "INSERT INTO suspicion (qc, id, cause, lifted) VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING RETURNING 1",
                (qc, suspicion.id, suspicion.cause),
            ).fetchone()
            self._db.execute(
                "DELETE FROM suspicion WHERE qc = :qc AND lifted AND number <="
                " (SELECT max(number) FROM suspicion WHERE qc = :qc) - :most",
                {"qc": qc, "most": SUSPICIONS_KEPT},
            )
        return new is not None

    def suspicion(self, qc: str) -> Suspicion | None:
        """Why the QC's devices are not trusted; None if they are."""
        query = "SELECT id, cause FROM suspicion WHERE qc = ? AND NOT lifted ORDER BY number LIMIT 1"
        return next((Suspicion(*row) for row in self._query(query, (qc,))), None)

    def trust(self, qc: str) -> None:
        """Trust the QC's devices again."""
        with self._transaction(forced=True):
            self._db.execute("UPDATE suspicion SET lifted = 1 WHERE qc = ?", (qc,))

    def _keep(self, key: RelayedKey) -> None:
        sealed = self._sealed(key.key.reveal(), key.key_id)
        self._db.execute(
            "INSERT INTO relayed VALUES (?, ?, ?, ?, ?, ?)",
            (key.key_id, key.ksid, key.master_sae, key.slave_sae, key.made, sealed),
        )
        key.key.wipe()
