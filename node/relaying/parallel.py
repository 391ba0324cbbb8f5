"""Modes `parallel` and `paths-...`: a key of the first node's, as in OTP mode, for which no node waits for another one.

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

Over several paths that share no node between, each brings a part of K in the place of K (`node.relaying.parts`). So no
node between can know K, not even with all that goes over the network: it would have its one part. Each part has a check
value of its own, by which nk knows a path that altered its part. If not all parts are needed, K comes to be without
those that have not come or do not fit, and nk says which these were.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from decisions.modes import PAD
from decisions.ranges import Range
from documents.checks import Malformed, integer, mapping, sequence, text, uuid_text
from documents.secret import Secret
from mtls import deadline
from mtls.call import Reply
from node.failures import KeyFailure, RelayAltered, RelayBroken
from node.limits import MAX_HOPS, relay_s
from node.relaying.ciphers import CHECK_BYTES, PROOF_LENGTH, check_value, otp
from node.relaying.exchange import Exchange, Order
from node.relaying.last_node import LastNode, Outcome
from node.relaying.parts import split
from node.relaying.relay_messages import MAX_KEY_BYTES, decoded, encoded, range_json, ranges_named
from node.relaying.relayed_keys import Relayed
from node.relaying.routes import Routes
from node.tree.performance import Performance
from node.waiting_limits import Places
from telemetry.journal import Journal

_NOT_KEPT = 202  # the last node's answer if too little has come


class Parallel:
    """A node's part: as first, between, and last. Thread-safe."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        routes: Routes,
        as_last: LastNode,
        performance: Performance,
        under_way: Places,
        journal: Journal,
    ) -> None:
        self._exchange = exchange
        self._routes = routes
        self._as_last = as_last
        self._performance = performance
        self._under_way = under_way
        self._journal = journal

    def originate(self, order: Order, new: Secret, enough: int) -> None:
        """As first node: have the last one keep the key `new`, which this one drew; it has when this returns.

        `enough` of its parts, of which each path brings one, make the key. RelayBroken, RelayAltered, MaterialExpired
        of whichever node says so first, unless enough paths are left.
        """
        request, last = order.allocation.request, order.session.path[-1]
        running, left_over = dict[Future[Any], tuple[int, str]](), []
        about, paths = list(order.paths()), list[dict[str, Any]]()
        for number, (path, ranges, proofs) in enumerate(about, 1):
            common = {"link": path.link, "ksid": path.ksid, "server": order.allocation.server, "hops": len(path.qcs)}
            for position, node in enumerate(path.path[1:-1], start=1):
                around = [range_json(r) for r in ranges[position - 1 : position + 1]]
                body = common | {"position": position, "ranges": around, "proof": proofs[position - 1], "to": last}
                step = functools.partial(self._exchange.send, node, f"/qkd/v1/relay/{request}/pads", body)
                future = self._exchange.beside(node, f"telling node {node} to relay at once", step)
                if future is None:
                    left_over.append((number, step))
                else:
                    running[future] = number, node
        tally = _Tally(order, enough, self._journal)
        # While others are at work.
        for number, (part, (path, ranges, proofs)) in enumerate(
            zip(split(new, len(about), enough), about, strict=True), 1
        ):
            sealed = self._exchange.sealed(order, part, ranges[0], path.link)
            check = encoded(check_value(part, order.header_of(number if len(about) > 1 else 0)))
            part.wipe()
            pad = {"link": path.link, "server": order.allocation.server, "ranges": [range_json(ranges[-1])],
                   "proof": proofs[-1], "sealed": encoded(sealed)}  # fmt: skip
            paths.append({"nodes": list(path.path[1:-1]), "check": check, "pad": pad})
        tell = functools.partial(self._exchange.tell_last, order, "sealed", enough=enough)
        first = functools.partial(tell, paths=paths)
        at_last = self._exchange.beside(last, f"sending node {last} a key", first)
        for number, step in left_over:
            tally.bear(number, step)
        reply = first() if at_last is None else self._first_of(at_last, running | {at_last: (0, last)}, tally)
        if reply is None or _missing(reply, tally.between):  # perhaps too many waited there
            for future in running:
                self._first_of(future, {future: running[future]}, tally)
            reply = tell(paths=[{name: path[name] for name in ("nodes", "check")} for path in paths])
            if missing := _missing(reply, tally.between):
                raise order.not_there(missing[0])
        tally.told(reply)

    def _first_of(
        self, awaited: Future[Reply | None], running: Mapping[Future[Any], tuple[int, str]], tally: _Tally
    ) -> Reply | None:
        """What one of the calls brings, or the first failure of another one that cannot be borne."""
        waiting = set(running)
        while awaited in waiting:
            left_s = max(0.0, deadline.left(self._exchange.answer_s()))
            done, waiting = wait(waiting, left_s, return_when=FIRST_COMPLETED)
            for future in done:
                tally.bear(running[future][0], future.result)
            if not done:
                node = running[awaited][1]
                raise RelayBroken(f"node {node} cannot be reached: no answer in time", node=node)
        return awaited.result() if awaited.exception() is None else None

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

    def accept_sealed(self, sender: str, request: str, document: Mapping[str, Any]) -> Outcome:
        """As last node: the key, kept for the slave SAE if enough of it has come.

        Waits a little for the others. RelayAltered if it is not what the first node sent.
        """
        entries = sequence(document.get("paths"), "paths", longest=MAX_HOPS)
        paths = [mapping(entry, f"paths[{i}]") for i, entry in enumerate(entries)]
        named = [
            [text(n, "paths.nodes") for n in sequence(path.get("nodes"), "paths.nodes", longest=MAX_HOPS - 1)]
            for path in paths
        ]
        between = [node for nodes in named for node in nodes]
        if len({sender, self._exchange.name, *between}) != 2 + len(between) or not between:
            raise Malformed("paths.nodes", "the nodes between, each once")
        enough = integer(document.get("enough"), "enough", low=1, high=len(paths))
        for number, (path, nodes) in enumerate(zip(paths, named, strict=True), 1):
            if path.get("pad") is not None:
                ksid, pad = uuid_text(document.get("ksid"), "ksid"), mapping(path["pad"], "paths.pad")
                self._accept_pad(sender, request, ksid, (number, nodes), pad)
        checks = [decoded(path.get("check"), "paths.check", CHECK_BYTES) for path in paths]
        return self._as_last.combine(sender, request, document, list(zip(named, checks, strict=True)), enough)

    def _accept_pad(
        self, sender: str, request: str, ksid: str, over: tuple[int, Sequence[str]], document: Mapping[str, Any]
    ) -> None:
        """What is under the first pad comes under this node's own pad as well, and waits for the differences.

        `over`: the path's number, and its nodes between.
        """
        number, nodes = over
        link, before, hops = uuid_text(document.get("link"), "paths.pad.link"), [sender, *nodes][-1], len(nodes) + 1
        session = self._as_last.session(ksid, link)
        if session.master_node != sender:
            raise Malformed("ksid", f"a session from {sender} that ends at this node")
        ranges = ranges_named(document)
        if nodes and self._routes.next_hop(link, before) is not None:
            raise Malformed("paths.pad.link", f"a virtual link that ends at this node behind {before}")
        if len(ranges) != 1 or not self._joins(ranges[0], before):
            raise Malformed("paths.pad.ranges", f"one, of a QC between this node and {before}")
        sealed = decoded(document.get("sealed"), "paths.pad.sealed", len(ranges[0]))
        server = text(document.get("server"), "paths.pad.server")
        proof = text(document.get("proof"), "paths.pad.proof", longest=PROOF_LENGTH)
        self._exchange.check_proof(sender, proof, request, server, position=hops, hops=hops, around=ranges)
        self._exchange.in_time(relay_s(1, 0.0))
        (pad,) = self._exchange.take([(ranges[0], PAD)], request, server)
        self._performance.consumed(link, 8 * len(pad))
        kept = self._as_last.arrivals.put(
            request, Relayed(otp(sealed, pad), session.ksid), sender=sender, number=number
        )
        pad.wipe()
        if not kept:
            raise self._too_much(sender)

    def _too_much(self, sender: str) -> RelayBroken:
        words = f"node {sender} has sent more to node {self._exchange.name} than keys ask for"
        return RelayBroken(words, node=sender)

    def _joins(self, where: Range, neighbour: str) -> bool:
        return self._routes.joins(where.qc, neighbour)


