"""Where keys of a session go: over one link to its other end, or along a virtual link, node by node.

The standard tells a node only its neighbours on a virtual link. The first node, which allocates key material on all
links of the way, so asks its neighbour, which asks the next one, and each adds the QC that it takes from there.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from etsi import gs015
from etsi.checks import mapping, sequence, text
from etsi.errors import Malformed
from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from node.config import NodeConfig
from node.datastore import Datastore
from node.failures import NoSession, RelayBroken
from node.model import apps, capability, hops, links, node_id, qcs_in_use
from node.sessions import Association, Session

MAX_HOPS = 64
# The answer takes a round trip for each hop behind the next one.
_TIMEOUT_S = 10.0
_MAX_UNDER_WAY = 8


class Routes:
    """Finds routes of the sessions of this node's masters, and helps other nodes to find theirs. Thread-safe."""

    def __init__(self, config: NodeConfig, datastore: Datastore, caller: Caller) -> None:
        self._name = config.name
        self._urls = config.nodes
        self._own_qcs = [n.qc for n in config.qcs]
        self._peers = {n.qc: n.peer for n in config.qcs}
        self._names = {node_id(name): name for name in config.nodes}
        self._datastore = datastore
        self._caller = caller
        self._lock = threading.Lock()
        self._found: dict[str, tuple[dict[str, Any], Session]] = {}  # KSID -> what it was found by, and the route
        # Each takes one of the server's threads until the next node answers.
        self._under_way = threading.BoundedSemaphore(_MAX_UNDER_WAY)
        datastore.on_change(lambda *_: self._forget())

    def of(self, session: Association) -> Session:
        """The session with its route; NoSession, RelayBroken."""
        with self._lock:
            known = self._found.get(session.ksid)
            if known is not None:
                return known[1]
        here = {link["qkdl_id"]: link for link in links(self._datastore.tree)}
        link = next((here[b] for b in session.backing if b in here), None)
        if link is None:
            raise NoSession("the controller has configured no link for this session (yet)", ksid=session.ksid)
        path: tuple[str, ...]
        qcs: tuple[str, ...]
        if link["qkdl_type"] == gs015.PHYS:
            qc = self._fed_by().get(link["qkdl_id"])
            if qc is None or self._peers[qc] != session.slave_node:
                raise NoSession("no QC feeds the link of this session", ksid=session.ksid)
            path, qcs = (self._name, session.slave_node), (qc,)
        else:
            self._check_enabled(link)
            path, qcs = self._along(link, self._neighbours(link), MAX_HOPS)
            if path[-1] != session.slave_node or len(set(path)) != len(path) or len(set(qcs)) != len(qcs):
                raise RelayBroken("the session's virtual link does not lead to the slave's node", hop=path[-1])
        found = Session(session.ksid, session.master_sae, session.slave_sae, path, qcs, link["qkdl_id"])
        with self._lock:
            self._found[session.ksid] = (link, found)
        return found

    def onward(self, link_id: str, sender: str, budget: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """For the neighbour `sender`: nodes from this one on, and QCs between them, of at most `budget` hops more.

        NoSession, RelayBroken, Malformed.
        """
        following = self.next_hop(link_id, sender)
        if not self._under_way.acquire(blocking=False):
            raise RelayBroken("too many routes are being looked for here at once: try again", hop=self._name)
        try:
            return self._along(self.virtual_link(link_id), [] if following is None else [following], budget)
        finally:
            self._under_way.release()

    def virtual_link(self, link_id: str) -> Mapping[str, Any]:
        """The virtual link of that ID; NoSession, or RelayBroken if it is switched off."""
        for link in links(self._datastore.tree):
            if link["qkdl_id"] == link_id and link["qkdl_type"] == gs015.VIRT:
                self._check_enabled(link)
                return link
        raise NoSession("this virtual link does not pass this node", link=link_id, node=self._name)

    def next_hop(self, link_id: str, sender: str) -> str | None:
        """The node behind this one as seen from `sender`; None at the link's end. NoSession, RelayBroken, Malformed."""
        neighbours = self._neighbours(self.virtual_link(link_id))
        if sender not in neighbours:
            raise Malformed("link", f"a virtual link that joins {sender} and this node")
        onward = next((n for n in neighbours if n != sender), None)
        if onward is not None and not capability(self._datastore.tree, "key_relay_mode_enable"):
            raise RelayBroken("this node relays no keys: key_relay_mode_enable is false", hop=self._name)
        return onward

    def joins(self, qc: str, neighbour: str) -> bool:
        """Whether `qc` is in use between this node and that one."""
        return self._peers.get(qc) == neighbour and qc in qcs_in_use(self._datastore.tree, self._own_qcs)

    def _along(
        self, link: Mapping[str, Any], following: Sequence[str], budget: int
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if not following:
            return (self._name,), ()
        if budget < 1 or len(following) > 1:
            raise RelayBroken("a virtual link goes round in circles", hop=self._name)
        to = following[0]
        qc = self._choose(link["qkdl_id"], to)
        url = f"{self._urls[to]}/qkd/v1/virtual_links/{link['qkdl_id']}/route?hops={budget - 1}"
        try:
            reply = self._caller.request("GET", url, to=Identity(Role.NODE, to), timeout_s=_TIMEOUT_S)
        except Unreachable as error:
            raise RelayBroken(f"node {to} cannot be reached: {error.reason}", hop=to) from None
        if not reply.ok:
            raise RelayBroken(reply.message, hop=str(reply.detail("hop") or to))
        try:
            answer = mapping(reply.body, "answer")
            path = tuple(text(n, "path") for n in sequence(answer.get("path"), "path", longest=MAX_HOPS + 1))
            qcs = tuple(text(q, "qcs") for q in sequence(answer.get("qcs"), "qcs", longest=MAX_HOPS))
        except Malformed as error:
            raise RelayBroken(f"node {to} gave no route: {error}", hop=to) from None
        if not path or path[0] != to or len(path) != len(qcs) + 1 or not set(path) <= set(self._urls):
            raise RelayBroken(f"node {to} gave no route", hop=to)
        return (self._name, *path), (qc, *qcs)

    def _check_enabled(self, link: Mapping[str, Any]) -> None:
        if not link["qkdl_enable"]:
            raise RelayBroken("the session's virtual link is switched off", hop=self._name)

    def _choose(self, link_id: str, to: str) -> str:
        """The QC to that neighbour which the link's INTERNAL application names, or else the first one."""
        fed_by = self._fed_by()
        app = next((a for a in apps(self._datastore.tree) if a["app_id"] == link_id), None)
        named = [fed_by[b] for b in (app or {}).get("backing_qkdl_id", []) if b in fed_by]
        for qc in (*named, *self._own_qcs):
            if self.joins(qc, to):
                return qc
        raise RelayBroken(f"no QC leads from {self._name} to {to}", hop=self._name)

    def _fed_by(self) -> dict[str, str]:
        return {link["qkdl_id"]: qc for qc, link in qcs_in_use(self._datastore.tree, self._own_qcs).items()}

    def _neighbours(self, link: Mapping[str, Any]) -> list[str]:
        return [self._names.get(hop, hop) for hop in hops(link)]

    def forget(self, ksid: str) -> None:
        """A route turned out to be of no use: next time it is found anew."""
        with self._lock:
            self._found.pop(ksid, None)

    def _forget(self) -> None:
        """What was found by links that are configured otherwise now is found anew."""
        now = {link["qkdl_id"]: link for link in links(self._datastore.tree)}
        backing = {app["app_id"]: app.get("backing_qkdl_id", []) for app in apps(self._datastore.tree)}
        same = ("qkdl_type", "qkdl_enable", "virt_prev_hop", "virt_next_hop", "qkdl_local", "qkdl_remote")
        with self._lock:
            self._found = {
                ksid: (link, found)
                for ksid, (link, found) in self._found.items()
                if link["qkdl_id"] in backing.get(ksid, [])
                and all(now.get(link["qkdl_id"], {}).get(m) == link.get(m) for m in same)
            }
