"""The QCs' streams in a node's local database, encrypted at rest, erased when used or expired.

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
"""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decisions.ranges import (
    MOST_MARKS,
    STOCK_BYTES,
    Claim,
    Mark,
    Range,
    promised_bytes,
    promised_slots,
    spare_slots,
)
from documents.secret import Secret
from node.material.blocks import Block, boottime
from node.material.local_database import LocalDatabase

# A fragment is rewritten when part of it is taken, so it should be small; but thousands of them in a block take long to
# seal and to write.
_FRAGMENT_BYTES = 1024
_LARGE_FRAGMENT_BYTES = 4096
_MANY_FRAGMENTS = 256
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine


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


class KeyStreams(LocalDatabase):
    """The streams in a local database. `clock`: seconds that count from the machine's start.

    `stock_bytes`: of each stream only so many of its newest bytes are kept.
    """

    def __init__(
        self,
        path: Path,
        key_path: Path,
        *,
        ttl_slots: int,
        slot_s: float = 1.0,
        clock: Callable[[], float] = boottime,
        stock_bytes: int = STOCK_BYTES,
    ) -> None:
        super().__init__(path, key_path)
        self._stock_bytes = stock_bytes
        self.ttl_slots = ttl_slots  # may change while the node runs
        self.clock = clock
        self._slot_s = slot_s
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

    def store(self, block: Block, digest: bytes) -> bool:
        """Keep a QC's block. False if it was here before (a repetition after a lost acknowledgement).

        `digest` is what the other end has to have of it, too, before a byte of it is allocated.

        A block beyond the head leaves a gap: bytes that this end never got. What lies before the gap can still be
        taken by who was promised it, but nothing new is promised from there (see `held`). So it is with an earlier
        epoch when a new one begins; what comes of an epoch that was left behind is refused.
        """
        with self._transaction():
            return self._append(block, digest)

    def _append(self, block: Block, digest: bytes) -> bool:
        """What `store` does, as a part of a transaction."""
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
        beyond = block.qc, block.epoch, block.offset + len(payload) - self._stock_bytes
        if beyond[-1] > 0:
            self._db.execute("DELETE FROM block WHERE qc = ? AND epoch = ? AND end <= ?", beyond)
            self._erase("expired", "qc = ? AND epoch = ? AND start < ?", *beyond)
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
        for table in ("relayed", "block", "offer"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - no input
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
        """Erase all bytes and relayed keys older than the TTL; how many bytes were erased. To be called once a slot."""
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

        The floor lies behind the last gap, and behind everything that is expired, or beyond the stock, or will be soon.
        """
        oldest, promised = self.clock() - self.promised_s, promised_bytes(self._stock_bytes)
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
                qc, head, max(gap, last_used, head if first is None else first, head - promised), slot,
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

    def _insert(self, qc: str, epoch: int, start: int, made: float, plain: bytes) -> None:
        end = start + len(plain)
        sealed = self._sealed(plain, _place(qc, epoch, start, end, made))
        self._db.execute("INSERT INTO fragment VALUES (?, ?, ?, ?, ?, ?)", (qc, epoch, start, end, made, sealed))

def _place(qc: str, epoch: int, start: int, end: int, made: float) -> str:
    """What a fragment's seal binds it to."""
    return f"{qc}:{epoch}:{start}:{end}:{made}"
