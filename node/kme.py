"""Use cases of GS QKD 014: status, keys for a master SAE, the same keys for its slave. No HTTP here.

Single hop (the paper's Figure 5): the master's KME allocates a range, the slave's KME fetches the range's position
from the shared database; neither sends the other a word. Several hops: see relay.py; the key waits at the slave's node.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from etsi.errors import Malformed
from etsi.gs014 import KEYS_NOT_FOUND, KeyRequest, Limits, Status
from etsi.secret import Secret
from node.failures import DatabaseAway, MaterialExpired, NoSession, ShortOfMaterial
from node.key_stream import KeyStore, Missing
from node.modes import MODES
from node.ranges import Shortage
from node.relay import Relay, cut
from node.sessions import Session, Sessions
from node.shared_db import DatabaseUnreachable, Foreign, KeyOwner, NotFound, SharedDatabase

Keys = list[tuple[str, Secret]]


class Unauthorized(Exception):
    """The caller may not have this key (clause 5.4)."""


class Requested:
    """Bytes asked of each QC since the last look, granted or not: what admission calls the load."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, needs: Sequence[tuple[str, int]]) -> None:
        """Count a request."""
        with self._lock:
            self._bytes.update(dict(needs))

    def drain(self) -> dict[str, int]:
        """The counts, which begin anew."""
        with self._lock:
            counted, self._bytes = self._bytes, Counter()
        return dict(counted)


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
        sessions: Sessions,
        relay: Relay,
        requested: Requested,
    ) -> None:
        self.name = name
        self.limits = limits
        self._requested = requested
        self._saes = saes
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._relay = relay

    def check_local(self, sae: str) -> None:
        """Unauthorized unless `sae` belongs to this node: an SAE talks only to the KME of its own site (clause 4)."""
        if self._saes.get(sae) != self.name:
            raise Unauthorized(f"SAE {sae} is not registered at KME {self.name}")

    def session(self, master: str, slave: str) -> Session:
        """The open session of the pair; Malformed for an unknown slave, NoSession if none is open."""
        if slave not in self._saes or slave == master:
            raise Malformed("slave_SAE_ID", "the ID of another SAE of this network", clause="5.2")
        session = self._sessions.of_pair(master, slave)
        if session is None:
            raise NoSession("no key session is open between these SAEs", master_sae=master, slave_sae=slave)
        return session

    def status(self, master: str, slave: str) -> Status:
        """What `master` can get for `slave` now, over the whole path (clause 6.1)."""
        session = self.session(master, slave)
        costs = MODES[session.mode].cost_per_link(session.hops)
        try:
            available = self._shared.available(session.qcs)
        except DatabaseUnreachable as error:
            raise DatabaseAway(str(error)) from None
        key_bytes = self.limits.key_size // 8
        stored = min(available.get(qc, 0) // (cost * key_bytes) for qc, cost in zip(session.qcs, costs, strict=True))
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

    def get_keys(self, session: Session, request: KeyRequest) -> Keys:
        """New keys for the session's master; the slave can fetch them when this returns. KeyFailure if not."""
        key_ids = [str(uuid.uuid4()) for _ in range(request.number)]
        n_bytes = request.number * request.key_bytes
        needs = MODES[session.mode].needs(session.qcs, n_bytes)
        self._requested.add(needs)
        allocation = str(uuid.uuid4())
        owner = KeyOwner(session.ksid, session.master_sae, session.slave_sae, session.path[-1])
        try:
            found = self._shared.allocate(
                allocation,
                needs,
                key_ids=key_ids if session.hops == 1 else (),
                key_bytes=request.key_bytes,
                owner=owner,
            )
        except DatabaseUnreachable as error:
            raise DatabaseAway(str(error)) from None
        if isinstance(found, Shortage):
            text = f"QC {found.qc} lacks {found.short_bytes} bytes of key material"
            raise ShortOfMaterial(text, qc=found.qc, short_bytes=found.short_bytes)
        if session.hops > 1:
            return list(
                zip(key_ids, self._relay.originate(session, allocation, key_ids, request.key_bytes, found), strict=True)
            )
        try:
            (whole,) = self._store.take(found)
        except Missing as missing:
            raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self.name) from None
        return list(zip(key_ids, cut(whole, request.key_bytes), strict=True))

    def get_keys_by_id(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
        """The keys of `key_ids` for their slave, once, all or none (clause 5.4).

        Unauthorized if one of them is another SAE's; Malformed with the standard's message if one is not (any more)
        here or not `master`'s.
        """
        owners = self._store.relayed_owners(key_ids)
        if any(owner_slave != slave for _, owner_slave in owners.values()):
            raise Unauthorized("a key asked for belongs to another SAE")
        here = [k for k in key_ids if k in owners]
        if any(owners[k][0] != master for k in here):
            raise _not_found()
        elsewhere = [k for k in key_ids if k not in owners]
        keys = dict(self._single_hop(slave, master, elsewhere)) if elsewhere else {}
        if here:
            relayed = self._store.take_relayed(here)
            if relayed is None:
                raise _not_found()
            keys |= {r.key_id: r.key for r in relayed}
        return [(k, keys[k]) for k in key_ids]

    def _single_hop(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
        try:
            instructions = self._shared.deliver(master, slave, key_ids)
        except Foreign:
            raise Unauthorized("a key asked for belongs to another SAE") from None
        except NotFound:
            raise _not_found() from None
        except DatabaseUnreachable as error:
            raise DatabaseAway(str(error)) from None
        try:
            secrets = self._store.take([i.where for i in instructions])
        except Missing as missing:
            raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self.name) from None
        return [(i.key_id, secret) for i, secret in zip(instructions, secrets, strict=True)]


def _not_found() -> Malformed:
    return Malformed("key_IDs", "keys that wait here for the caller", clause="5.4", message=KEYS_NOT_FOUND)
