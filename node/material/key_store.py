"""All that a node holds of key material: streams, and keys that wait for their slave SAE.

Keys over one hop are collected from the shared database under a name that changes with the commit by which they wait
here. A node that dies in between, or cannot write, asks under the same name again, and gets them again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from decisions.ranges import Instruction
from documents.secret import Secret
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

    def _keep(self, key: RelayedKey) -> None:
        sealed = self._sealed(key.key.reveal(), key.key_id)
        self._db.execute(
            "INSERT INTO relayed VALUES (?, ?, ?, ?, ?, ?)",
            (key.key_id, key.ksid, key.master_sae, key.slave_sae, key.made, sealed),
        )
        key.key.wipe()
