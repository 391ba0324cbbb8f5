"""The master's role: open a key session (the paper's Figure 4), then a key every interval, each session in a thread."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decisions.rekey import Pace, goes_on, next_due
from documents.secret import Secret
from etsi.gs004 import QoS
from mtls import deadline
from sae.client import Failed, KmeClient
from sae.handover import Forgotten, Handover
from sae.messages import NONCE_BYTES, seal
from sae.sessions import CLOSING, MASTER, NO_SESSION, Record, Session, milliseconds
from telemetry import bugs, trace

_log = logging.getLogger(__name__)
# Sessions being opened at the same time. Each holds one of this SAE's workers until the slave has answered, which
# needs one of the slave's: below the number of workers, so that SAEs that open towards one another never all wait.
MAX_OPENING = 16
_CLOSE_WAIT_S = 5.0
_TAKE_BACK_S = 2.0  # to tell KME or slave of it, beyond the time in which a session was to be opened
# A QC that has to be lit for a session takes its time; how long we wait for it in all, and between two tries at least.
_BEING_LIT, _LIT_PATIENCE_S, _LEAST_PAUSE_S = "being_lit", 20.0, 0.2
_CLOSE_AGAIN_S = 1.0  # a KME that did not hear of an end
# Causes with which the controller says no; all others are failures on the way to its decision.
_REFUSALS = ("refused", "no_path", "too_few_paths")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a session ends on its own: after so many seconds, or so many keys; None for never."""

    duration_s: float | None = None
    keys: int | None = None

    def left(self, after_s: float, keys: int) -> Limits:
        """What is left of them to a session that takes over from one which has had so many seconds and keys."""
        duration_s = None if self.duration_s is None else max(0.0, self.duration_s - after_s)
        return Limits(duration_s, None if self.keys is None else self.keys - keys)


@dataclass(slots=True)
class _Running:
    session: Session
    stop: threading.Event = field(default_factory=threading.Event)
    reason: str = "closed"  # of the end, once `stop` is set
    ended: threading.Event = field(default_factory=threading.Event)


