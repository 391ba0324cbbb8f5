"""One end of a tunnel: which key protects it, when the next one comes, and that it lets nothing through without one.

Theory of operation. One end leads, the other one follows. Every interval the leading end asks its KME for a key (GS
QKD 014, 5.3) and tells the other gateway its ID, which fetches it (5.4) and gets ready for it. Then the leading end
makes the handshake under the new key, and both turn to it. Until both have turned, both take packets under the old key
and under the new one. Then the old one is forgotten.

Whatever goes wrong on the way, each end looks after itself: a key that is older than two intervals has lapsed, and an
end whose key has lapsed lets nothing through, or goes on under it if the user wished so. So the two ends are under
different keys no longer than a turn takes, and never without one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from decisions.tunnels import CLOSE, KEY_BITS, Terms, lapse_s, next_try_s
from documents.secret import Secret
from etsi.gs004 import QoS
from sae.client import Failed, KmeClient
from sae.sessions import MASTER, SLAVE, Record, Session, milliseconds
from sae.vpn.far_end import FarEnd
from telemetry import bugs, trace

_log = logging.getLogger(__name__)
_GRACE_S = 0.2  # and round trips: what the other end sent under the old key is on its way for so long
_JOIN_S = 30.0
WAITING, UP, HELD, CLOSED = "waiting", "up", "held", "closed"


class Carrier(Protocol):
    """What carries packets between the two ends, as WireGuard and IPsec do. All may raise Failed."""

    @property
    def data_path(self) -> str:
        """What it is on this machine, in the words that people read: a part of the kernel, or a program."""

    def offer(self) -> dict[str, Any]:
        """What the other end must know."""

    def accept(self, theirs: Mapping[str, Any]) -> None:
        """What the other end offers; Malformed."""

    @property
    def idle(self) -> int:
        """Which of its two ways, 0 and 1, the next key is loaded on."""

    def load(self, key_id: str, key: Secret, far: int, *, first: bool) -> None:
        """Be ready for packets under a key, with the other end's way `far`; who goes first, makes the handshake."""

    def establish(self, key_id: str) -> None:
        """Return when both ends have agreed under the key that was loaded."""

    def turn(self, key_id: str) -> None:
        """Send under it from now on."""

    def forget_others(self) -> None:
        """Take no packets under any other key."""

    def close(self) -> None:
        """Let nothing through."""

    def carried(self) -> tuple[int, int]:
        """Bytes received and sent under the key in use."""

    def remove(self) -> None:
        """As if it had never been."""


