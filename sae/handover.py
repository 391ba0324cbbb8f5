"""What a master tells its slave: ask_connection and ask-key of the paper's Figures 4 and 5, messages, the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etsi.gs004 import QoS
from mtls.call import Caller
from mtls.identity import Identity, Role
from sae.client import Failed, ask, timeout_s
from sae.config import Peer
from sae.sessions import NO_SESSION

# Another SAE calls its own KME before it answers, and must give up before we do, to say why.
MORE_S = 5.0
_END_TIMEOUT_S = 5.0


class Forgotten(Failed):
    """The slave has no session with us any more, as after its restart: no key of this one ever comes to it again."""


class Handover:
    """Calls other applications as the owner of `caller`'s credentials."""

    def __init__(self, caller: Caller, peers: Mapping[str, Peer]) -> None:
        self._caller = caller
        self._peers = peers

    def ask_connection(self, slave: str, qos: QoS) -> None:
        """Ask `slave` to share keys; it has registered at its own node when this returns. Or Failed."""
        answer = self._ask("POST", slave, "/sae/v1/connections", {"qos": qos.to_json()})
        if not isinstance(answer, dict) or answer.get("slave_sae") != slave:
            raise Failed(502, "slave_refused", "the slave SAE answered with another ID than its own")

    def ask_key(self, slave: str, ksid: str, key_id: str) -> None:
        """Have `slave` fetch a key; it holds the key when this returns. Or Failed; Forgotten."""
        try:
            self._ask("POST", slave, "/sae/v1/keys", {"ksid": ksid, "key_ids": [key_id]})
        except Failed as error:
            if (error.status, error.cause) != (404, NO_SESSION):  # the slave's node may say so with another status
                raise
            raise Forgotten(error.status, error.cause, str(error), error.facts) from None

    def message(self, slave: str, sealed: Mapping[str, str]) -> None:
        """Send an encrypted message; `slave` could read it when this returns. Or Failed."""
        self._ask("POST", slave, "/sae/v1/messages", dict(sealed))

    def end(self, slave: str) -> None:
        """Tell `slave` that there will be no more keys. Or Failed."""
        self._ask("DELETE", slave, "/sae/v1/connections", within_s=_END_TIMEOUT_S)

    def _ask(self, method: str, slave: str, path: str, body: Any = None, *, within_s: float | None = None) -> Any:
        within_s = within_s or timeout_s(self._caller.round_trip_s) + MORE_S
        to, url = Identity(Role.SAE, slave), self._peers[slave].url + path
        return ask(self._caller, method, url, to=to, of="slave", body=body, within_s=within_s).body
