"""A gateway: all tunnels that end at its datacenter, each with another gateway."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from decisions.tunnels import IPSEC, TLS, Terms
from mtls.call import Caller
from mtls.identity import Role
from sae.client import Failed, KmeClient
from sae.sessions import Record
from sae.vpn.config import Config
from sae.vpn.daemons import protect
from sae.vpn.far_end import FarEnd
from sae.vpn.ipsec import PORTS, Charon, Ipsec
from sae.vpn.tls import Tls
from sae.vpn.tunnel import Carrier, Tunnel
from sae.vpn.wireguard import WireGuard
from telemetry.journal import Journal

_FIRST_KEY_S = 12.0
_BUSY_S = 2.0


class Gateway:
    """The gateway that `config` describes, on its host. Thread-safe.

    OSError if its credentials cannot be loaded; Failed if the host cannot have its protected address.
    """

    def __init__(self, config: Config, journal: Journal) -> None:
        sae = config.sae.saes[0]
        self._config = config
        record_call = functools.partial(journal.event, "call", by=f"{Role.SAE}:{sae.id}")
        self._caller = Caller(sae.credentials, record=record_call, round_trip_s=config.sae.round_trip_s)
        self._kme = KmeClient(self._caller, config.sae.kme_url, config.sae.kme_name)
        self._record = Record(journal, config.sae.audit_secret)
        self._charons = [
            Charon(config.sae.directory, sae.credentials, config.here.host, number) for number in range(len(PORTS))
        ]
        protect(config.here.protected)
        self._lock = threading.Lock()
        self._tunnels: dict[str, Tunnel] = {}  # by the other gateway
        self._changing = {peer: threading.Lock() for peer in config.places}

    def is_peer(self, sae_id: str) -> bool:
        """Whether that is another gateway of this network."""
        return sae_id in self._config.places and sae_id != self._config.sae.saes[0].id

    def tunnels(self) -> list[dict[str, Any]]:
        """All of them, as documents."""
        with self._lock:
            found = list(self._tunnels.values())
        return [tunnel.to_json() for tunnel in found]

    def open(self, peer: str, terms: Terms) -> dict[str, Any]:
        """A tunnel with that gateway, once its first key is in use; Failed, and then there is none."""
        with self._alone(peer):
            if peer in self._tunnels:
                raise Failed(409, "exists", "there is a tunnel with this gateway already")
            far = self._far(peer)
            with self._carrier(peer, terms, leads=True) as carrier:
                carrier.accept(far.propose(terms.to_json(), carrier.offer()))
            tunnel = self._add(peer, terms, carrier, leads=True)
            try:
                tunnel.wait(_FIRST_KEY_S)
            except Failed:
                self._drop(peer)
                self._end_quietly(far)
                raise
        return tunnel.to_json()

    def follow(self, peer: str, terms: Terms, offer: Mapping[str, Any]) -> dict[str, Any]:
        """That gateway leads a tunnel with us, in place of any that there was; what this end offers. Failed, Malformed.

        It knows what tunnels it leads: if it comes again, it has lost the one that there was, as in a crash.
        """
        with self._alone(peer):
            with self._lock:
                before = self._tunnels.get(peer)
            if before is not None and before.leads:
                raise Failed(409, "exists", "this gateway leads a tunnel with that one already")
            self._drop(peer)
            with self._carrier(peer, terms, leads=False) as carrier:
                carrier.accept(offer)
                answer = carrier.offer()
            self._add(peer, terms, carrier, leads=False)
        return answer

    def led_by(self, peer: str) -> Tunnel:
        """The tunnel that the other gateway leads; Failed."""
        with self._lock:
            tunnel = self._tunnels.get(peer)
        if tunnel is None or tunnel.leads:
            raise Failed(404, "no_tunnel", "this gateway has no tunnel that the other one leads")
        return tunnel

    def close(self, peer: str) -> bool:
        """End a tunnel, at both ends if the other one answers; whether there was one."""
        with self._alone(peer):
            with self._lock:
                known = peer in self._tunnels
            if known:
                self._drop(peer)
                self._end_quietly(self._far(peer))
        return known

    def ended(self, peer: str) -> None:
        """The other gateway has ended it."""
        with self._alone(peer):
            self._drop(peer)

    def stop(self) -> None:
        """End all of them, at this end."""
        for peer in list(self._tunnels):
            self._drop(peer)
        for charon in self._charons:
            charon.stop()

    @contextmanager
    def _alone(self, peer: str) -> Iterator[None]:
        """Nobody else opens or ends a tunnel with that gateway meanwhile; Failed.

        The other gateway may be doing the same with us, and would wait for us as we for it.
        """
        if not self._changing[peer].acquire(timeout=_BUSY_S):
            raise Failed(503, "busy", "a tunnel between these two gateways is being opened or ended: try again")
        try:
            yield
        finally:
            self._changing[peer].release()

    def _far(self, peer: str) -> FarEnd:
        return FarEnd(self._caller, peer, self._config.sae.peers[peer].url, self._config.places[peer].name)

    @contextmanager
    def _carrier(self, peer: str, terms: Terms, *, leads: bool) -> Iterator[Carrier]:
        """What is to carry a tunnel's packets; it is removed again if the two ends do not come to terms."""
        here, there = self._config.here, self._config.places[peer]
        carrier: Carrier
        if terms.kind == IPSEC:
            carrier = Ipsec(self._charons, there.host, here.protected, there.protected)
        elif terms.kind == TLS:
            ends = here.host, there.host, here.protected, there.protected
            carrier = Tls(self._config.sae.directory, *ends, leads=leads)
        else:
            carrier = WireGuard(self._config.sae.directory, there.host, here.protected, there.protected)
        try:
            yield carrier
        except BaseException:
            carrier.remove()
            raise

    def _add(self, peer: str, terms: Terms, carrier: Carrier, *, leads: bool) -> Tunnel:
        tunnel = Tunnel(
            terms, self._far(peer), carrier, here=self._config.here.name, kme=self._kme, record=self._record,
            leads=leads, round_trip_s=self._config.sae.round_trip_s,
        )  # fmt: skip
        with self._lock:
            self._tunnels[peer] = tunnel
        tunnel.start()
        return tunnel

    def _drop(self, peer: str) -> None:
        with self._lock:
            tunnel = self._tunnels.pop(peer, None)
        if tunnel is not None:
            tunnel.stop()

    def _end_quietly(self, far: FarEnd) -> None:
        """It lets nothing through once its key has lapsed, if it does not hear of this."""
        with suppress(Failed):
            far.end()
