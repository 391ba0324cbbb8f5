"""Use cases of GS QKD 014: status, keys for a master SAE, the same keys for its slave. No HTTP here.

Single hop (the paper's Figure 5): the master's KME allocates a range, the slave's KME fetches the range's position
from the shared database; neither sends the other a word. What the slave has not asked for within a slot, its KME
fetches all the same, before the bytes are too old. Several hops: see relay.py; the key waits at the slave's node.
In modes that make keys ahead, those not needed yet wait in the pool here and in the local database there.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from decisions.modes import Mode
from decisions.ranges import Allocation, Instruction, Shortage, spare_slots
from documents.errors import Malformed
from documents.secret import Secret
from etsi.gs004 import QoS
from etsi.gs014 import KEYS_NOT_FOUND, KeyRequest, Limits, Status
from mtls import deadline
from node.associations.implicit import ImplicitSessions
from node.associations.sessions import Session
from node.failures import (
    DatabaseChanged,
    DatabaseUnreachable,
    KeyFailure,
    KeysGone,
    MaterialExpired,
    OverBandwidth,
    PathDown,
    RelayBroken,
    ShortOfMaterial,
    TooLate,
)
from node.limits import ANSWER_S, CATCH_UP_S, LEAST_S
from node.material import key_events
from node.material.key_stream import KeyStore, Missing
from node.material.losses import Losses
from node.material.shared_db import Foreign, KeyOwner, NotFound, SharedDatabase
from node.parameters import Parameters
from node.relaying.relay import Relay, cut
from node.relaying.routes import Routes
from node.serving.bandwidth import Bandwidths
from node.serving.batching import Together
from node.serving.pool import Keys, Pool
from node.serving.recent import RecentIds
from node.serving.requested_bytes import USUAL_INTERVAL_S, Requested
from node.tree.performance import Performance
from node.waiting_limits import Turns
from telemetry import trace
from telemetry.journal import Journal

_NOWHERE = "no_position"  # the shared database names none at which a key can lie, which so is lost
_TRIES = 3
# Of its interval: an application that asks for its next key so much of it later is not too early.
_PUNCTUAL = 0.9


@dataclass(frozen=True, slots=True)
class Delivery:
    """Keys for the master, and where they came from: "pool", "refill" (made ahead with others) or "direct"."""

    keys: Keys
    source: str


def _in_time(more_s: float = 0.0) -> None:
    """TooLate if so little time is left for the request that what is taken for it would be lost."""
    if deadline.left(ANSWER_S) < LEAST_S + more_s:
        raise TooLate


class Unauthorized(Exception):
    """The caller may not have this key (clause 5.4)."""


class Kme:
    """The key management entity of node `name`; `saes` maps every SAE of the network to its node."""

    def __init__(
        self,
        name: str,
        *,
        saes: Mapping[str, str],
        limits: Limits,
        store: KeyStore,
        shared: SharedDatabase,
        sessions: ImplicitSessions,
        routes: Routes,
        relay: Relay,
        performance: Performance,
        requested: Requested,
        losses: Losses,
        parameters: Callable[[], Parameters],
        journal: Journal,
    ) -> None:
        self.name = name
        self.limits = limits
        self._requested = requested
        self._losses = losses
        self._saes = saes
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._routes = routes
        self._relay = relay
        self._performance = performance
        self._parameters = parameters
        self._journal = journal
        self._pool = Pool()
        self._refilling = Turns(1)  # by KSID
        self._on_hand_out: Callable[[], None] = lambda: None
        self._bandwidths = Bandwidths()
        self._together = Together(limits.max_key_per_request, ready=_in_time)
        self._fetches = _Fetches()
        self._collected = threading.Event()  # for the first time since the node's start
        self._relayed_from_here = RecentIds()  # answered by 401: nobody at this site may collect these keys

    @property
    def mode(self) -> str:
        """Name of the mode in which keys are made now."""
        return self._parameters().mode

    def check_local(self, sae: str) -> None:
        """Unauthorized unless `sae` belongs to this node: an SAE talks only to the KME of its own site (clause 4)."""
        if self._saes.get(sae) != self.name:
            raise Unauthorized(f"SAE {sae} is not registered at KME {self.name}")

    def session(self, master: str, slave: str, size: int) -> Session:
        """The key session of the pair with its route, opened for keys of `size` bits if there is none.

        Malformed, SessionRefused, RelayBroken, PathDown.
        """
        home = self._saes.get(slave)
        if home is None or slave == master:
            raise Malformed("slave_SAE_ID", "the ID of another SAE of this network", clause="5.2")
        if home == self.name:
            raise Malformed("slave_SAE_ID", "an SAE at another node: SAEs of one site need no QKD", clause="4")
        found = self._sessions.session(master, slave, home, QoS(key_size_bits=size))
        try:
            return self._routes.of(found)
        except RelayBroken:
            self._sessions.check_path(master, slave)  # the controller may know more of it
            raise

    def status(self, master: str, slave: str) -> Status:
        """What `master` can get for `slave` now, over the whole path (clause 6.1)."""
        session = self.session(master, slave, self.limits.key_size)
        available = self._shared.available(session.qcs)
        try:
            self._sessions.check_path(master, slave)
        except PathDown:
            available = {}  # whatever there is, none is made
        parameters, key_bytes = self._parameters(), self.limits.key_size // 8
        stored = parameters.strategy.makeable(
            [available.get(qc, 0) for qc in session.qcs], key_bytes, self._keys_ahead(parameters)
        )
        if parameters.strategy.ahead:  # what another mode left in the pool is not given out in this one
            stored += self._pool.count((session.ksid, key_bytes), self._oldest_promised())
        return Status(
            source_KME_ID=self.name,
            target_KME_ID=self._saes[slave],
            master_SAE_ID=master,
            slave_SAE_ID=slave,
            key_size=self.limits.key_size,
            stored_key_count=min(stored, self.limits.max_key_count),
            max_key_count=self.limits.max_key_count,
            max_key_per_request=self.limits.max_key_per_request,
            max_key_size=self.limits.max_key_size,
            min_key_size=self.limits.min_key_size,
            max_SAE_ID_count=0,
        )

    def get_keys(self, session: Session, request: KeyRequest) -> Delivery:
        """New keys for the session's master; the slave can fetch them when this returns. KeyFailure if not."""
        bits = request.size * request.number
        with self._within_bandwidth(session.ksid, bits):
            try:
                delivery = self._deliver(session, request)
            except RelayBroken:
                self._routes.forget(session.ksid)  # it may have changed further on
                raise
        self._performance.consumed(session.ksid, bits)
        return delivery

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

    def _deliver(self, session: Session, request: KeyRequest) -> Delivery:
        parameters = self._parameters()
        if not parameters.strategy.ahead:
            kind = session.ksid, request.key_bytes, parameters.mode
            with self._counted(session, parameters.strategy, request.number, request.key_bytes):
                made = self._together.make(
                    kind,
                    request.number,
                    lambda number: self._make(session, parameters.strategy, number, request.key_bytes),
                )
            return Delivery(made, "direct")
        # One request of a session at a time looks into its pool and refills it.
        with self._refilling.taken([session.ksid], deadline.left(ANSWER_S), full=TooLate()):
            source = "pool"
            # What was counted may expire before it is taken; that it does so again and again would be a bug.
            place = session.ksid, request.key_bytes
            for _ in range(_TRIES):
                keys = self._pool.take(place, request.number, self._oldest_promised())
                if keys is not None:
                    return Delivery(keys, source)
                missing = request.number - self._pool.count(place, self._oldest_promised())
                begun = self._store.clock()
                new = self._make_ahead(session, parameters, max(1, missing), request.key_bytes)
                self._pool.put(place, new, made=begun, qc=session.qcs[0])
                source = "refill"
        raise MaterialExpired("keys made ahead expire faster than they are made", qc=session.qcs[0], node=self.name)

    def pooled(self) -> dict[str, int]:
        """How many keys made ahead wait here, by the first QC of their path."""
        return self._pool.levels()

    def expire(self) -> None:
        """Erase what is too old, in the streams, in the pool and of the keys that wait. To be called once a slot."""
        self._relay.expire()
        self._pool.expire(self._oldest_promised())
        self._store.expire()

    def on_hand_out(self, step: Callable[[], None]) -> None:
        """Call `step` when keys that waited here were handed out."""
        self._on_hand_out = step

    def end_session(self, ksid: str) -> None:
        """A session ended: its pooled keys are erased."""
        self._pool.drop(ksid)
        self._bandwidths.forget(ksid)
        self._requested.forget(ksid)

    def _oldest_promised(self) -> float:
        """When what may still be handed out to a master was made at the earliest; its slave needs time, too."""
        return self._store.clock() - self._store.promised_s

    def _keys_ahead(self, parameters: Parameters) -> int:
        """Never more at once than fit into a message to the last node."""
        return min(parameters.keys_ahead, self.limits.max_key_per_request)

    def _make_ahead(self, session: Session, parameters: Parameters, missing: int, key_bytes: int) -> Keys:
        number = parameters.strategy.number_at_once(missing, self._keys_ahead(parameters))
        number = max(missing, min(number, self.limits.max_key_per_request))
        mode = parameters.strategy
        if number > missing:  # if that is too much, what is needed now may be there
            with suppress(ShortOfMaterial), self._counted(session, mode, number, key_bytes, unless=ShortOfMaterial):
                return self._make(session, mode, number, key_bytes)
        with self._counted(session, mode, missing, key_bytes):
            return self._make(session, mode, missing, key_bytes)

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
        needs = mode.needs(session.qcs, key_bytes, number)
        min_bps = self._sessions.min_bps(session.ksid)
        interval_s = _PUNCTUAL * 8 * key_bytes * number / min_bps if min_bps else USUAL_INTERVAL_S
        self._requested.add(session.ksid, key_bytes, needs, met=met, interval_s=interval_s)

    def _make(self, session: Session, mode: Mode, number: int, key_bytes: int) -> Keys:
        """`number` new keys, which the slave can fetch when this returns; KeyFailure if not."""
        # Before anything is used up.
        _in_time(self._relay.least_s(session.hops, session.path[1]) if session.hops > 1 else 0.0)
        self._sessions.check_path(session.master_sae, session.slave_sae)
        with trace.part():  # its story is told apart from that of the request which happens to be served by it
            return self._make_apart(session, mode, number, key_bytes)

    def _make_apart(self, session: Session, mode: Mode, number: int, key_bytes: int) -> Keys:
        key_ids = [str(uuid.uuid4()) for _ in range(number)]
        found = self._allocate(session, mode, key_ids, key_bytes)
        uses = key_events.uses(mode, found.ranges, key_bytes, number)
        with self._losses.counted(found.request, uses):
            if session.hops > 1:
                self._relayed_from_here.add(key_ids)
                made = self._relay.originate(session, mode, found, key_ids=key_ids, key_bytes=key_bytes)
                return list(zip(key_ids, made, strict=True))
            spare = spare_slots(self._parameters().ttl_slots)
            try:
                (whole,) = self._store.take(found.ranges, found.request, found.server, spare_slots=spare)
            except Missing as missing:
                raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self.name) from None
            key_events.used(self._journal, found.request, uses)
            return list(zip(key_ids, cut(whole, key_bytes), strict=True))

    def _allocate(self, session: Session, mode: Mode, key_ids: Sequence[str], key_bytes: int) -> Allocation:
        """Ranges for these keys on all links of the path; ShortOfMaterial."""
        request = str(uuid.uuid4())
        needs = mode.needs(session.qcs, key_bytes, len(key_ids))
        owner = KeyOwner(session.ksid, session.master_sae, session.slave_sae, session.path[-1])
        with key_events.statement(
            self._journal, "allocate", request=request, ksid=session.ksid, mode=mode.name, path=list(session.path),
            key_ids=list(key_ids),
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
                facts["ranges"] = key_events.as_json(key_events.uses(mode, found.ranges, key_bytes, len(key_ids)))
        if isinstance(found, Shortage):
            if found.in_doubt:
                self._losses.add_keys(ShortOfMaterial.cause, key_ids)
            text = f"QC {found.qc} lacks {found.short_bytes} bytes of key material"
            raise ShortOfMaterial(text, qc=found.qc, short_bytes=found.short_bytes)
        return found

    def get_keys_by_id(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
        """The keys of `key_ids` for their slave, once, all or none (clause 5.4).

        Unauthorized if one of them is another SAE's; Malformed or KeysGone, with the standard's message, if one is not
        (any more) here or not `master`'s.
        """
        if master not in self._saes:
            raise Malformed("master_SAE_ID", "the ID of an SAE of this network", clause="5.4")
        keys = self._fetch_patiently(slave, master, key_ids)
        ksid = self._sessions.ksid(master, slave)
        if ksid is not None:
            self._performance.consumed(ksid, sum(8 * len(key) for _, key in keys))
        return keys

    def _fetch_patiently(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
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

    def lost_on_the_way(self, cause: str, key_ids: Sequence[str]) -> None:
        """Keys that were handed out have not come to their SAE, and never will."""
        self._losses.add_keys(cause, key_ids)

    def settle_losses(self) -> None:
        """Tell what lost keys have cost, as far as the shared database knows it; KeyFailure."""
        self._losses.settle(self._shared.cost)

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
        self._on_hand_out()
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
            raise KeysGone(KEYS_NOT_FOUND, qc=lost[0].where.qc, node=self.name)

    def _used(self, found: Sequence[Instruction], gone: Collection[str] = ()) -> None:
        """Single-hop keys have left the streams, except those that were `gone`: their slaves will never get them."""
        here = [i for i in found if i.key_id not in gone]
        for i in found:
            if i.key_id in gone:
                self._losses.add(i.request, KeysGone.cause, [(i.where, key_events.KEY)])
        for request in dict.fromkeys(i.request for i in here):
            mine = [i for i in here if i.request == request]
            ranges = key_events.joined(i.where for i in mine)
            key_ids = [i.key_id for i in mine]
            key_events.used(self._journal, request, [(r, key_events.KEY) for r in ranges], key_ids=key_ids)


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
