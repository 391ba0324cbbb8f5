"""Trusted relay (the paper's Figure 6): a secret hop by hop under OTP, and in most modes new keys under that secret.

On the path n0, n1, ..., nk the ranges are allocated on all links at once. In BASIC and QKP the first link's range is
the shared key S and, behind it, the new keys K. n1 holds S too, and sends it on under the pad of the next link; each
node does so until nk has S. Then n0 sends K under S to nk directly. In OTP mode K is drawn by n0 and takes the way of
S, under a pad on the first link too. A message bears the ranges of the links from the one it comes over on: what a node
needs, and what it passes on. Every node erases what the ranges name on its side before it sends anything, so that a
failure half way costs material and never repeats it.

A relay could alter what it passes on. So n0 tells nk directly by what it knows K: in QKP the tag of AES-CCM, else a
check value, which in OTP mode goes to nk while K is on its way. What does not fit is erased at both ends.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from decisions.modes import AES_CCM, OTP, PAD, Mode
from decisions.ranges import Allocation, Range
from documents.checks import Malformed, integer, sequence, text, uuid_text
from documents.secret import Secret, wiped_on_failure
from mtls import deadline
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from node.associations.sessions import Association, Session, Sessions
from node.failures import KeyFailure, MaterialExpired, NoSession, RelayAltered, RelayBroken
from node.limits import ANSWER_S, CHECKS, CHECKS_PER_NODE, MAX_HOPS, RELAYS, RELAYS_PER_NODE, relay_s
from node.material import key_events
from node.material.key_store import KeyStore, RelayedKey
from node.material.key_stream import Missing
from node.relaying.ciphers import (
    CCM_TAG_BYTES,
    CHECK_BYTES,
    PROOF_LENGTH,
    ccm_open,
    ccm_seal,
    check_value,
    fits,
    otp,
)
from node.relaying.relay_messages import (
    Announced,
    Message,
    cut,
    decoded,
    encoded,
    failure_from,
    header_of,
    keys_named,
    range_json,
    ranges_named,
)
from node.relaying.relayed_keys import Arrivals, Relayed
from node.relaying.routes import Routes
from node.tree.performance import Performance
from node.waiting_limits import Places
from telemetry import bugs, trace
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_MAX_AGE_MS = 600_000
_NOTHING_THERE = 202  # the last node's answer to who claims what has not come to it


class Relay:
    """This node's part in relaying keys: as first node, as a node between, and as last node."""

    def __init__(
        self,
        name: str,
        *,
        nodes: Mapping[str, str],
        caller: Caller,
        store: KeyStore,
        sessions: Sessions,
        routes: Routes,
        performance: Performance,
        secret: Callable[[], bytes | None],
        answer_s: Callable[[], float],
        journal: Journal,
    ) -> None:
        self._name = name
        self._nodes = nodes
        self._caller = caller
        self._store = store
        self._sessions = sessions
        self._routes = routes
        self._performance = performance
        self._secret = secret  # which this node shares with the shared database
        self._journal = journal
        self._answer_s = answer_s  # how long a request may take
        # From its arrival on, which is when its request has begun or later.
        self._arrivals = Arrivals(answer_s, store.clock)
        self._checks = ThreadPoolExecutor(CHECKS, thread_name_prefix="check")
        self._checking = Places(CHECKS, CHECKS_PER_NODE)  # until the last node answers, though the relay has failed
        self._under_way = Places(RELAYS, RELAYS_PER_NODE)

    def least_s(self, links: int, next_node: str) -> float:
        """Seconds that relaying over so many links, by way of that neighbour, takes at least.

        Other round trips do not count: the longest is not that of this path, nor may a node far off have us refuse.
        """
        return relay_s(links, self._caller.measured_s(Identity(Role.NODE, next_node)))

    def originate(
        self,
        session: Session,
        mode: Mode,
        allocation: Allocation,
        *,
        key_ids: Sequence[str],
        key_bytes: int,
    ) -> list[Secret]:
        """As first node: make `key_ids` of `key_bytes` each at the last node too; the keys, once it has confirmed."""
        keys = [{"key_ID": key_id, "bytes": key_bytes} for key_id in key_ids]
        order, ranges = _Order(session, keys, allocation, self._store.clock()), allocation.ranges
        if mode.cipher is None:
            (pad,) = self._take([(ranges[0], PAD)], allocation.request, allocation.server)
            self._performance.consumed(session.link, 8 * len(pad))
            new = Secret(os.urandom(len(pad)))
            sealed = otp(new, pad)
            pad.wipe()
            with wiped_on_failure(new):
                self._relay_checked(order, new, sealed)
                self._check_age(order)
            return cut(new, key_bytes)
        uses = mode.uses(ranges, key_bytes, len(key_ids))[:2]
        shared, new = self._take(uses, allocation.request, allocation.server)
        with wiped_on_failure(shared, new):
            self._performance.consumed(session.link, 8 * (len(shared) + len(new)))
            self._relay(order, None)
            if mode.cipher == AES_CCM:
                sealed, check = ccm_seal(new, shared, allocation.request, order.header), None
            else:
                sealed, check = otp(new, shared), encoded(check_value(new, order.header))
            shared.wipe()
            if not self._tell_last(order, "keys", cipher=mode.cipher, sealed=encoded(sealed), check=check):
                raise order.not_there()
            self._check_age(order)
        return cut(new, key_bytes)

    def _check_age(self, order: _Order) -> None:
        """MaterialExpired if the keys took so long that their slave may come too late."""
        if self._store.clock() - order.begun >= self._store.promised_s:
            qc = order.allocation.ranges[0].qc
            raise MaterialExpired("the keys grew too old while they were relayed", qc=qc, node=self._name)

    def _relay_checked(self, order: _Order, new: Secret, sealed: Secret) -> None:
        """Relay the keys themselves, and tell the last node by what it knows them while they are on their way."""
        check = encoded(check_value(new, order.header))
        early = None
        if self._checking.take(order.session.path[-1]):
            early = self._checks.submit(trace.carried(self._check_early), order, check)
        self._relay(order, sealed)
        there = False
        if early is not None:
            with suppress(TimeoutError):
                there = early.result(max(0.0, deadline.left(self._answer_s())))
        # It may have waited for too long; now the keys are said to be there.
        if not there and not self._tell_last(order, "check", check=check):
            raise order.not_there()

    def _check_early(self, order: _Order, check: str) -> bool:
        """As `_tell_last`. Nobody may wait for it any more: what it did not foresee is told here, and counts as no."""
        last = order.session.path[-1]
        try:
            return self._tell_last(order, "check", check=check)
        except KeyFailure:
            raise
        except Exception as error:
            bugs.report(_log, f"telling node {last} of a check value", error)
            return False
        finally:
            self._checking.give_back(last)

    def _relay(self, order: _Order, sealed: Secret | None) -> None:
        """Have the next node relay over the rest of the path; it has done so when this returns."""
        session = order.session
        allocation = order.allocation
        body = {
            "link": session.link, "ksid": session.ksid, "server": allocation.server, "position": 1,
            "ranges": [range_json(r) for r in allocation.ranges], "proofs": list(allocation.proofs),
            "sealed": None if sealed is None else encoded(sealed),
        }  # fmt: skip
        self._send(session.path[1], f"/qkd/v1/relay/{allocation.request}", body)

    def _tell_last(self, order: _Order, what: str, **facts: Any) -> bool:
        """Tell the last node what it needs to keep the keys; False if nothing was relayed to it (yet). RelayAltered."""
        age_ms = math.ceil(1000 * (self._store.clock() - order.begun))
        body = {"ksid": order.session.ksid, "keys": order.keys, "age_ms": age_ms} | facts
        path = f"/qkd/v1/relay/{order.allocation.request}/{what}"
        try:
            return self._send(order.session.path[-1], path, body).status != _NOTHING_THERE
        except RelayAltered:
            raise RelayAltered(" - ".join(order.session.path)) from None

    def forward(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As a later node: take over what is relayed and pass it on, or keep it if this is the last node."""
        link = uuid_text(document.get("link"), "link")
        onward = self._routes.next_hop(link, sender)
        ranges = ranges_named(document)
        if onward is None and len(ranges) > 1:
            raise Malformed("ranges", "one range, because the link ends here")
        if onward is not None and len(ranges) == 1:
            raise Malformed("ranges", "a range for each link from here on")
        for neighbour, where in zip((sender, onward), ranges, strict=False):
            if neighbour is None or not self._routes.joins(where.qc, neighbour):
                raise Malformed("ranges.qc", f"a QC between this node and {neighbour}")
        n_bytes = len(ranges[-1])
        sealed = None if document.get("sealed") is None else decoded(document["sealed"], "sealed", n_bytes)
        if sealed is not None and len(ranges[0]) != n_bytes:
            raise Malformed("ranges", "a pad as long as what it seals")
        position = integer(document.get("position"), "position", low=1, high=MAX_HOPS)
        if (sealed is None and position > 1) or (sealed is None and onward is None):
            raise Malformed("sealed", "to be given behind the first hop")
        proofs = sequence(document.get("proofs"), "proofs", longest=MAX_HOPS)
        if len(proofs) != len(ranges):
            raise Malformed("proofs", "one for each range")
        message = Message(
            request, link, uuid_text(document.get("ksid"), "ksid"), text(document.get("server"), "server"), position,
            ranges, text(proofs[0], "proofs", longest=PROOF_LENGTH), sealed,
        )  # fmt: skip
        self._check_proof(sender, message)
        if deadline.left(ANSWER_S) < (relay_s(1, 0.0) if onward is None else self.least_s(len(ranges), onward)):
            raise RelayBroken("too little time was left to relay the key: try again", node=self._name)
        if onward is None:
            self._receive(message)
        else:
            full = RelayBroken("too many keys are being relayed here at once: try again", node=self._name)
            with self._under_way.taken(sender, onward, full=full):
                self._pass_on(message, document, to=onward)

    def _check_proof(self, sender: str, message: Message) -> None:
        """RelayBroken unless the shared database says that it has allocated these ranges for that request."""
        secret = self._secret()
        if secret is None:
            raise RelayBroken("this node has not reached the shared database yet: try again", node=self._name)
        if not hmac.compare_digest(message.proof.encode(), message.expected_proof(secret).encode()):
            words = f"node {sender} named ranges to node {self._name} that were not allocated for this request"
            raise RelayBroken(words, node=sender)

    def _pass_on(self, message: Message, document: Mapping[str, Any], *, to: str) -> None:
        uses = [*message.incoming(), (message.ranges[1], PAD)]
        taken = self._take(uses, message.request, message.server, ranges=message.ranges[:2])
        self._performance.consumed(message.link, 8 * sum(len(r) for r in message.ranges[:2]))
        relayed = message.opened(taken[0])
        body = {
            "link": message.link, "ksid": message.ksid, "server": message.server, "position": message.position + 1,
            "ranges": document["ranges"][1:], "proofs": document["proofs"][1:],
            "sealed": encoded(otp(relayed, taken[1])),
        }  # fmt: skip
        for secret in (*taken, relayed):
            secret.wipe()
        self._send(to, f"/qkd/v1/relay/{message.request}", body)

    def _receive(self, message: Message) -> None:
        """As last node: keep what was relayed."""
        session = self._ends_here(message.ksid, message.link)
        (taken,) = self._take(message.incoming(), message.request, message.server)
        self._performance.consumed(message.link, 8 * len(message.ranges[0]))
        relayed = message.opened(taken)
        taken.wipe()
        self._arrivals.put(message.request, Relayed(relayed, session.ksid))

    def accept_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> bool:
        """As last node: the new keys under the shared key that was relayed for `request`, kept for the slave SAE.

        False if nothing was relayed for it. RelayAltered if it was not what the first node sent.
        """
        announced = self._announced(sender, request, document)
        cipher = document.get("cipher")
        if cipher not in (OTP, AES_CCM):
            raise Malformed("cipher", f"{OTP} or {AES_CCM}")
        n_bytes = announced.n_bytes + (CCM_TAG_BYTES if cipher == AES_CCM else 0)
        sealed = decoded(document.get("sealed"), "sealed", n_bytes)
        check = decoded(document.get("check"), "check", CHECK_BYTES) if cipher == OTP else None
        relayed = self._arrivals.claim(request, announced.session.ksid)
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
            relayed.secret.wipe()
        self._keep_keys(announced, new, check)
        return True

    def check_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> bool:
        """As last node: what was relayed for `request` are the keys themselves, kept for the slave SAE if they fit.

        Waits a little for them. False if they have not come; RelayAltered if they are not what the first node sent.
        """
        announced = self._announced(sender, request, document)
        check = decoded(document.get("check"), "check", CHECK_BYTES)
        relayed = self._arrivals.claim(request, announced.session.ksid, patiently=True)
        if relayed is None:
            return False
        self._keep_keys(announced, relayed.secret, check)
        return True

    def expire(self) -> None:
        """Erase what was relayed to this node so long ago that no first node will claim it."""
        self._arrivals.expire()

    def _announced(self, sender: str, request: str, document: Mapping[str, Any]) -> Announced:
        """Which keys a message to the last node is about, if its sender is the first node of their session."""
        session = self._ends_here(uuid_text(document.get("ksid"), "ksid"), None)
        if session.master_node != sender:
            raise Malformed("ksid", f"a session from {sender} that ends at this node")
        age_s = integer(document.get("age_ms"), "age_ms", low=0, high=_MAX_AGE_MS) / 1000
        announced = Announced(request, session, *keys_named(document), document["keys"], self._store.clock() - age_s)
        if self._store.relayed_owners(announced.key_ids):
            raise _not_new()
        return announced

    def _ends_here(self, ksid: str, link: str | None) -> Association:
        """The session of that KSID, whose slave is at this node and, if `link` is given, which goes over it."""
        session = self._sessions.get(ksid)
        if session is None or session.slave_node != self._name or (link is not None and link not in session.backing):
            raise NoSession("no key session of this KSID ends at this node", ksid=ksid, node=self._name)
        return session

    def _take(
        self, uses: Sequence[key_events.Use], request: str, server: str, *, ranges: Sequence[Range] | None = None
    ) -> list[Secret]:
        """What is for these uses; in pieces of the same bytes as `ranges` has them, if these are given."""
        try:
            taken = self._store.take(ranges or [r for r, _ in uses], request, server)
        except Missing as missing:
            raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self._name) from None
        key_events.used(self._journal, request, uses)
        return taken

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

    def _send(self, node: str, path: str, body: dict[str, Any]) -> Reply:
        try:
            if node not in self._nodes:
                raise Unreachable(node, "no such node is configured")
            reply = self._caller.request(
                "POST", self._nodes[node] + path, to=Identity(Role.NODE, node), body=body,
                timeout_s=self._answer_s(),
            )  # fmt: skip
        except Unreachable as error:
            raise RelayBroken(f"node {node} cannot be reached: {error.reason}", node=node) from None
        if not reply.ok:
            raise failure_from(reply, node)
        return reply


@dataclass(frozen=True, slots=True)
class _Order:
    """What a first node makes: keys of a session, of what was allocated for them."""

    session: Session
    keys: Sequence[Mapping[str, Any]]
    allocation: Allocation
    begun: float  # by the node's clock, before any key is made

    @property
    def header(self) -> bytes:
        return header_of(self.allocation.request, self.session.ksid, self.keys)

    def not_there(self) -> RelayBroken:
        """The next node says that it has relayed, and the last one has got nothing."""
        path = self.session.path
        return RelayBroken(f"what node {path[1]} was to relay has not reached node {path[-1]}", node=path[1])


def _not_new() -> Malformed:
    return Malformed("keys.key_ID", "IDs of new keys")
