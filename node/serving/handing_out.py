"""Keys on their way out of a KME, whichever protocol they leave by: journal and metrics hear of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from etsi.gs014 import KeyRequest
from mtls import serve
from node.failures import KeyFailure
from node.serving.kme import Kme
from node.serving.pool import Keys
from telemetry.journal import Journal
from telemetry.metrics import NodeMetrics

_NOT_TAKEN = "answer_not_taken"  # the client was gone, and its keys are lost


class Exchange(Protocol):
    """The request that is being answered. That of a Flask application is `mtls.serve`."""

    def arrived(self) -> float:
        """When it came: monotonic seconds."""

    def tell_outcome(self, taken: Callable[[], None], lost: Callable[[], None]) -> None:
        """Call one of them when the answer has been written, or could not be."""


@dataclass(frozen=True, slots=True)
class Handed:
    """Keys for a master, and the number of links that they went over."""

    keys: Keys = field(repr=False)
    hops: int


class HandingOut:
    """Gives keys to the SAEs of a KME. Every key and every failure lands in `journal` and `metrics`.

    `protocol`: a word for events, where it is another one than GS QKD 014.
    """

    def __init__(self, kme: Kme, journal: Journal, metrics: NodeMetrics, protocol: str = "") -> None:
        self._kme = kme
        self._journal = journal
        self._metrics = metrics
        self._protocol = {"protocol": protocol} if protocol else {}

    def to_master(self, master: str, slave: str, wanted: KeyRequest, exchange: Exchange = serve) -> Handed:
        """New keys for `master`, which `slave` can fetch; opens a key session if there is none. KeyFailure."""
        facts: dict[str, Any] = {"master_sae": master, "slave_sae": slave, **self._protocol}
        try:
            session = self._kme.session(master, slave, wanted.size)
            facts |= {"ksid": session.ksid, "hops": session.hops, "mode": self._kme.mode}
            delivery = self._kme.get_keys(session, wanted)
        except KeyFailure as failure:
            self._failed("enc_keys", failure, facts, exchange)
            raise
        facts |= {"hops": delivery.hops, "mode": delivery.mode, "size_bits": wanted.size, "source": delivery.source}
        self._delivered("enc_keys", [k for k, _ in delivery.keys], facts, exchange)
        return Handed(delivery.keys, delivery.hops)

    def to_slave(self, slave: str, master: str, key_ids: Sequence[str], exchange: Exchange = serve) -> Keys:
        """The keys of `key_ids`, which `master` has had for `slave`, once, all or none. KeyFailure."""
        facts: dict[str, Any] = {"master_sae": master, "slave_sae": slave, **self._protocol}
        try:
            keys = self._kme.get_keys_by_id(slave, master, key_ids)
        except KeyFailure as failure:
            self._failed("dec_keys", failure, {"key_ids": list(key_ids), **facts}, exchange)
            raise
        self._delivered("dec_keys", key_ids, facts, exchange)
        return keys

    def _failed(self, kind: str, failure: KeyFailure, facts: dict[str, Any], exchange: Exchange) -> None:
        facts = facts | failure.details()
        self._journal.event("key_failed", method=kind, duration_ms=_since_ms(exchange), **facts)
        self._metrics.failed(kind, failure.cause)

    def _delivered(self, kind: str, key_ids: Sequence[str], facts: dict[str, Any], exchange: Exchange) -> None:
        """The paper's delivery time is from the arrival of the request until its answer is ready."""
        duration_ms, mode, hops = _since_ms(exchange), facts.get("mode", ""), facts.get("hops", 0)
        self._journal.event("key_delivered", method=kind, key_ids=list(key_ids), duration_ms=duration_ms, **facts)

        def lost() -> None:
            self._journal.event("lost", method=kind, cause=_NOT_TAKEN, key_ids=list(key_ids), ranges=[], **facts)
            self._metrics.failed(kind, _NOT_TAKEN)
            self._kme.lost_on_the_way(_NOT_TAKEN, key_ids)

        number = len(key_ids)
        exchange.tell_outcome(
            lambda: self._metrics.delivered(kind, number, duration_ms / 1000, mode=mode, hops=hops), lost
        )


def _since_ms(exchange: Exchange) -> float:
    """Since the request that is being answered came."""
    return round((time.monotonic() - exchange.arrived()) * 1000, 3)