class Master:
    """All sessions in which SAE `sae_id` is the master, one for each slave. Thread-safe.

    `pace`: of all sessions together, where the application keeps it; None where each session keeps its own.
    """

    def __init__(
        self,
        sae_id: str,
        name: str,
        *,
        kme: KmeClient,
        handover: Handover,
        record: Record,
        on_key_failure: str,
        pace: Pace | None = None,
    ) -> None:
        self._id = sae_id
        self._name = name
        self._kme = kme
        self._handover = handover
        self._record = record
        self._on_key_failure = on_key_failure
        self._pace = pace
        self._lock = threading.Lock()
        self._opening = threading.BoundedSemaphore(MAX_OPENING)
        self._running: dict[str, _Running] = {}  # by slave
        self._stopping = threading.Event()

    def sessions(self) -> list[dict[str, Any]]:
        """All of them, as documents."""
        with self._lock:
            return [running.session.to_json() for running in self._running.values()]

    def open(self, slave: str, qos: QoS, limits: Limits, *, patiently: bool = False) -> Session:
        """Open a key session with `slave` and exchange keys in a thread; or Failed. `patiently`: wait for a place."""
        if not self._opening.acquire(blocking=patiently):
            raise Failed(503, "busy", f"{MAX_OPENING} sessions of this SAE are being opened; try again")
        try:
            running = self._enter(slave, qos)
            try:
                self._initialise(running.session, limits.duration_s)
                self._start(running, limits)
            except BaseException as error:
                if not isinstance(error, Failed):  # KME and slave may have it by now
                    self._take_back(running.session)
                self._leave(running)
                raise
        finally:
            self._opening.release()
        return running.session

    def close(self, ksid: str) -> bool | None:
        """End a session: whether it has ended before long; None if this master has none of that KSID."""
        with self._lock:
            running = next((r for r in self._running.values() if r.session.ksid == ksid), None)
            if running is None:
                return None
            running.stop.set()
        return running.ended.wait(_CLOSE_WAIT_S)

    def stop(self) -> None:
        """Open no more sessions, and have all of them end."""
        with self._lock:
            self._stopping.set()
            for running in self._running.values():
                running.reason = "stopped"
                running.stop.set()

    def wait(self, until: float) -> None:
        """Return when all sessions have ended, or the monotonic clock says `until`."""
        with self._lock:
            waiting = list(self._running.values())
        for running in waiting:
            running.ended.wait(max(0.0, until - time.monotonic()))

    def _enter(self, slave: str, qos: QoS) -> _Running:
        running = _Running(Session(MASTER, slave, qos))
        with self._lock:
            if self._stopping.is_set():
                raise Failed(503, "stopping", "this SAE is shutting down")
            if slave in self._running:
                raise Failed(409, "exists", "there is a key session with this SAE already")
            self._running[slave] = running
        return running

    def _leave(self, running: _Running) -> None:
        with self._lock:
            del self._running[running.session.peer]
        running.ended.set()

    def _initialise(self, session: Session, duration_s: float | None) -> None:
        pair = {"master_sae": self._id, "slave_sae": session.peer}
        self._record.event("session_requested", duration_s=duration_s, **session.qos.to_json(), **pair)
        patience_until = time.monotonic() + _LIT_PATIENCE_S
        while not self._is_initialised(session, pair, duration_s, patience_until):
            pass

    def _is_initialised(
        self, session: Session, pair: Mapping[str, str], duration_s: float | None, until: float
    ) -> bool:
        """One try; False if another is worth it until then, after the time that the network asks for. Failed."""
        started = time.monotonic()
        try:
            self._handover.ask_connection(session.peer, session.qos)
            asked = time.monotonic()
            self._record.event("ask_connection", duration_ms=milliseconds(started, asked), **pair)
            opened = self._kme.open_key_session(session.peer, MASTER, session.qos, duration_s)
            if opened is None:
                raise Failed(502, "bad_answer", "the KME still waits for the slave SAE, which says it has registered")
        except Failed as error:
            # Also where the slave's answer was lost: it may have registered, and must take that back.
            self._take_back(session)
            retry_s = error.facts.get("retry_s")
            if error.cause == _BEING_LIT and isinstance(retry_s, int | float) and started + retry_s < until:
                self._record.event("session_waits", qc=str(error.facts.get("qc")), retry_s=retry_s, **pair)
                if not self._stopping.wait(max(_LEAST_PAUSE_S, retry_s)):
                    return False
            name = "session_refused" if error.cause in _REFUSALS else "session_failed"
            own = {"cause": error.cause, "status": error.status, "message": str(error), **pair}
            self._record.event(name, **(error.facts | own))
            raise
        known = time.monotonic()  # the KSID is in the master's hand
        session.ksid, session.path, session.paths = opened.ksid, opened.path, opened.paths
        session.opened()
        self._record.event(
            "session_open", ksid=session.ksid, path=list(session.path),
            paths=[list(path) for path in session.paths], hops=session.hops,
            ask_connection_ms=milliseconds(started, asked), open_key_session_ms=milliseconds(asked, known),
            total_ms=milliseconds(started, known), **pair,
        )  # fmt: skip
        return True

    def _take_back(self, session: Session) -> None:
        """End a session that has not come to be, though trying may have taken all the time there was."""
        if session.ksid is not None:
            with deadline.at_least(_TAKE_BACK_S):
                self._close(session)
        with deadline.at_least(_TAKE_BACK_S):
            self._quietly(self._handover.end, session.peer)

    def _start(self, running: _Running, limits: Limits) -> None:
        name = f"session-{running.session.ksid}"
        threading.Thread(target=self._run, args=(running, limits), name=name, daemon=True).start()

    def _run(self, running: _Running, limits: Limits) -> None:
        what = f"session {running.session.ksid}"
        start = time.monotonic()
        try:
            reason = self._exchange(running, limits)
        except Exception as error:
            bugs.report(_log, what, error)
            reason = _own_failure(error).cause
        try:
            self._finish(running.session, reason)
        except Exception as error:
            bugs.report(_log, what, error)
        finally:
            # Only now may the pair open anew: the slave would take this session's end for the next one's.
            self._leave(running)
        # Nobody can close this session any more, and whoever did does not want another one.
        if reason == NO_SESSION and not running.stop.is_set():
            self._open_anew(running.session, limits.left(time.monotonic() - start, running.session.keys))

    def _open_anew(self, ended: Session, limits: Limits) -> None:
        """Another session in place of one that the slave has forgotten. If it cannot be opened, that is all."""
        try:
            with trace.begin():
                self.open(ended.peer, ended.qos, limits, patiently=True)
        except Failed as error:
            _log.info("opening anew after %s: %s", ended.ksid, error)
        except Exception as error:
            bugs.report(_log, f"opening anew after {ended.ksid}", error)

    def _exchange(self, running: _Running, limits: Limits) -> str:
        """A key at once, or at the application's first turn, then one every interval, until the end; why it ends."""
        session = running.session
        start = time.monotonic()
        due = start if self._pace is None else self._turn(self._pace, start, session.qos.interval_s)
        end = None if limits.duration_s is None else start + limits.duration_s
        while not running.stop.wait(max(0.0, (due if end is None else min(due, end)) - time.monotonic())):
            if end is not None and time.monotonic() >= end:
                return "duration"
            failure = self._rekey(session)
            if not goes_on(self._on_key_failure, failed=failure is not None):
                return "key_error"
            if isinstance(failure, Forgotten):
                return NO_SESSION  # each key more would cost material for nothing
            if limits.keys is not None and session.keys >= limits.keys:
                return "keys"
            due = self._next_due(start, session.qos.interval_s)
        return running.reason

    def _next_due(self, start: float, interval_s: float) -> float:
        now = time.monotonic()
        return next_due(start, interval_s, now) if self._pace is None else self._turn(self._pace, now, interval_s)

    def _turn(self, pace: Pace, now: float, interval_s: float) -> float:
        with self._lock:
            return pace.take(now, interval_s)

    def _rekey(self, session: Session) -> Failed | None:
        """Get both sides a new key, or say why they have none."""
        with trace.begin():
            try:
                self._exchange_key(session)
            except Failed as error:
                failure = error
            except Exception as error:
                # A thread that dies in silence would look like a session that needs no keys.
                bugs.report(_log, "rekeying", error)
                failure = _own_failure(error)
            else:
                return None
            self._record.key_error(session, failure)
            return failure

    def _exchange_key(self, session: Session) -> None:
        assert session.ksid is not None  # noqa: S101 - it is open
        started = time.monotonic()
        key_id, key = self._kme.get_key(session.peer, session.qos.key_size_bits)
        duration_ms = milliseconds(started, time.monotonic())
        try:
            self._handover.ask_key(session.peer, session.ksid, key_id)
            self._record.key(session, session.ksid, key_id, key, duration_ms)
            self._greet(session, key_id, key)
        finally:
            key.wipe()

    def _greet(self, session: Session, key_id: str, key: Secret) -> None:
        """The demonstration: a message under the new key. One that gets lost is no key error; one unreadable is."""
        sealed = seal(key, key_id, f"greetings from {self._name}", nonce=os.urandom(NONCE_BYTES))
        try:
            self._handover.message(session.peer, sealed.to_json())
        except Failed as error:
            self._record.message(session, key_id, ok=False, cause=error.cause)
            if error.cause == "unreadable":  # the two sides hold different keys
                raise
        else:
            self._record.message(session, key_id, ok=True)

    def _finish(self, session: Session, reason: str) -> None:
        session.state = CLOSING
        with trace.begin():
            known = self._close(session)
            self._quietly(self._handover.end, session.peer)
            self._record.event(
                "session_closed", ksid=session.ksid, reason=reason, keys=session.keys, errors=dict(session.errors),
                errors_said=dict(session.errors_said),
            )  # fmt: skip
        while not known and not self._stopping.wait(_CLOSE_AGAIN_S):
            known = self._close(session)

    def _close(self, session: Session) -> bool:
        """Whether the KME knows now that the session has ended; else it would keep it for ever."""
        try:
            self._kme.close_key_session(session.ksid or "")
        except Failed as error:
            _log.info("closing %s: %s", session.ksid, error)
            return error.status < 500  # it has no such session
        except Exception as error:
            bugs.report(_log, f"closing {session.ksid}", error)
            return False
        return True

    def _quietly(self, step: Callable[[str], None], argument: str) -> None:
        """Best effort: what is left behind there ends there, by a time-out or at the next request."""
        try:
            step(argument)
        except Failed as error:
            _log.info("%s: %s", step.__name__, error)
        except Exception as error:
            bugs.report(_log, step.__name__, error)


def _own_failure(error: Exception) -> Failed:
    """What an exception of this SAE's own is called before others. PURE."""
    if scarce := bugs.refused(error):
        return Failed(503, bugs.REFUSED, f"the machine of this SAE refuses: {scarce}")
    return Failed(500, "internal_error", "a bug in this SAE: see its log")