class Tunnel:
    """The end at datacenter `here` of a tunnel with `far`, by `carrier`. `leads`: asks for the keys. Thread-safe.

    `round_trip_s`: the longest of the network.
    """

    def __init__(
        self, terms: Terms, far: FarEnd, carrier: Carrier, *, here: str, kme: KmeClient, record: Record, leads: bool,
        round_trip_s: float,
    ) -> None:  # fmt: skip
        self.terms = terms
        self.leads = leads
        self._far = far
        self._carrier = carrier
        self._kme = kme
        self._record = record
        self._facts = {"node": here, "peer": far.name, "kind": terms.kind, "every_s": terms.every_s}
        self._grace_s = _GRACE_S + 2 * round_trip_s
        self._session = Session(MASTER if leads else SLAVE, far.sae_id, QoS(key_size_bits=KEY_BITS))
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = WAITING
        self._key_id: str | None = None
        self._since: float | None = None  # wall clock, s
        self._since_mono = 0.0
        self._keys = 0
        self._problem: str | None = None
        self._met = False  # whether both ends have turned to a key
        self._stopping = False
        steps = {"lapse": self._watch, **({"tunnel": self._lead} if leads else {})}
        self._threads = [
            threading.Thread(target=step, name=f"{name}-{far.sae_id}", daemon=True) for name, step in steps.items()
        ]

    def start(self) -> None:
        """From now on there are keys."""
        for thread in self._threads:
            thread.start()

    def wait(self, within_s: float) -> None:
        """Return when it is up at both ends for the first time; Failed says what was in the way for so long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._met, within_s):
                raise Failed(503, "no_key", self._problem or f"no key has come within {within_s:g} s")

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        with self._lock:
            received, sent = (0, 0)
            if self._key_id is not None:
                try:
                    received, sent = self._carrier.carried()
                except Failed as error:
                    self._problem = str(error)
            return {
                "peer": self._far.sae_id, "leads": self.leads, **self.terms.to_json(), "state": self._state,
                "key_id": self._key_id, "since": self._since, "keys": self._keys, "problem": self._problem,
                "received_bytes": received, "sent_bytes": sent, "data_path": self._carrier.data_path,
            }  # fmt: skip

    def load(self, key_id: str, far: int) -> int:
        """The other end has a key for both, on its way `far`: fetch it, and be ready; on which way. Failed."""
        started = time.monotonic()
        try:
            key = self._kme.get_keys_with_ids(self._far.sae_id, [key_id])[key_id]
        except Failed as error:
            self._record.key_error(self._session, error)
            raise
        return self._take(key_id, key, far, started)

    def turn(self, key_id: str) -> None:
        """The other end sends under that key: do likewise; Failed."""
        with self._lock:
            self._carrier.turn(key_id)
            self._in_use(key_id)
        threading.Timer(self._grace_s, self._forget_others, [key_id]).start()

    def stop(self) -> None:
        """Let nothing through any more, and leave nothing behind."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():  # or was never started
                thread.join(_JOIN_S)
        with self._lock:
            self._state, self._key_id = CLOSED, None
            self._carrier.remove()
        self._record.event("tunnel_ended", **self._facts)

    def _lead(self) -> None:
        due = time.monotonic()
        while not self._waited(due):
            began = time.monotonic()
            with trace.begin():
                problem = self._rekey()
            due = began + next_try_s(self.terms.every_s, failed=problem is not None)
            with self._changed:
                self._problem = problem
                self._changed.notify_all()

    def _waited(self, until: float) -> bool:
        """Whether it is to stop; else `until` has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopping, max(0.0, until - time.monotonic()))

    def _rekey(self) -> str | None:
        """Bring both ends under a new key; if that fails, why."""
        started = time.monotonic()
        try:
            key_id, key = self._kme.get_key(self._far.sae_id, KEY_BITS)
            try:
                self._take(key_id, key, self._far.load(key_id, self._carrier.idle), started)
            finally:
                key.wipe()
            self._carrier.establish(key_id)
            with self._lock:
                if self._stopping:
                    return None
                self._carrier.turn(key_id)
                self._in_use(key_id, duration_ms=milliseconds(started, time.monotonic()))
            self._far.turn(key_id)
            with self._changed:
                self._met = True
                self._changed.notify_all()
            if not self._waited(time.monotonic() + self._grace_s):
                self._forget_others(key_id)
        except Failed as error:
            self._record.key_error(self._session, error)
            return str(error)
        except Exception as error:
            bugs.report(_log, "rekeying a tunnel", error)
            return "a bug in this gateway: see its log"
        return None

    def _take(self, key_id: str, key: Secret, far: int, started: float) -> int:
        try:
            self._record.key(self._session, None, key_id, key, milliseconds(started, time.monotonic()))
            with self._lock:
                if self._stopping:
                    raise Failed(503, "stopping", "this tunnel is being closed")
                way = self._carrier.idle
                self._carrier.load(key_id, key, far, first=self.leads)
                return way
        finally:
            key.wipe()

    def _in_use(self, key_id: str, **facts: Any) -> None:
        self._state, self._key_id, self._problem = UP, key_id, None
        self._since, self._since_mono = time.time(), time.monotonic()
        self._keys += 1
        self._record.event("tunnel_keyed", **self._facts, key_id=key_id, **facts)
        self._changed.notify_all()

    def _forget_others(self, key_id: str) -> None:
        with self._lock:
            if self._key_id == key_id:
                try:
                    self._carrier.forget_others()
                except Failed as error:
                    _log.warning("the old key is still known: %s", error)

    def _watch(self) -> None:
        """See to it that no key is used for too long."""
        lapses_s = lapse_s(self.terms.every_s)
        with self._changed:
            while not self._stopping:
                left = self._since_mono + lapses_s - time.monotonic() if self._state == UP else None
                if left is not None and left <= 0:
                    self._lapse()
                else:
                    self._changed.wait(left)

    def _lapse(self) -> None:
        key_id = self._key_id
        if self.terms.policy == CLOSE:
            self._state, self._key_id, self._since = CLOSED, None, None
            try:
                self._carrier.close()
            except Failed as error:
                _log.error("a tunnel whose key has lapsed: %s", error)
            self._record.event("tunnel_closed", **self._facts, key_id=key_id)
        else:
            self._state = HELD
            self._record.event("tunnel_held", **self._facts, key_id=key_id)
