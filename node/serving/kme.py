"""Use cases of GS QKD 014: status, keys for a master SAE, the same keys for its slave. No HTTP here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from documents.checks import Malformed
from etsi.gs004 import QoS
from etsi.gs014 import KeyRequest, Limits, Status
from node.associations.implicit import ImplicitSessions
from node.associations.sessions import Session
from node.config import Parameters
from node.failures import (
    PathDown,
    RelayBroken,
    TooFewPaths,
)
from node.material.key_store import KeyStore
from node.material.losses import Losses
from node.material.shared_db import SharedDatabase
from node.recent import RecentIds
from node.relaying.relay import Relay
from node.relaying.routes import Routes
from node.serving.delivery import Delivered, Delivery
from node.serving.fetching import Fetching, Unauthorized
from node.serving.pool import Keys
from node.serving.requested_bytes import Requested
from node.tree.performance import Performance
from telemetry.journal import Journal

_USUAL = QoS()


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
        self._losses = losses
        self._saes = saes
        self._store = store
        self._shared = shared
        self._sessions = sessions
        self._routes = routes
        self._relay = relay
        self._performance = performance
        self._parameters = parameters
        relayed_from_here = RecentIds()  # answered by 401: nobody at this site may collect these keys
        self._delivery = Delivery(
            name, most_at_once=limits.max_key_per_request, store=store, shared=shared, sessions=sessions, relay=relay,
            requested=requested, losses=losses, parameters=parameters, relayed_from_here=relayed_from_here,
            journal=journal,
        )  # fmt: skip
        self._fetching = Fetching(
            name, store=store, shared=shared, losses=losses, relayed_from_here=relayed_from_here, journal=journal
        )

    @property
    def mode(self) -> str:
        """Name of the mode in which keys are made now."""
        return self._parameters().mode

    def check_local(self, sae: str) -> None:
        """Unauthorized unless `sae` belongs to this node: an SAE talks only to the KME of its own site (clause 4)."""
        if self._saes.get(sae) != self.name:
            raise Unauthorized(f"SAE {sae} is not registered at KME {self.name}")

    def saes_elsewhere(self) -> list[str]:
        """The SAEs that those of this node can share keys with."""
        return sorted(sae for sae, node in self._saes.items() if node != self.name)

    def session(self, master: str, slave: str, size: int, interval_s: float = _USUAL.interval_s) -> Session:
        """The key session of the pair with its route; opened for a key of `size` bits each interval if there is none.

        Malformed, SessionRefused, RelayBroken, PathDown.
        """
        home = self._saes.get(slave)
        if home is None or slave == master:
            raise Malformed("slave_SAE_ID", "the ID of another SAE of this network", clause="5.2")
        if home == self.name:
            raise Malformed("slave_SAE_ID", "an SAE at another node: SAEs of one site need no QKD", clause="4")
        found = self._sessions.session(master, slave, home, QoS(size, interval_s))
        try:
            return self._routes.of(found, self._parameters().strategy.enough)
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
        stored = self._delivery.makeable(session, available, self.limits.key_size // 8)
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

    def get_keys(self, session: Session, request: KeyRequest) -> Delivered:
        """New keys for the session's master; the slave can fetch them when this returns. KeyFailure if not.

        A session that goes over fewer paths than the mode takes, as this was set a moment ago, is waited for.
        """
        try:
            try:
                delivered = self._delivery.get(session, request)
            except TooFewPaths as few:
                delivered = self._delivery.get(self._led(session.ksid, few), request)
        except RelayBroken:
            self._routes.forget(session.ksid)  # it may have changed further on
            raise
        self._performance.consumed(session.ksid, request.size * request.number)
        return delivered

    def _led(self, ksid: str, few: TooFewPaths) -> Session:
        """The session over as many paths as it lacked, once the controller has led it so; else `few`, RelayBroken."""
        needed = int(few.facts["needed"])
        found = self._sessions.led(ksid, needed)
        if found is None:
            raise few
        self._routes.forget(ksid)  # what is known of it may be older
        return self._routes.of(found, needed)

    def get_keys_by_id(self, slave: str, master: str, key_ids: Sequence[str]) -> Keys:
        """The keys of `key_ids` for their slave, once, all or none (clause 5.4): see `Fetching.get`."""
        if master not in self._saes:
            raise Malformed("master_SAE_ID", "the ID of an SAE of this network", clause="5.4")
        keys = self._fetching.get(slave, master, key_ids)
        ksid = self._sessions.ksid(master, slave)
        if ksid is not None:
            self._performance.consumed(ksid, sum(8 * len(key) for _, key in keys))
        return keys

    def collect(self) -> None:
        """Have single-hop keys wait here that the slaves have not asked for yet, while their bytes live; KeyFailure."""
        self._fetching.collect()

    def pooled(self) -> dict[str, int]:
        """How many keys made ahead wait here, by the first QC of their path."""
        return self._delivery.pooled()

    def expire(self) -> None:
        """Erase what is too old, in the streams, in the pool and of the keys that wait. To be called once a slot."""
        self._relay.as_last.expire()
        self._delivery.expire()
        self._store.expire()

    def on_hand_out(self, step: Callable[[], None]) -> None:
        """Call `step` when keys that waited here were handed out."""
        self._fetching.on_hand_out = step

    def end_session(self, ksid: str) -> None:
        """A session ended: its pooled keys are erased."""
        self._delivery.end_session(ksid)

    def lost_on_the_way(self, cause: str, key_ids: Sequence[str]) -> None:
        """Keys that were handed out have not come to their SAE, and never will."""
        self._losses.add_keys(cause, key_ids)

    def settle_losses(self) -> None:
        """Tell what lost keys have cost, as far as the shared database knows it; KeyFailure."""
        self._losses.settle(self._shared.cost)
