"""Keys for a slave SAE, by their IDs (GS QKD 014, 5.4).

A key over one hop lies in the key stream here; the shared database knows where. What its slave has not asked for within
a slot this node fetches all the same, before the bytes are too old. A key over several hops waits here, relayed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from decisions.modes import KEY
from decisions.ranges import Instruction
from documents.checks import Malformed
from documents.secret import Secret
from etsi.gs014 import KEYS_NOT_FOUND
from mtls import deadline
from node.failures import (
    DatabaseUnreachable,
    KeysGone,
)
from node.limits import ANSWER_S, CATCH_UP_S
from node.material import key_events
from node.material.key_store import KeyStore
from node.material.key_stream import Missing
from node.material.losses import Losses
from node.material.shared_db import Foreign, NotFound, SharedDatabase
from node.recent import RecentIds
from node.serving.pool import Keys
from telemetry import trace
from telemetry.journal import Journal

_NOWHERE = "no_position"  # the shared database names none at which a key can lie, which so is lost


class Unauthorized(Exception):
    """The caller may not have this key (clause 5.4)."""


class Fetching:
    """Fetches keys at the slave's node `name`. Thread-safe. `relayed_from_here`: IDs of keys that this node sent on.

    `on_hand_out` is called when keys that waited here were handed out.
    """

    def __init__(
        self,
        name: str,
        *,
        store: KeyStore,
        shared: SharedDatabase,
        losses: Losses,
        relayed_from_here: RecentIds,
        journal: Journal,
    ) -> None:
        self.on_hand_out: Callable[[], None] = lambda: None
        self._name = name
        self._store = store
        self._shared = shared
        self._losses = losses
        self._relayed_from_here = relayed_from_here
        self._journal = journal
        self._fetches = _Fetches()
        self._collected = threading.Event()  # for the first time since the node's start

    def get(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
        """The keys of `key_ids` for their slave, once, all or none (clause 5.4).

        Unauthorized if one of them is another SAE's; Malformed or KeysGone, with the standard's message, if one is not
        (any more) here or not `master`'s.
        """
        try:
            return self._fetch(slave, master, key_ids)
        except NotFound:
            # Another fetch may have brought them along, marked as delivered, and not put them into our database yet.
            self._fetches.wait_for_those_under_way()
        try:
            return self._fetch(slave, master, key_ids)
        except NotFound:
            raise Malformed(
                "key_IDs", "keys that wait here for the caller", clause="5.4", message=KEYS_NOT_FOUND
            ) from None

    def collect(self) -> None:
        """Have single-hop keys wait here that the slaves have not asked for yet, while their bytes live; KeyFailure."""
        with self._fetches.one(), trace.begin():
            at, started, asked = time.time(), time.monotonic(), self._store.clock()
            found, lost = self._shared.collect(self._store.collection)
            if found or lost:
                key_events.collected(self._journal, found, at, time.monotonic() - started)
                self._used(found, self._store.keep_found(found, asked, collected=True))
                self._losses.add_keys(_NOWHERE, lost)
        self._collected.set()

    def _fetch(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
        owners = self._store.relayed_owners(key_ids)
        foreign = any(owner_slave != slave for _, owner_slave in owners.values())
        if foreign or self._relayed_from_here.any_of(key_ids):
            raise Unauthorized("a key asked for belongs to another SAE")
        if any(owner_master != master for owner_master, _ in owners.values()):
            self._bring(slave, master, key_ids)  # brings none, as that one is not there; but a foreign one goes first
            raise NotFound
        # By then it is known whether the local database is an older copy, and what the node was about to keep is here.
        if not self._collected.wait(CATCH_UP_S):
            raise DatabaseUnreachable("this node has not heard from the shared database since its start: try again")
        elsewhere = [k for k in key_ids if k not in owners]
        if elsewhere:
            with self._fetches.one():
                asked = self._store.clock()
                found = self._bring(slave, master, elsewhere)
                complete = {i.key_id for i in found if i.asked} == set(elsewhere)
                if complete and not owners and all(i.asked for i in found):
                    keys = self._take_at_once(found)
                    if keys is not None:
                        return [(key_id, keys[key_id]) for key_id in key_ids]
                self._keep(found, asked)
                if not complete:
                    raise NotFound
        relayed = self._store.take_relayed(key_ids)
        if relayed is None:
            raise NotFound
        self.on_hand_out()
        return [(r.key_id, r.key) for r in relayed]

    def _bring(self, slave: str, master: str, key_ids: Sequence[str]) -> list[Instruction]:
        """Where single-hop keys lie, with all that were made with them; but for those that are lost."""
        try:
            with key_events.statement(self._journal, "deliver", key_ids=list(key_ids)) as facts:
                found, lost = self._shared.deliver(master, slave, key_ids)
                facts.update(key_events.instructions(found))
        except Foreign:
            raise Unauthorized("a key asked for belongs to another SAE") from None
        self._losses.add_keys(_NOWHERE, lost)
        return found

    def _take_at_once(self, found: Sequence[Instruction]) -> dict[str, Secret] | None:
        """Single-hop keys straight out of the streams; None, and nothing is gone, if one of them is not held."""
        try:
            keys = self._store.take_found(found)
        except Missing:
            return None
        self._used(found)
        return keys

    def _keep(self, found: Sequence[Instruction], asked: float) -> None:
        """Have single-hop keys wait here; KeysGone if one that was asked for is not held."""
        # All of them first: if one is gone, the others must not be lost with it.
        gone = self._store.keep_found(found, asked)
        self._used(found, gone)
        lost = [i for i in found if i.key_id in gone and i.asked]
        if lost:
            raise KeysGone(KEYS_NOT_FOUND, qc=lost[0].where.qc, node=self._name)

    def _used(self, found: Sequence[Instruction], gone: Collection[str] = ()) -> None:
        """Single-hop keys have left the streams, except those that were `gone`: their slaves will never get them."""
        here = [i for i in found if i.key_id not in gone]
        for i in found:
            if i.key_id in gone:
                self._losses.add(i.request, KeysGone.cause, [(i.where, KEY)])
        for request in dict.fromkeys(i.request for i in here):
            mine = [i for i in here if i.request == request]
            ranges = key_events.joined(i.where for i in mine)
            key_ids = [i.key_id for i in mine]
            key_events.used(self._journal, request, [(r, KEY) for r in ranges], key_ids=key_ids)


class _Fetches:
    """Fetches from the shared database that are under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[object] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """A fetch, as long as the block lasts."""
        token = object()
        with self._changed:
            self._running.add(token)
        try:
            yield
        finally:
            with self._changed:
                self._running.discard(token)
                self._changed.notify_all()

    def wait_for_those_under_way(self) -> None:
        """Return when all fetches that run now have ended."""
        with self._changed:
            running = set(self._running)
            self._changed.wait_for(lambda: not running & self._running, timeout=max(0.0, deadline.left(ANSWER_S)))
