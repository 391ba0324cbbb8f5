"""What one gateway tells another: that there is a tunnel, which key comes next, when it counts, the end. Mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from documents.checks import Malformed, integer, mapping
from mtls.call import Caller
from mtls.identity import Identity, Role
from sae.client import Failed, ask, timeout_s
from sae.handover import MORE_S


class FarEnd:
    """The gateway `sae_id` at `url`, of the datacenter `name`, called as the owner of `caller`'s credentials."""

    def __init__(self, caller: Caller, sae_id: str, url: str, name: str) -> None:
        self.sae_id = sae_id
        self.name = name
        self._caller = caller
        self._url = url

    def propose(self, terms: Mapping[str, Any], offer: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have a tunnel with us on these terms; what the other end offers. Failed."""
        answer = self._ask("PUT", "/vpn/v1/far_end", {**terms, "offer": dict(offer)})
        try:
            return mapping(mapping(answer, "body").get("offer"), "offer")
        except Malformed as error:
            raise _malformed(error) from None

    def load(self, key_id: str, way: int) -> int:
        """Fetch a key, which this end has on that way of its own, and be ready for it; on which way. Failed."""
        answer = self._ask("POST", "/vpn/v1/far_end/keys", {"key_id": key_id, "way": way})
        try:
            return integer(mapping(answer, "body").get("way"), "way", low=0, high=1)
        except Malformed as error:
            raise _malformed(error) from None

    def turn(self, key_id: str) -> None:
        """Send under that key from now on. Failed."""
        self._ask("POST", "/vpn/v1/far_end/turns", {"key_id": key_id})

    def end(self) -> None:
        """There is no tunnel any more. Failed."""
        self._ask("DELETE", "/vpn/v1/far_end", None)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        within_s = timeout_s(self._caller.round_trip_s) + MORE_S
        to = Identity(Role.SAE, self.sae_id)
        return ask(self._caller, method, self._url + path, to=to, of="gateway", body=body, within_s=within_s).body


def _malformed(error: Malformed) -> Failed:
    return Failed(502, "bad_answer", f"the other gateway's answer is malformed: {error}")
