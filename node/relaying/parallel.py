"""Mode `parallel`: a key of the first node's, as in OTP mode, for which no node waits for the one before it.

On the path n0, n1, ..., nk the links' ranges are pads P1, ..., Pk. n0 draws the key K, and says at once to

- each node ni between: take your two pads, and send nk their difference, Pi xor Pi+1;
- nk: here is K xor P1, these are the nodes between, and that is the check value of K.

nk has Pk. The differences turn P1 into Pk, one pad after another, in whatever order they come:
K = (K xor P1) xor (P1 xor P2) xor ... xor (Pk-1 xor Pk) xor Pk. nk waits for those that have not come yet, and answers
n0 when it keeps K. So a key takes, after its allocation, the longest way n0 - ni - nk - n0, however many nodes there
are.

What a node between can learn is what it learns in OTP mode. It knows both of its pads, and a difference is worth a pad
to whoever knows the other one: with all that goes over the network it has K. But that goes inside TLS, to nk alone. In
OTP mode what it passes on is K itself.

All or nothing: a pad is erased before anything of it is sent, nk keeps nothing unless all has come and K fits its check
value, and n0 gives K to nobody before nk says that it is kept. What a node between sends waits at nk for a while, so
many bytes of each node. A node that sends another difference, or none, breaks that one key: the key does not fit its
check value, or nk says whose difference is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from decisions.modes import PAD
from decisions.ranges import Range
from documents.checks import Malformed, integer, mapping, sequence, text, uuid_text
from documents.secret import Secret
from mtls import deadline
from mtls.call import Reply
from node.failures import RelayBroken
from node.limits import MAX_HOPS, relay_s
from node.relaying.ciphers import PROOF_LENGTH, otp
from node.relaying.exchange import Exchange, Order
from node.relaying.last_node import LastNode
from node.relaying.relay_messages import MAX_KEY_BYTES, decoded, encoded, range_json, ranges_named
from node.relaying.relayed_keys import Relayed
from node.relaying.routes import Routes
from node.tree.performance import Performance
from node.waiting_limits import Places


class Parallel:
    """A node's part: as first, between, and last. Thread-safe."""

    def __init__(
        self, exchange: Exchange, *, routes: Routes, as_last: LastNode, performance: Performance, under_way: Places
    ) -> None:
        self._exchange = exchange
        self._routes = routes
        self._as_last = as_last
        self._performance = performance
        self._under_way = under_way

    def originate(self, order: Order, new: Secret) -> None:
        """As first node: have the last one keep the key `new`, which this one drew; it has when this returns.

        RelayBroken, RelayAltered, MaterialExpired of whichever node says so first.
        """
        session, (request, server) = order.session, (order.allocation.request, order.allocation.server)
        ranges, proofs = [range_json(r) for r in order.allocation.ranges], order.allocation.proofs
        *between, last = session.path[1:]
        about = {"link": session.link, "ksid": session.ksid, "server": server, "hops": session.hops}
        running, left_over = dict[Future[Any], str](), []
        for position, node in enumerate(between, start=1):
            body = about | {
                "position": position, "ranges": ranges[position - 1 : position + 1], "proof": proofs[position - 1],
                "to": last,
            }  # fmt: skip
            step = functools.partial(self._exchange.send, node, f"/qkd/v1/relay/{request}/pads", body)
            future = self._exchange.beside(node, f"telling node {node} to relay at once", step)
            if future is None:
                left_over.append(step)
            else:
                running[future] = node
        sealed, check = self._exchange.sealed(order, new)  # while others are at work
        here = about | {"ranges": ranges[-1:], "proof": proofs[-1], "sealed": encoded(sealed)}
        tell = functools.partial(self._exchange.tell_last, order, "sealed", nodes=between, check=check)
        at_last = self._exchange.beside(last, f"sending node {last} a key", functools.partial(tell, pad=here))
        for step in left_over:
            step()
        reply = tell(pad=here) if at_last is None else self._first_of(at_last, running | {at_last: last})
        if reply is None or _missing(reply, between):  # perhaps too many waited there
            for future in running:
                self._first_of(future, {future: running[future]})
            if missing := _missing(tell(), between):
                raise order.not_there(missing[0])

    def _first_of(self, awaited: Future[Reply | None], running: Mapping[Future[Any], str]) -> Reply | None:
        """What one of the nodes (by call) says, or the first failure of another one, whichever comes first."""
        waiting = set(running)
        while awaited in waiting:
            left_s = max(0.0, deadline.left(self._exchange.answer_s()))
            done, waiting = wait(waiting, left_s, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            if not done:
                node = running[awaited]
                raise RelayBroken(f"node {node} cannot be reached: no answer in time", node=node)
        return awaited.result()

    def turn(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As node between: take both pads, and send the last node their difference."""
        neighbours = self._routes.neighbours(link := uuid_text(document.get("link"), "link"))
        if len(neighbours) != 2:
            raise Malformed("link", "a virtual link that leads on from this node")
        ranges, (one, other) = ranges_named(document), neighbours
        if len(ranges) != 2 or len(ranges[0]) != len(ranges[1]):
            raise Malformed("ranges", "two, as long as each other: the pads of this node's links")
        if not any(all(map(self._joins, ranges, pair)) for pair in ((one, other), (other, one))):
            raise Malformed("ranges.qc", f"a QC to {one} and one to {other}")
        hops = integer(document.get("hops"), "hops", low=2, high=MAX_HOPS)
        position = integer(document.get("position"), "position", low=1, high=hops - 1)
        to = text(document.get("to"), "to")
        if to == self._exchange.name or to not in self._exchange.nodes:
            raise Malformed("to", "the last node of the path")
        ksid, server = uuid_text(document.get("ksid"), "ksid"), text(document.get("server"), "server")
        proof = text(document.get("proof"), "proof", longest=PROOF_LENGTH)
        self._exchange.check_proof(sender, proof, request, server, position=position, hops=hops, around=ranges)
        self._exchange.in_time(self._exchange.least_s(1, to))
        full = RelayBroken("too many keys are being relayed here at once: try again", node=self._exchange.name)
        with self._under_way.taken(sender, to, full=full):
            pads = self._exchange.take([(r, PAD) for r in ranges], request, server)
            self._performance.consumed(link, 8 * sum(map(len, pads)))
            body = {"link": link, "ksid": ksid, "difference": encoded(otp(*pads))}
            for pad in pads:
                pad.wipe()
            self._exchange.send(to, f"/qkd/v1/relay/{request}/difference", body)

    def accept_difference(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As last node: keep what a node between sends, until the first node names it."""
        ksid, link = uuid_text(document.get("ksid"), "ksid"), uuid_text(document.get("link"), "link")
        session = self._as_last.session(ksid, link)
        difference = decoded(document.get("difference"), "difference", MAX_KEY_BYTES, or_fewer=True)
        if not self._as_last.arrivals.put(request, Relayed(difference, session.ksid), sender=sender):
            raise self._too_much(sender)

    def accept_sealed(self, sender: str, request: str, document: Mapping[str, Any]) -> list[str]:
        """As last node: the key, kept for the slave SAE if all of it has come; else whose part is missing.

        Waits a little for the others. RelayAltered if it is not what the first node sent.
        """
        nodes = [text(n, "nodes") for n in sequence(document.get("nodes"), "nodes", longest=MAX_HOPS - 1)]
        if len({sender, self._exchange.name, *nodes}) != 2 + len(nodes) or not nodes:
            raise Malformed("nodes", "the nodes between, each once")
        if document.get("pad") is not None:
            self._accept_pad(sender, request, mapping(document["pad"], "pad"), nodes)
        return self._as_last.combine(sender, request, document, [sender, *nodes])

    def _accept_pad(self, sender: str, request: str, document: Mapping[str, Any], nodes: Sequence[str]) -> None:
        """The key under the first pad comes under this node's own pad as well, and waits for the differences."""
        link, before, hops = uuid_text(document.get("link"), "pad.link"), nodes[-1], len(nodes) + 1
        session = self._as_last.session(uuid_text(document.get("ksid"), "pad.ksid"), link)
        if session.master_node != sender:
            raise Malformed("pad.ksid", f"a session from {sender} that ends at this node")
        ranges = ranges_named(document)
        if self._routes.next_hop(link, before) is not None:
            raise Malformed("pad.link", f"a virtual link that ends at this node behind {before}")
        if len(ranges) != 1 or not self._joins(ranges[0], before):
            raise Malformed("pad.ranges", f"one, of a QC between this node and {before}")
        sealed = decoded(document.get("sealed"), "pad.sealed", len(ranges[0]))
        server = text(document.get("server"), "pad.server")
        proof = text(document.get("proof"), "pad.proof", longest=PROOF_LENGTH)
        self._exchange.check_proof(sender, proof, request, server, position=hops, hops=hops, around=ranges)
        self._exchange.in_time(relay_s(1, 0.0))
        (pad,) = self._exchange.take([(ranges[0], PAD)], request, server)
        self._performance.consumed(link, 8 * len(pad))
        kept = self._as_last.arrivals.put(request, Relayed(otp(sealed, pad), session.ksid), sender=sender)
        pad.wipe()
        if not kept:
            raise self._too_much(sender)

    def _too_much(self, sender: str) -> RelayBroken:
        words = f"node {sender} has sent more to node {self._exchange.name} than keys ask for"
        return RelayBroken(words, node=sender)

    def _joins(self, where: Range, neighbour: str) -> bool:
        return self._routes.joins(where.qc, neighbour)


def _missing(reply: Reply | None, between: Sequence[str]) -> list[str]:
    """Whose part the last node says is missing; none if it keeps the key."""
    if reply is None or reply.status == 204:
        return []
    named = mapping(reply.body, "answer").get("missing") if isinstance(reply.body, Mapping) else None
    known = [node for node in between if isinstance(named, list) and node in named]
    return known or list(between[:1])
