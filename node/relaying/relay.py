"""Trusted relay (the paper's Figure 6): a secret hop by hop under OTP, and in most modes new keys under that secret.

On the path n0, n1, ..., nk the ranges are allocated on all links at once. In BASIC and QKP the first link's range is
the shared key S and, behind it, the new keys K. n1 holds S too, and sends it on under the pad of the next link; each
node does so until nk has S. Then n0 sends K under S to nk directly. Where it is the last link that pays double, K lies
there behind the pad, nk has it, and gives it to n0 under S when n0 asks; all else is the same. In OTP mode K is drawn
by n0 and takes the way of S, under a pad on the first link too. A message bears the ranges of the links from the one it
comes over on: what a node needs, and what it passes on. Every node erases what the ranges name on its side before it
sends anything, so that a failure half way costs material and never repeats it. How it goes without a chain is told in
`node.relaying.parallel`.

A relay could alter what it passes on. So n0 tells nk directly by what it knows K, or S where nk gives K: in QKP with K
of the first link the tag of AES-CCM, else a check value, which in OTP mode goes to nk while K is on its way. What does
not fit is erased at both ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from decisions.modes import AES_CCM, Mode
from decisions.ranges import Allocation
from documents.checks import Malformed, integer, mapping, sequence, text, uuid_text
from documents.secret import Secret, wiped_on_failure
from mtls import deadline
from mtls.call import Reply
from node.associations.sessions import Session
from node.failures import MaterialExpired, RelayBroken
from node.limits import MAX_HOPS, RELAYS, RELAYS_PER_NODE, relay_s
from node.material import key_events
from node.material.key_store import KeyStore
from node.relaying.ciphers import CCM_TAG_BYTES, PROOF_LENGTH, ccm_open, ccm_seal, check_value, otp
from node.relaying.exchange import Exchange, Order
from node.relaying.last_node import LastNode
from node.relaying.parallel import Parallel
from node.relaying.relay_messages import Message, cut, decoded, encoded, range_json, ranges_named
from node.relaying.relayed_keys import Relayed
from node.relaying.routes import Routes
from node.tree.performance import Performance
from node.waiting_limits import Places

_NOTHING_THERE = 202  # the last node's answer to who claims what has not come to it


class Relay:
    """This node's part in relaying keys: as first node, as a node between, and, in `as_last`, as last node."""

    def __init__(
        self, exchange: Exchange, as_last: LastNode, *, store: KeyStore, routes: Routes, performance: Performance
    ) -> None:
        self.as_last = as_last
        self._exchange = exchange
        self._store = store
        self._routes = routes
        self._performance = performance
        self._under_way = Places(RELAYS, RELAYS_PER_NODE)
        self.parallel = Parallel(
            exchange, routes=routes, as_last=as_last, performance=performance, under_way=self._under_way,
            journal=exchange.journal,
        )  # fmt: skip

    def least_s(self, links: int, next_node: str) -> float:
        """Seconds that relaying over so many links, by way of that neighbour, takes at least."""
        return self._exchange.least_s(links, next_node)

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
        order, ranges = Order(session, keys, allocation, self._store.clock()), allocation.ranges
        if mode.cipher is None:
            new = Secret(os.urandom(len(ranges[0])))
            with wiped_on_failure(new):
                if mode.at_once:
                    self.parallel.originate(order, new, mode.enough)
                else:
                    self._relay_checked(order, new)
                self._check_age(order)
            return cut(new, key_bytes)
        uses = mode.uses(ranges, key_bytes, len(key_ids), double_at_last=session.double_at_last)
        if session.double_at_last:
            return cut(self._new_keys_of_last(order, mode.cipher, uses[:1]), key_bytes)
        shared, new = self._exchange.take(uses[:2], allocation.request, allocation.server)
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

    def _new_keys_of_last(self, order: Order, cipher: str, uses: Sequence[key_events.Use]) -> Secret:
        """The new keys out of the last node's QC, which comes to have them for the slave as well."""
        allocation, last = order.allocation, order.session.path[-1]
        (shared,) = self._exchange.take(uses, allocation.request, allocation.server)
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

    def _check_age(self, order: Order) -> None:
        """MaterialExpired if the keys took so long that their slave may come too late."""
        if self._store.clock() - order.begun >= self._store.promised_s:
            qc = order.allocation.ranges[0].qc
            raise MaterialExpired("the keys grew too old while they were relayed", qc=qc, node=self._exchange.name)

    def _relay_checked(self, order: Order, new: Secret) -> None:
        """Relay the keys themselves, and tell the last node by what it knows them while they are on their way."""
        sealed = self._exchange.sealed(order, new, order.allocation.ranges[0], order.session.link)
        last, check = order.session.path[-1], encoded(check_value(new, order.header))
        words = f"telling node {last} of a check value"
        early = self._exchange.beside(last, words, lambda: self._tell_last(order, "check", check=check))
        self._relay(order, sealed)
        there = None
        if early is not None:
            with suppress(TimeoutError):
                there = early.result(max(0.0, deadline.left(self._exchange.answer_s())))
        # It may have waited for too long; now the keys are said to be there.
        if there is None and self._tell_last(order, "check", check=check) is None:
            raise order.not_there()

    def _relay(self, order: Order, sealed: Secret | None) -> None:
        """Have the next node relay over the rest of the path; it has done so when this returns."""
        session = order.session
        allocation = order.allocation
        body = {
            "link": session.link, "ksid": session.ksid, "server": allocation.server, "position": 1,
            "ranges": [range_json(r) for r in allocation.ranges], "proofs": list(allocation.proofs),
            "sealed": None if sealed is None else encoded(sealed),
        }  # fmt: skip
        self._exchange.send(session.path[1], f"/qkd/v1/relay/{allocation.request}", body)

    def _tell_last(self, order: Order, what: str, **facts: Any) -> Reply | None:
        """Tell the last node what it needs to keep the keys; None if nothing was relayed to it (yet). RelayAltered."""
        reply = self._exchange.tell_last(order, what, **facts)
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
        self._exchange.check_proof(
            sender, message.proof, request, message.server, position=position, hops=message.hops, around=ranges[:2]
        )
        self._exchange.in_time(relay_s(1, 0.0) if onward is None else self.least_s(len(ranges), onward))
        if onward is None:
            self._receive(message)
        else:
            full = RelayBroken("too many keys are being relayed here at once: try again", node=self._exchange.name)
            with self._under_way.taken(sender, onward, full=full):
                self._pass_on(message, document, to=onward)

    def _pass_on(self, message: Message, document: Mapping[str, Any], *, to: str) -> None:
        uses = [*message.incoming(), *message.outgoing()]
        taken = self._exchange.take(uses, message.request, message.server, ranges=message.ranges[:2])
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
        self._exchange.send(to, f"/qkd/v1/relay/{message.request}", body)

    def _receive(self, message: Message) -> None:
        """As last node: keep what was relayed."""
        session = self.as_last.session(message.ksid, message.link)
        (taken,) = self._exchange.take(message.incoming(), message.request, message.server, ranges=message.ranges)
        self._performance.consumed(message.link, 8 * len(message.ranges[0]))
        arrived = Relayed(message.opened(taken), session.ksid, message.new_keys(taken))
        taken.wipe()
        self.as_last.arrivals.put(message.request, arrived)
