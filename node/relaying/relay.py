"""Trusted relay (the paper's Figure 6): a secret hop by hop under OTP, and in most modes new keys under that secret.

On the path n0, n1, ..., nk the ranges are allocated on all links at once. In BASIC and QKP the first link's range is
the shared key S and, behind it, the new keys K. n1 holds S too, and sends it on under the pad of the next link; each
node does so until nk has S. Then n0 sends K under S to nk directly. Where it is the last link that pays double, K lies
there behind the pad, nk has it, and gives it to n0 under S when n0 asks; all else is the same. In OTP mode K is drawn
by n0 and takes the way of S, under a pad on the first link too. A message bears the ranges of the links from the one it
comes over on: what a node needs, and what it passes on. Every node erases what the ranges name on its side before it
sends anything, so that a failure half way costs material and never repeats it.

A relay could alter what it passes on. So n0 tells nk directly by what it knows K, or S where nk gives K: in QKP with K
of the first link the tag of AES-CCM, else a check value, which in OTP mode goes to nk while K is on its way. What does
not fit is erased at both ends.
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

from decisions.modes import AES_CCM, PAD, Mode
from decisions.ranges import Allocation, Range
from documents.checks import Malformed, integer, mapping, sequence, text, uuid_text
from documents.secret import Secret, wiped_on_failure
from mtls import deadline
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from node.associations.sessions import Session, Sessions
from node.failures import KeyFailure, MaterialExpired, RelayAltered, RelayBroken
from node.limits import ANSWER_S, CHECKS, CHECKS_PER_NODE, MAX_HOPS, RELAYS, RELAYS_PER_NODE, relay_s
from node.material import key_events
from node.material.key_store import KeyStore
from node.material.key_stream import Missing
from node.relaying.ciphers import CCM_TAG_BYTES, PROOF_LENGTH, ccm_open, ccm_seal, check_value, otp
from node.relaying.last_node import LastNode
from node.relaying.relay_messages import (
    Message,
    cut,
    decoded,
    encoded,
    failure_from,
    header_of,
    range_json,
    ranges_named,
)
from node.relaying.relayed_keys import Relayed
from node.relaying.routes import Routes
from node.tree.performance import Performance
from node.waiting_limits import Places
from telemetry import bugs, trace
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
_NOTHING_THERE = 202  # the last node's answer to who claims what has not come to it


class Relay:
    """This node's part in relaying keys: as first node, as a node between, and, in `as_last`, as last node."""

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
        self._routes = routes
        self._performance = performance
        self._secret = secret  # which this node shares with the shared database
        self._journal = journal
        self._answer_s = answer_s  # how long a request may take
        self.as_last = LastNode(name, sessions=sessions, store=store, answer_s=answer_s, journal=journal)
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
        uses = mode.uses(ranges, key_bytes, len(key_ids), double_at_last=session.double_at_last)
        if session.double_at_last:
            return cut(self._new_keys_of_last(order, mode.cipher, uses[:1]), key_bytes)
        shared, new = self._take(uses[:2], allocation.request, allocation.server)
        with wiped_on_failure(shared, new):
            self._performance.consumed(session.link, 8 * (len(shared) + len(new)))
            self._relay(order, None)
            if mode.cipher == AES_CCM:
                sealed, check = ccm_seal(new, shared, allocation.request, order.header), None
            else:
                sealed, check = otp(new, shared), encoded(check_value(new, order.header))
            shared.wipe()
            if self._tell_last(order, "keys", cipher=mode.cipher, sealed=encoded(sealed), check=check) is None:
                raise order.not_there()
            self._check_age(order)
        return cut(new, key_bytes)

    def _new_keys_of_last(self, order: _Order, cipher: str, uses: Sequence[key_events.Use]) -> Secret:
        """The new keys out of the last node's QC, which comes to have them for the slave as well."""
        allocation, last = order.allocation, order.session.path[-1]
        (shared,) = self._take(uses, allocation.request, allocation.server)
        with wiped_on_failure(shared):
            self._performance.consumed(order.session.link, 8 * len(shared))
            self._relay(order, None)
            check = encoded(check_value(shared, order.header))
            reply = self._tell_last(order, "new_keys", cipher=cipher, check=check)
            if reply is None:
                raise order.not_there()
            try:
                n_bytes = sum(key["bytes"] for key in order.keys) + (CCM_TAG_BYTES if cipher == AES_CCM else 0)
                sealed = decoded(mapping(reply.body, "answer").get("sealed"), "sealed", n_bytes)
                if cipher == AES_CCM:
                    new = ccm_open(sealed, shared, allocation.request, order.header)
                else:
                    new = otp(sealed, shared)
            except ValueError:  # Malformed, Tampered
                raise RelayBroken(f"what node {last} gives is not the new keys", node=last) from None
        shared.wipe()
        with wiped_on_failure(new):
            self._check_age(order)
        return new

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
        if not there and self._tell_last(order, "check", check=check) is None:
            raise order.not_there()

    def _check_early(self, order: _Order, check: str) -> bool:
        """Whether the last node has them. Nobody may wait for that any more: a bug is told here, and counts as no."""
        last = order.session.path[-1]
        try:
            return self._tell_last(order, "check", check=check) is not None
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

    def _tell_last(self, order: _Order, what: str, **facts: Any) -> Reply | None:
        """Tell the last node what it needs to keep the keys; None if nothing was relayed to it (yet). RelayAltered."""
        age_ms = math.ceil(1000 * (self._store.clock() - order.begun))
        body = {"ksid": order.session.ksid, "keys": order.keys, "age_ms": age_ms} | facts
        path = f"/qkd/v1/relay/{order.allocation.request}/{what}"
        try:
            reply = self._send(order.session.path[-1], path, body)
        except RelayAltered:
            raise RelayAltered(" - ".join(order.session.path)) from None
        return None if reply.status == _NOTHING_THERE else reply

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
        n_bytes, is_last, sealed = min(map(len, ranges)), len(ranges) == 1, None
        if document.get("sealed") is not None:
            # At the last node the new keys may lie behind the pad.
            sealed = decoded(document["sealed"], "sealed", n_bytes, or_fewer=is_last)
            if not is_last and len(ranges[0]) != n_bytes:
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
        uses = [*message.incoming(), *message.outgoing()]
        taken = self._take(uses, message.request, message.server, ranges=message.ranges[:2])
        self._performance.consumed(message.link, 8 * sum(len(r) for r in message.ranges[:2]))
        relayed = message.opened(taken[0])
        sealed = message.resealed(relayed, taken[1])
        body = {
            "link": message.link, "ksid": message.ksid, "server": message.server, "position": message.position + 1,
            "ranges": document["ranges"][1:], "proofs": document["proofs"][1:],
            "sealed": encoded(sealed),
        }  # fmt: skip
        for secret in (*taken, relayed):
            secret.wipe()
        self._send(to, f"/qkd/v1/relay/{message.request}", body)

    def _receive(self, message: Message) -> None:
        """As last node: keep what was relayed."""
        session = self.as_last.session(message.ksid, message.link)
        (taken,) = self._take(message.incoming(), message.request, message.server, ranges=message.ranges)
        self._performance.consumed(message.link, 8 * len(message.ranges[0]))
        arrived = Relayed(message.opened(taken), session.ksid, message.new_keys(taken))
        taken.wipe()
        self.as_last.arrivals.put(message.request, arrived)

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
