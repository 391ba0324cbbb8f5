"""New keys for a master SAE: allocated, made or taken out of the pool (GS QKD 014, 6.2).

Single hop (the paper's Figure 5): the master's KME allocates a range and takes it; the slave's KME finds the range by
way of the shared database; neither sends the other a word. Several hops: see `node.relaying.relay`. In modes that make
keys ahead, those not needed yet wait in the pool here and in the local database there.

An application may take no more of its keys than the app_qos/max_bandwidth with which it was configured.
GS QKD 015 has the key store answer with an error when an application goes over its maximum, and leaves open over what
time. Here a request is refused as long as what was given before is more than the maximum allows until now, so that the
mean holds over any time, and a key of any size can be had once.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from decisions.modes import Mode, ahead
from decisions.paths import left_without
from decisions.ranges import Allocation, Shortage, spare_slots
from etsi.gs014 import KeyRequest
from mtls import deadline
from node.associations.implicit import ImplicitSessions
from node.associations.sessions import Session, over
from node.config import Parameters
from node.failures import (
    DatabaseChanged,
    DatabaseUnreachable,
    KeyFailure,
    MaterialExpired,
    OverBandwidth,
    PathDown,
    ShortOfMaterial,
    TooFewPaths,
    TooLate,
)
from node.limits import ANSWER_S, LEAST_S
from node.material import key_events
from node.material.key_store import KeyStore
from node.material.key_stream import Missing
from node.material.losses import Losses
from node.material.shared_db import KeyOwner, SharedDatabase
from node.recent import RecentIds
from node.relaying.relay import Relay
from node.relaying.relay_messages import cut
from node.serving.batching import Together
from node.serving.pool import Keys, Pool
from node.serving.requested_bytes import USUAL_INTERVAL_S, Requested
from node.waiting_limits import Turns
from telemetry import trace
from telemetry.journal import Journal


class Bandwidths:
    """Applications by ID, each with the moment until which its maximum is used up. Thread-safe. Moments in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used_until: dict[str, float] = {}

    def take(self, app_id: str, bits: int, max_bps: int, now: float) -> bool:
        """Take `bits`; False, and nothing is taken, if the application is over its maximum."""
        with self._lock:
            if not max_bps or self._used_until.get(app_id, now) > now:
                return False
            self._used_until[app_id] = now + bits / max_bps
            return True

    def give_back(self, app_id: str, bits: int, max_bps: int) -> None:
        """What was taken was not handed out."""
        with self._lock:
            if app_id in self._used_until:
                self._used_until[app_id] -= bits / max_bps

    def forget(self, app_id: str) -> None:
        """An application is over."""
        with self._lock:
            self._used_until.pop(app_id, None)


