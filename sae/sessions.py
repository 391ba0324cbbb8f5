"""A key session as one of its two SAEs sees it, and what it leaves in the journal: keys, errors, messages."""

from __future__ import annotations

import hmac
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from documents.secret import Secret
from etsi.gs004 import QoS
from sae.client import Failed
from telemetry.journal import Journal

MASTER, SLAVE = "master", "slave"
OPENING, OPEN, CLOSING = "opening", "open", "closing"
NO_SESSION = "no_session"  # what a slave says of a KSID that it does not know
_FINGERPRINT_BYTES = 16
MOST_CAUSES = 32  # of errors in a session, which another party may name; all others are counted as one


@dataclass(slots=True)
class Session:
    """A key session; `side` is this SAE's, `peer` the other one's ID. Its counters are changed by `Record` only."""

    side: str
    peer: str
    qos: QoS
    ksid: str | None = None  # a slave learns it with the first key
    path: tuple[str, ...] = ()  # of nodes, the master's first; a slave never learns it
    paths: tuple[tuple[str, ...], ...] = ()  # each of several
    state: str = OPENING
    opened_at: float | None = None  # wall clock, s
    keys: int = 0  # that both sides got, as far as this side knows
    errors: dict[str, int] = field(default_factory=dict)  # by cause
    errors_said: dict[str, str] = field(default_factory=dict)  # by cause: what the last one said

    @property
    def hops(self) -> int:
        """Links on its path, on the longest one of several; 0 if none is known."""
        return max((len(path) - 1 for path in self.paths or (self.path,) if path), default=0)

    def opened(self) -> None:
        """From now on there are keys."""
        self.state, self.opened_at = OPEN, time.time()

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        return {
            "side": self.side, "peer": self.peer, "ksid": self.ksid, "path": list(self.path),
            "paths": [list(path) for path in self.paths], "state": self.state,
            "opened_at": self.opened_at, "keys": self.keys, "errors": dict(self.errors),
            "errors_said": dict(self.errors_said), "qos": self.qos.to_json(),
        }  # fmt: skip


class Record:
    """Counts and journals what happens in sessions. Thread-safe.

    A key is journalled as a fingerprint under `audit_secret`: who compares journals sees whether both sides got the
    same key, and no key came twice, and learns nothing about it.
    """

    def __init__(self, journal: Journal, audit_secret: Secret) -> None:
        self._journal = journal
        self._audit_secret = audit_secret
        self._lock = threading.Lock()

    def key(self, session: Session, ksid: str | None, key_id: str, key: Secret, duration_ms: float) -> None:
        """A key arrived `duration_ms` after this side asked its node for it; a master says how many hops it came.

        `ksid`: None where an SAE knows GS QKD 014 alone, which has none.
        """
        mark = b"qkd-key\0" + key.reveal()  # without its ID: a key under two IDs must not look like two
        fingerprint = hmac.digest(self._audit_secret.reveal(), mark, "sha256")[:_FINGERPRINT_BYTES].hex()
        with self._lock:
            session.keys += 1
        hops = {"hops": session.hops} if session.path else {}
        self._journal.event(
            "key", ksid=ksid, key_id=key_id, side=session.side, size_bits=8 * len(key), fingerprint=fingerprint,
            duration_ms=duration_ms, **hops,
        )  # fmt: skip

    def key_error(self, session: Session, error: Failed) -> None:
        """A key did not come, or must not be used."""
        with self._lock:
            known = error.cause in session.errors or len(session.errors) < MOST_CAUSES
            cause = error.cause if known else "other"
            session.errors[cause] = session.errors.get(cause, 0) + 1
            session.errors_said[cause] = str(error)
        self._journal.event(
            "key_error", ksid=session.ksid, side=session.side, peer=session.peer, cause=error.cause,
            message=str(error), facts=error.facts,
        )  # fmt: skip

    def message(self, session: Session, key_id: str, *, ok: bool, **facts: str) -> None:
        """A message under a key went over, or did not."""
        self._journal.event("message", ksid=session.ksid, key_id=key_id, side=session.side, ok=ok, **facts)

    def event(self, name: str, **facts: Any) -> None:
        """Anything else."""
        self._journal.event(name, **facts)


def milliseconds(start: float, end: float) -> float:
    """From `start` to `end`, both in s."""
    return round((end - start) * 1000, 3)
