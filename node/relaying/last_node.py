"""This node as the last one of a path: what was relayed to it, and the new keys that become its slave SAE's.

See `node.relaying.relay` for the whole of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decisions.modes import AES_CCM, OTP
from documents.checks import Malformed, integer, uuid_text
from documents.secret import Secret
from node.associations.sessions import Association, Sessions
from node.failures import NoSession, RelayAltered
from node.material.key_store import KeyStore, RelayedKey
from node.relaying.ciphers import CCM_TAG_BYTES, CHECK_BYTES, ccm_open, ccm_seal, fits, otp
from node.relaying.parts import joined
from node.relaying.relay_messages import Announced, cut, decoded, encoded, keys_named
from node.relaying.relayed_keys import Arrivals
from telemetry.journal import Journal

_MAX_AGE_MS = 600_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the last node keeps keys that came in parts; nodes between whose piece is missing; paths that altered
    their part.
    """

    kept: bool
    missing: Sequence[str] = ()
    altered: Sequence[str] = ()


class LastNode:
    """Keeps what was relayed until the first node says what it is."""

    def __init__(
        self, name: str, *, sessions: Sessions, store: KeyStore, answer_s: Callable[[], float], journal: Journal
    ) -> None:
        self._name = name
        self._sessions = sessions
        self._store = store
        self._journal = journal
        # From its arrival on, which is when its request has begun or later.
        self.arrivals = Arrivals(answer_s, store.clock)

    def accept_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> bool:
        """The new keys under the shared key that was relayed for `request`, kept for the slave SAE.

        False if nothing was relayed for it. RelayAltered if it was not what the first node sent.
        """
        announced = self._announced(sender, request, document)
        cipher = document.get("cipher")
        if cipher not in (OTP, AES_CCM):
            raise Malformed("cipher", f"{OTP} or {AES_CCM}")
        n_bytes = announced.n_bytes + (CCM_TAG_BYTES if cipher == AES_CCM else 0)
        sealed = decoded(document.get("sealed"), "sealed", n_bytes)
        check = decoded(document.get("check"), "check", CHECK_BYTES) if cipher == OTP else None
        relayed = self.arrivals.claim(request, announced.session.ksid)
        if relayed is None:
            return False
        try:
            if check is None:
                new = ccm_open(sealed, relayed.secret, request, announced.header)
            else:
                new = otp(sealed, relayed.secret)
        except ValueError:  # Tampered, or of another length
            raise RelayAltered(f"{sender} - ... - {self._name}") from None
        finally:
            relayed.wipe()
        self._keep_keys(announced, new, check)
        return True

    def give_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """Where this node's QC gives the new keys: them under the shared key that was relayed for `request`.

        They are kept for the slave SAE as well. None if nothing was relayed for it. RelayAltered if it was not what the
        first node sent.
        """
        announced = self._announced(sender, request, document)
        cipher, check = document.get("cipher"), decoded(document.get("check"), "check", CHECK_BYTES)
        if cipher not in (OTP, AES_CCM):
            raise Malformed("cipher", f"{OTP} or {AES_CCM}")
        relayed = self.arrivals.claim(request, announced.session.ksid)
        if relayed is None:
            return None
        shared, new = relayed.secret, relayed.new_keys
        try:
            if len(new) != announced.n_bytes or not fits(shared, announced.header, check):
                raise RelayAltered(f"{sender} - ... - {self._name}")
            try:
                sealed = ccm_seal(new, shared, request, announced.header) if cipher == AES_CCM else otp(new, shared)
            except ValueError:
                raise Malformed("cipher", "one that fits the shared key") from None
            self._keep_keys(announced, new, None)
        finally:
            relayed.wipe()
        return {"sealed": encoded(sealed)}

    def check_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> bool:
        """What was relayed for `request` are the keys themselves, kept for the slave SAE if they fit.

        Waits a little for them. False if they have not come; RelayAltered if they are not what the first node sent.
        """
        announced = self._announced(sender, request, document)
        check = decoded(document.get("check"), "check", CHECK_BYTES)
        relayed = self.arrivals.claim(request, announced.session.ksid, patiently=True)
        if relayed is None:
            return False
        relayed.new_keys.wipe()
        self._keep_keys(announced, relayed.secret, check)
        return True

    def combine(
        self,
        sender: str,
        request: str,
        document: Mapping[str, Any],
        paths: Sequence[tuple[Sequence[str], Secret]],
        enough: int,
    ) -> Outcome:
        """The keys are what parts for `request` give together, `enough` of them, kept for the slave SAE if they fit.

        Each of `paths` brings a part; it has nodes between, and a check value of its part. Waits a little for what has
        not come. RelayAltered if too few parts fit.
        """
        announced = self._announced(sender, request, document)
        waiting = {
            number: [(sender, number), *((node, 0) for node in nodes)] for number, (nodes, _) in enumerate(paths, 1)
        }
        right, altered, missing = dict[int, Secret](), list[int](), list[str]()
        while len(right) < enough <= len(right) + len(waiting):
            found, missing = self.arrivals.claim_parts(
                request, announced.session.ksid, waiting, enough=enough - len(right), patiently=True
            )
            if not found and not altered:
                return Outcome(kept=False, missing=[name for name in missing if name != sender] or missing)
            if not found:
                break
            for number, pieces in found.items():
                del waiting[number]
                same = {len(piece.secret) for piece in pieces} == {announced.n_bytes}
                nothing = Secret(bytes(announced.n_bytes))
                part = functools.reduce(otp, (piece.secret for piece in pieces), nothing) if same else nothing
                for piece in pieces:
                    piece.wipe()
                if same and fits(part, announced.header_of(number if len(paths) > 1 else 0), paths[number - 1][1]):
                    right[number] = part
                else:
                    altered.append(number)
        bad = [" - ".join([sender, *paths[number - 1][0], self._name]) for number in altered]
        if len(right) < enough:
            for part in right.values():
                part.wipe()
            raise RelayAltered(bad[0])
        self._keep_keys(announced, joined(right, len(paths), enough), None)
        for part in right.values():
            part.wipe()
        return Outcome(kept=True, missing=missing, altered=bad)

    def expire(self) -> None:
        """Erase what was relayed to this node so long ago that no first node will claim it."""
        self.arrivals.expire()

    def _announced(self, sender: str, request: str, document: Mapping[str, Any]) -> Announced:
        """Which keys a message to the last node is about, if its sender is the first node of their session."""
        session = self.session(uuid_text(document.get("ksid"), "ksid"), None)
        if session.master_node != sender:
            raise Malformed("ksid", f"a session from {sender} that ends at this node")
        age_s = integer(document.get("age_ms"), "age_ms", low=0, high=_MAX_AGE_MS) / 1000
        announced = Announced(request, session, *keys_named(document), document["keys"], self._store.clock() - age_s)
        if self._store.relayed_owners(announced.key_ids):
            raise _not_new()
        return announced

    def session(self, ksid: str, link: str | None) -> Association:
        """The session of that KSID, whose slave is at this node and, if `link` is given, which goes over it."""
        session = self._sessions.get(ksid)
        if session is None or session.slave_node != self._name or (link is not None and link not in session.backing):
            raise NoSession("no key session of this KSID ends at this node", ksid=ksid, node=self._name)
        return session

    def _keep_keys(self, announced: Announced, whole: Secret, check: Secret | None) -> None:
        """Have keys wait for the slave SAE, if they fit the check value or were opened by AES-CCM; RelayAltered."""
        session = announced.session
        if len(whole) != announced.n_bytes or (check is not None and not fits(whole, announced.header, check)):
            whole.wipe()
            raise RelayAltered(f"{session.master_node} - ... - {self._name}")
        relayed = [
            RelayedKey(key_id, session.ksid, session.master_sae, session.slave_sae, key, announced.made)
            for key_id, key in zip(announced.key_ids, cut(whole, announced.key_bytes), strict=True)
        ]
        if not self._store.put_relayed(relayed):
            raise _not_new()
        self._journal.event(
            "keys_relayed", ksid=session.ksid, allocation=announced.request, key_ids=list(announced.key_ids)
        )


def _not_new() -> Malformed:
    return Malformed("keys.key_ID", "IDs of new keys")