class Intervals:
    """How often the masters of key sessions ask for a key, by KSID. Thread-safe. In seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, float]] = {}  # when it was asked last, and how long a key lasted so far

    def asked(self, ksid: str, number: int, now: float) -> None:
        """So many keys are asked for."""
        with self._lock:
            mean = USUAL_INTERVAL_S
            if ksid in self._known:
                last, mean = self._known[ksid]
                mean += _NEWEST * ((now - last) / number - mean)
            self._known[ksid] = now, max(mean, _SHORTEST_S)

    def of(self, ksid: str) -> float:
        """How long a key lasts; the usual time if nobody has asked twice."""
        with self._lock:
            return self._known.get(ksid, (0.0, USUAL_INTERVAL_S))[1]

    def forget(self, ksid: str) -> None:
        """A session is over."""
        with self._lock:
            self._known.pop(ksid, None)


_TRIES = 3
_NEWEST = 0.3  # the weight of the last interval
_SHORTEST_S = 0.01
# Of its interval: an application that asks for its next key so much of it later is not too early.
_PUNCTUAL = 0.9


@dataclass(frozen=True, slots=True)
class Delivered:
    """Keys for the master, and where they came from: "pool", "refill" (made ahead with others) or "direct".

    `mode`: its name; `hops`: number of links that they went over.
    """

    keys: Keys
    source: str
    mode: str
    hops: int


def _over(session: Session, mode: Mode) -> Session:
    """The session over as many of its paths as the mode takes; TooFewPaths."""
    if len(session.paths) < mode.enough:
        text = f"mode {mode.name} needs {mode.enough} node-disjoint paths, and the key session has {len(session.paths)}"
        raise TooFewPaths(text, ksid=session.ksid, needed=mode.enough, paths=len(session.paths))
    return session if len(session.paths) <= mode.paths else over(session.paths[: mode.paths])


def _several(session: Session, mode: Mode) -> dict[str, Any]:
    """What a journal says more of keys over several paths."""
    if mode.paths == 1:
        return {}
    return {"paths": [list(path.path) for path in session.paths], "enough": mode.enough}


def _in_time(more_s: float = 0.0) -> None:
    """TooLate if so little time is left for the request that what is taken for it would be lost."""
    if deadline.left(ANSWER_S) < LEAST_S + more_s:
        raise TooLate


class Delivery:
    """Makes keys at the master's node `name`. Thread-safe. `relayed_from_here`: IDs of keys over several hops."""

    def __init__(
        self,
        name: str,
        *,
        most_at_once: int,
        store: KeyStore,
        shared: SharedDatabase,
        sessions: ImplicitSessions,
        relay: Relay,
        requested: Requested,
        losses: Losses,
        parameters: Callable[[], Parameters],
        relayed_from_here: RecentIds,
        journal: Journal,
    ) -> None:
        self._name = name
        self._most_at_once = most_at_once
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._relay = relay
        self._requested = requested
        self._losses = losses
        self._parameters = parameters
        self._relayed_from_here = relayed_from_here
        self._journal = journal
        self._pool = Pool()
        self._refilling = Turns(1)  # by KSID
        self._bandwidths = Bandwidths()
        self._intervals = Intervals()
        self._together = Together(most_at_once, ready=_in_time)

    def get(self, session: Session, request: KeyRequest) -> Delivered:
        """New keys for the session's master; the slave can fetch them when this returns. KeyFailure if not."""
        with self._within_bandwidth(session.ksid, request.size * request.number):
            return self._deliver(session, request)

    def makeable(self, session: Session, available: Mapping[str, int], key_bytes: int) -> int:
        """How many keys can be had now of QCs that have so many bytes `available`, those in the pool included."""
        parameters = self._parameters()
        mode = parameters.strategy
        try:
            session = _over(session, mode)
        except TooFewPaths:
            return 0
        number = self._ahead(session.ksid, parameters)
        there = [[available.get(qc, 0) for qc in path.qcs] for path in session.paths]
        if mode.paths > 1:
            return mode.makeable_over(there, key_bytes)
        made = mode.makeable(there[0], key_bytes, number, double_at_last=session.double_at_last)
        if mode.ahead:  # what another mode left in the pool is not given out in this one
            made += self._pool.count((session.ksid, key_bytes), self._oldest_promised())
        return made

    def pooled(self) -> dict[str, int]:
        """How many keys made ahead wait here, by the first QC of their path."""
        return self._pool.levels()

    def expire(self) -> None:
        """Erase pooled keys that are too old."""
        self._pool.expire(self._oldest_promised())

    def end_session(self, ksid: str) -> None:
        """A session ended: its pooled keys are erased."""
        self._pool.drop(ksid)
        self._bandwidths.forget(ksid)
        self._intervals.forget(ksid)
        self._requested.forget(ksid)

    @contextmanager
    def _within_bandwidth(self, ksid: str, bits: int) -> Iterator[None]:
        """Delivery of so many bits to an application that has not gone over its maximum; OverBandwidth if it has."""
        max_bps = self._sessions.max_bps(ksid)
        if max_bps is None:
            yield
            return
        if not self._bandwidths.take(ksid, bits, max_bps, time.monotonic()):
            text = f"the application takes more than its maximum bandwidth of {max_bps} bit/s"
            raise OverBandwidth(text, ksid=ksid, max_bandwidth=max_bps)
        try:
            yield
        except KeyFailure:
            self._bandwidths.give_back(ksid, bits, max_bps)
            raise

    def _deliver(self, session: Session, request: KeyRequest) -> Delivered:
        parameters = self._parameters()
        session = _over(session, parameters.strategy)
        if not parameters.strategy.ahead:
            kind = session.ksid, request.key_bytes, parameters.mode
            with self._counted(session, parameters.strategy, request.number, request.key_bytes):
                made = self._together.make(
                    kind,
                    request.number,
                    lambda number: self._make(session, parameters.strategy, number, request.key_bytes),
                )
            return Delivered(made, "direct", parameters.mode, session.hops)
        self._intervals.asked(session.ksid, request.number, time.monotonic())
        # One request of a session at a time looks into its pool and refills it.
        with self._refilling.taken([session.ksid], deadline.left(ANSWER_S), full=TooLate()):
            source = "pool"
            # What was counted may expire before it is taken; that it does so again and again would be a bug.
            place = session.ksid, request.key_bytes
            for _ in range(_TRIES):
                keys = self._pool.take(place, request.number, self._oldest_promised())
                if keys is not None:
                    return Delivered(keys, source, parameters.mode, session.hops)
                missing = request.number - self._pool.count(place, self._oldest_promised())
                begun = self._store.clock()
                new = self._make_ahead(session, parameters, max(1, missing), request.key_bytes)
                self._pool.put(place, new, made=begun, qc=session.qcs[0])
                source = "refill"
        raise MaterialExpired("keys made ahead expire faster than they are made", qc=session.qcs[0], node=self._name)

    def _oldest_promised(self) -> float:
        """When what may still be handed out to a master was made at the earliest; its slave needs time, too."""
        return self._store.clock() - self._store.promised_s

    def _ahead(self, ksid: str, parameters: Parameters) -> int:
        """How many keys of a session to make at once. Never more than fit into a message to the last node."""
        number = ahead(parameters.keys_ahead, self._intervals.of(ksid), parameters.ttl_slots)
        return min(number, self._most_at_once)

    def _make_ahead(self, session: Session, parameters: Parameters, missing: int, key_bytes: int) -> Keys:
        mode = parameters.strategy
        *more, least = mode.tries(missing, self._ahead(session.ksid, parameters), self._most_at_once)
        for number in more:  # if that is too much, what is needed now may be there
            with suppress(ShortOfMaterial), self._counted(session, mode, number, key_bytes, unless=ShortOfMaterial):
                return self._make(session, mode, number, key_bytes)
        with self._counted(session, mode, least, key_bytes):
            return self._make(session, mode, least, key_bytes)

    @contextmanager
    def _counted(
        self, session: Session, mode: Mode, number: int, key_bytes: int, unless: type[KeyFailure] = PathDown
    ) -> Iterator[None]:
        """A request for so many keys is asked of the QCs, whether they can give them or not; not if it fails `unless`.

        That is where it never came to the QCs, or goes on as another one.
        """
        try:
            yield
        except (PathDown, TooLate, unless):
            raise
        except KeyFailure:
            self._count(session, mode, number, key_bytes, met=False)
            raise
        self._count(session, mode, number, key_bytes, met=True)

    def _count(self, session: Session, mode: Mode, number: int, key_bytes: int, *, met: bool) -> None:
        needs = mode.needs(session.qcs, key_bytes, number, double_at_last=session.double_at_last)
        min_bps = self._sessions.min_bps(session.ksid)
        interval_s = _PUNCTUAL * 8 * key_bytes * number / min_bps if min_bps else USUAL_INTERVAL_S
        self._requested.add(session.ksid, key_bytes, needs, met=met, interval_s=interval_s)

    def _make(self, session: Session, mode: Mode, number: int, key_bytes: int) -> Keys:
        """`number` new keys, which the slave can fetch when this returns; KeyFailure if not."""
        # Before anything is used up.
        _in_time(
            max(self._relay.least_s(len(p.qcs), p.path[1]) for p in session.paths) if session.relayed else 0.0
        )
        self._sessions.check_path(session.master_sae, session.slave_sae)
        with trace.part():  # its story is told apart from that of the request which happens to be served by it
            while True:
                try:
                    return self._make_apart(session, mode, number, key_bytes)
                except ShortOfMaterial as short:
                    left = left_without(session.paths, short.facts["qc"], mode.enough)
                    if not left:
                        raise
                    session = over(left)  # nothing was allocated

    def _make_apart(self, session: Session, mode: Mode, number: int, key_bytes: int) -> Keys:
        key_ids = [str(uuid.uuid4()) for _ in range(number)]
        found = self._allocate(session, mode, key_ids, key_bytes)
        uses = mode.uses(found.ranges, key_bytes, number, double_at_last=session.double_at_last)
        with self._losses.counted(found.request, uses):
            if session.relayed:
                self._relayed_from_here.add(key_ids)
                made = self._relay.originate(session, mode, found, key_ids=key_ids, key_bytes=key_bytes)
                return list(zip(key_ids, made, strict=True))
            spare = spare_slots(self._parameters().ttl_slots)
            try:
                (whole,) = self._store.take(found.ranges, found.request, found.server, spare_slots=spare)
            except Missing as missing:
                raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self._name) from None
            key_events.used(self._journal, found.request, uses)
            return list(zip(key_ids, cut(whole, key_bytes), strict=True))

    def _allocate(self, session: Session, mode: Mode, key_ids: Sequence[str], key_bytes: int) -> Allocation:
        """Ranges for these keys on all links of the path; ShortOfMaterial."""
        request = str(uuid.uuid4())
        needs = mode.needs(session.qcs, key_bytes, len(key_ids), double_at_last=session.double_at_last)
        owner = KeyOwner(session.ksid, session.master_sae, session.slave_sae, session.path[-1])
        with key_events.statement(
            self._journal, "allocate", allocation=request, ksid=session.ksid, mode=mode.name, cipher=mode.cipher,
            at_once=mode.at_once, path=list(session.path), key_ids=list(key_ids), **_several(session, mode),
        ) as facts:  # fmt: skip
            try:
                found = self._shared.allocate(request, needs, key_ids=key_ids, key_bytes=key_bytes, owner=owner)
            except (DatabaseUnreachable, DatabaseChanged) as failure:  # it may have allocated, and its answer got lost
                if isinstance(failure, DatabaseUnreachable):
                    self._losses.add(request, failure.cause)
                self._losses.add_keys(failure.cause, key_ids)
                raise
            if isinstance(found, Shortage):
                facts.update(qc=found.qc, short_bytes=found.short_bytes)
            else:
                uses = mode.uses(found.ranges, key_bytes, len(key_ids), double_at_last=session.double_at_last)
                facts["ranges"] = key_events.as_json(uses)
        if isinstance(found, Shortage):
            if found.in_doubt:
                self._losses.add_keys(ShortOfMaterial.cause, key_ids)
            text = f"QC {found.qc} lacks {found.short_bytes} bytes of key material"
            raise ShortOfMaterial(text, qc=found.qc, short_bytes=found.short_bytes)
        return found