class _Tally:
    """Of a key that goes over several paths: which of them have lost their part, as long as enough are left.

    `between`: the nodes between, path after path.
    """

    def __init__(self, order: Order, enough: int, journal: Journal) -> None:
        self._order = order
        self._journal = journal
        self._paths = [path.path for path in order.session.paths]
        self._spare = len(self._paths) - enough
        self._lost: dict[int, str] = {}  # by number, from 1 on: why
        self.between = [node for path in self._paths for node in path[1:-1]]

    def bear(self, number: int, step: Callable[[], Any]) -> None:
        """Do that step of a path, whose failure is raised unless enough paths are left; 0: none can do without it."""
        try:
            step()
        except KeyFailure as failure:
            if number == 0 or (number not in self._lost and len(self._lost) == self._spare):
                raise
            self._lost[number] = failure.cause

    def told(self, reply: Reply | None) -> None:
        """The last node keeps the key: which paths it says have brought nothing, or something else."""
        altered, missing = _named(reply, "altered"), _named(reply, "missing")
        for number, path in enumerate(self._paths, 1):
            if " - ".join(path) in altered:
                self._lost.setdefault(number, RelayAltered.cause)
            elif not set(path[1:-1]).isdisjoint(missing):
                self._lost.setdefault(number, RelayBroken.cause)
        for number, cause in sorted(self._lost.items()):
            request = self._order.allocation.request
            self._journal.event("part_lost", allocation=request, path=list(self._paths[number - 1]), cause=cause)


def _missing(reply: Reply | None, between: Sequence[str]) -> list[str]:
    """Whose part the last node says is missing so that it does not keep the key."""
    if reply is None or reply.status != _NOT_KEPT:
        return []
    named = _named(reply, "missing")
    return [node for node in between if node in named] or list(between[:1])


def _named(reply: Reply | None, what: str) -> list[str]:
    """Whom the last node names; it may say anything."""
    named = reply.body.get(what) if reply is not None and isinstance(reply.body, Mapping) else None
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
