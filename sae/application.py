"""One secure application (SAE): its two roles, and what they share."""

from __future__ import annotations

import functools
from typing import Any

from decisions.rekey import APPLICATION, Pace
from mtls.call import Caller
from mtls.identity import Role
from sae.client import KmeClient
from sae.config import Config, SaeConfig
from sae.handover import Handover
from sae.master import Master
from sae.sessions import Record
from sae.slave import Slave
from telemetry.journal import Journal


class Application:
    """The SAE that `sae` describes. OSError if its credentials cannot be loaded."""

    def __init__(self, config: Config, sae: SaeConfig, journal: Journal) -> None:
        record_call = functools.partial(journal.event, "call", by=f"{Role.SAE}:{sae.id}")
        caller = Caller(sae.credentials, record=record_call, round_trip_s=config.round_trip_s)
        kme = KmeClient(caller, config.kme_url, config.kme_name)
        record = Record(journal, config.audit_secret)
        self.id = sae.id
        self.name = sae.name
        self.master = Master(
            sae.id, sae.name, kme=kme, handover=Handover(caller, config.peers), record=record,
            on_key_failure=config.on_key_failure, pace=Pace() if config.pace == APPLICATION else None,
        )  # fmt: skip
        self.slave = Slave(sae.id, kme, record)
        self._peers = config.peers

    def is_peer(self, sae_id: str) -> bool:
        """Whether that is another application of this network."""
        return sae_id in self._peers and sae_id != self.id

    def sessions(self) -> list[dict[str, Any]]:
        """Sessions of both roles, as documents."""
        return self.master.sessions() + self.slave.sessions()
