"""The slave's role: register for keys when a master asks to, fetch those it names, read what it sends under them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from documents.checks import Malformed, uuid_text
from documents.secret import Secret
from etsi.gs004 import QoS
from sae.client import Failed, KmeClient
from sae.messages import Sealed, unseal
from sae.sessions import NO_SESSION, SLAVE, Record, Session, milliseconds

_log = logging.getLogger(__name__)
# Keys held for messages to come, in one session: a master that sends none must not fill our memory.
MAX_WAITING_KEYS = 128


@dataclass(slots=True)
class _Held:
    session: Session
    waiting: OrderedDict[str, Secret] = field(default_factory=OrderedDict)  # by key ID, the oldest first

    def wipe(self) -> None:
        for key in self.waiting.values():
            key.wipe()
        self.waiting.clear()


class Slave:
    """All sessions in which SAE `sae_id` is the slave, one for each master. Thread-safe."""

    def __init__(self, sae_id: str, kme: KmeClient, record: Record) -> None:
        self._id = sae_id
        self._kme = kme
        self._record = record
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}  # by master

    def sessions(self) -> list[dict[str, Any]]:
        """All of them, as documents."""
        with self._lock:
            return [held.session.to_json() for held in self._held.values()]

    def accept(self, master: str, qos: QoS) -> None:
        """Register at the own node for keys from `master` (the paper's Figure 4, ask_connection); or Failed."""
        self._forget(master)
        started = time.monotonic()
        try:
            opened = self._kme.open_key_session(master, SLAVE, qos)
        except Failed as error:
            if error.cause != "exists":
                raise
            self._close_lost(error)
            started = time.monotonic()
            opened = self._kme.open_key_session(master, SLAVE, qos)
        duration_ms = milliseconds(started, time.monotonic())
        pair = {"master_sae": master, "slave_sae": self._id}
        self._record.event("open_key_session", duration_ms=duration_ms, **pair)
        session = Session(SLAVE, master, qos, ksid=opened.ksid if opened else None)
        with self._lock:
            self._held[master] = _Held(session)

    def fetch(self, master: str, ksid: str, key_ids: list[str]) -> None:
        """Get the keys of these IDs at the own node (Figure 5, ask-key) and hold them; or Failed."""
        with self._lock:
            held = self._held.get(master)
        if held is None or held.session.ksid not in (None, ksid):
            raise Failed(404, NO_SESSION, "there is no key session of this KSID with this master")
        held.session.ksid = ksid  # the master has it from its node only when the session is open
        started = time.monotonic()
        try:
            keys = self._kme.get_keys_with_ids(master, key_ids)
        except Failed as error:
            self._record.key_error(held.session, error)
            raise
        duration_ms = milliseconds(started, time.monotonic())
        for key_id, key in keys.items():
            self._record.key(held.session, ksid, key_id, key, duration_ms)
            self._hold(master, held, key_id, key)
        if held.session.opened_at is None:  # nobody tells a slave but the first key
            held.session.opened()

    def read(self, master: str, sealed: Sealed) -> None:
        """Decrypt a message under a key fetched before, which is used up by this; Failed if that does not work."""
        with self._lock:
            held = self._held.get(master)
            key = held.waiting.pop(sealed.key_id, None) if held else None
        if held is None or key is None:
            raise Failed(404, "no_key", "there is no unused key of this ID from this master")
        words = unseal(key, sealed)
        key.wipe()
        self._record.message(held.session, sealed.key_id, ok=words is not None)
        if words is None:
            raise Failed(400, "unreadable", "the message does not decrypt under this key")

    def ended(self, master: str) -> None:
        """The master is done: forget the session, and take back a registration that still waits."""
        session = self._forget(master)
        if session is not None and session.ksid is None:
            try:
                self._kme.withdraw(master)
            except Failed as error:
                _log.info("withdrawing from a session that never came to be: %s", error)

    def _close_lost(self, error: Failed) -> None:
        """Close the session that the node still has of this pair.

        A master has one session with us at a time and knows it. If it asks for another, it has lost that one, as in a
        crash; left alone, it would keep the pair from ever having keys again.
        """
        try:
            ksid = uuid_text(error.facts.get("ksid"), "ksid")
        except Malformed:
            raise error from None
        self._kme.close_key_session(ksid)

    def _hold(self, master: str, held: _Held, key_id: str, key: Secret) -> None:
        with self._lock:
            if self._held.get(master) is not held:  # it ended meanwhile: nobody would ever wipe this key
                key.wipe()
                return
            held.waiting[key_id] = key
            if len(held.waiting) > MAX_WAITING_KEYS:
                held.waiting.popitem(last=False)[1].wipe()

    def _forget(self, master: str) -> Session | None:
        with self._lock:
            held = self._held.pop(master, None)
            if held is None:
                return None
            held.wipe()
            return held.session
