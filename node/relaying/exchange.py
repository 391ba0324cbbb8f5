"""What a node does in each part of a relay: take what ranges name, ask other nodes, look what was allocated."""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from decisions.modes import PAD
from decisions.ranges import Allocation, Range
from documents.secret import Secret
from mtls import deadline
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from node.associations.sessions import Session
from node.failures import KeyFailure, MaterialExpired, RelayAltered, RelayBroken
from node.limits import ANSWER_S, CHECKS, CHECKS_PER_NODE, relay_s
from node.material import key_events
from node.material.key_store import KeyStore
from node.material.key_stream import Missing
from node.relaying.ciphers import otp, proof
from node.relaying.relay_messages import failure_from, header_of
from node.tree.performance import Performance
from node.waiting_limits import Places
from telemetry import bugs, trace
from telemetry.journal import Journal

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """What a first node makes: keys of a session, of what was allocated for them."""

    session: Session
    keys: Sequence[Mapping[str, Any]]
    allocation: Allocation
    begun: float  # by the node's clock, before any key is made

    @property
    def header(self) -> bytes:
        """What is authenticated beside the keys."""
        return self.header_of(0)

    def header_of(self, part: int) -> bytes:
        """What is authenticated beside that part of the keys."""
        return header_of(self.allocation.request, self.session.ksid, self.keys, part)

    def paths(self) -> Iterator[tuple[Session, Sequence[Range], Sequence[str]]]:
        """Each path with what was allocated on it: its ranges and its proofs."""
        done = 0
        for path in self.session.paths:
            upto = done + len(path.qcs)
            yield path, self.allocation.ranges[done:upto], self.allocation.proofs[done:upto]
            done = upto

    def not_there(self, node: str | None = None) -> RelayBroken:
        """That node, if none is given the next one, says that it has relayed, and the last one has got nothing."""
        found, last = node or self.session.path[1], self.session.path[-1]
        return RelayBroken(f"what node {found} was to relay has not reached node {last}", node=found)


class Exchange:
    """Of the node `name`. Thread-safe."""

    def __init__(
        self,
        name: str,
        *,
        nodes: Mapping[str, str],
        caller: Caller,
        store: KeyStore,
        performance: Performance,
        secret: Callable[[], bytes | None],
        answer_s: Callable[[], float],
        journal: Journal,
    ) -> None:
        self.name = name
        self.nodes = nodes
        self.answer_s = answer_s  # how long a request may take
        self._caller = caller
        self._store = store
        self._performance = performance
        self._secret = secret  # which this node shares with the shared database
        self.journal = journal
        self._threads = ThreadPoolExecutor(CHECKS, thread_name_prefix="beside")
        self._places = Places(CHECKS, CHECKS_PER_NODE)  # until a node answers, though the relay has failed

    def least_s(self, links: int, node: str) -> float:
        """Seconds that relaying over so many links, beginning with a call to that node, takes at least.

        Other round trips do not count: the longest is not that of this path, nor may a node far off have us refuse.
        """
        return relay_s(links, self._caller.measured_s(Identity(Role.NODE, node)))

    def in_time(self, least_s: float) -> None:
        """RelayBroken if less time is left to answer."""
        if deadline.left(ANSWER_S) < least_s:
            raise RelayBroken("too little time was left to relay the key: try again", node=self.name)

    def take(
        self, uses: Sequence[key_events.Use], request: str, server: str, *, ranges: Sequence[Range] | None = None
    ) -> list[Secret]:
        """What is for these uses; in pieces of the same bytes as `ranges` has them, if these are given."""
        try:
            taken = self._store.take(ranges or [r for r, _ in uses], request, server)
        except Missing as missing:
            raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self.name) from None
        key_events.used(self.journal, request, uses)
        return taken

    def sealed(self, order: Order, new: Secret, where: Range, link: str) -> Secret:
        """As first node, keys that it drew, or a part of them, under the pad of that range of a path's first link."""
        (pad,) = self.take([(where, PAD)], order.allocation.request, order.allocation.server)
        self._performance.consumed(link, 8 * len(pad))
        sealed = otp(new, pad)
        pad.wipe()
        return sealed

    def check_proof(
        self, sender: str, given: str, request: str, server: str, *, position: int, hops: int, around: Sequence[Range]
    ) -> None:
        """RelayBroken unless the shared database says that it has allocated these ranges for that request."""
        secret = self._secret()
        if secret is None:
            raise RelayBroken("this node has not reached the shared database yet: try again", node=self.name)
        expected = proof(secret, request, server, position=position, hops=hops, around=around)
        if not hmac.compare_digest(given.encode(), expected.encode()):
            words = f"node {sender} named ranges to node {self.name} that were not allocated for this request"
            raise RelayBroken(words, node=sender)

    def send(self, node: str, path: str, body: dict[str, Any]) -> Reply:
        """Post it to that node; how that node says that it failed, or that it cannot be reached, is raised."""
        try:
            if node not in self.nodes:
                raise Unreachable(node, "no such node is configured")
            reply = self._caller.request(
                "POST", self.nodes[node] + path, to=Identity(Role.NODE, node), body=body, timeout_s=self.answer_s()
            )
        except Unreachable as error:
            raise RelayBroken(f"node {node} cannot be reached: {error.reason}", node=node) from None
        if not reply.ok:
            raise failure_from(reply, node)
        return reply

    def tell_last(self, order: Order, what: str, **facts: Any) -> Reply:
        """Tell the last node what it needs to keep the keys. RelayAltered names a whole path."""
        age_ms = math.ceil(1000 * (self._store.clock() - order.begun))
        body = {"ksid": order.session.ksid, "keys": order.keys, "age_ms": age_ms} | facts
        try:
            return self.send(order.session.path[-1], f"/qkd/v1/relay/{order.allocation.request}/{what}", body)
        except RelayAltered as altered:
            paths = [" - ".join(path.path) for path in order.session.paths]
            named = altered.facts["path"]
            raise RelayAltered(named if named in paths else ", or ".join(paths)) from None

    def beside(self, node: str, what: str, step: Callable[[], T]) -> Future[T | None] | None:
        """`step`, which does `what` and asks that node, in a thread of its own; None if no place is left.

        Nobody may wait for it any more when it ends: a bug is told here, and its outcome is None.
        """
        if not self._places.take(node):
            return None

        def run() -> T | None:
            try:
                return step()
            except KeyFailure:
                raise
            except Exception as error:
                bugs.report(_log, what, error)
                return None
            finally:
                self._places.give_back(node)

        return self._threads.submit(trace.carried(run))
