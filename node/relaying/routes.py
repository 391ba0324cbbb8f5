"""Where keys of a session go: over one link to its other end, or along a virtual link, node by node.

The standard tells a node only its neighbours on a virtual link. The first node, which allocates key material on all
links of the way, so asks every node of the way itself who its neighbours are and by which QCs, one after the other. It
goes on to a node only if that node, too, names the one before: no relay can lead it a way that others do not know of.

A virtual link has a direction. The node at which it begins is the end that pays double, where a mode takes more of one
QC than of the others.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping

from documents.checks import Malformed, mapping, sequence, text
from etsi import gs015
from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from node.associations.sessions import Association, Session, over
from node.config import NodeConfig
from node.failures import NoSession, RelayBroken
from node.limits import LACKING_S, MAX_HOPS, NEIGHBOURS_S
from node.tree.datastore import Datastore
from node.tree.model import Change, Entry, apps, capability, hops, links, node_id, qcs_in_use
from node.waiting_limits import Once

_MAX_PARALLEL_QCS = 64

# The neighbours of a node on a virtual link, with the QCs in use to each; QCs that the link is configured on go first.
Neighbours = Mapping[str, list[str]]


def along(first: str, neighbours: Callable[[str], Neighbours]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes of a virtual link from its end `first` on, and a QC between each and the next; RelayBroken.

    `neighbours(node)`: what that node says. PURE. A node that lies can end the way at itself, and lead it nowhere else.
    """
    path, qcs = [first], list[str]()
    here = neighbours(first)
    if len(here) > 1:
        raise RelayBroken("the session's virtual link does not end at this node", node=first)
    while onward := [name for name in here if name not in path[-2:]]:
        at, to = path[-1], onward[0]
        if to in path or len(qcs) == MAX_HOPS:
            raise RelayBroken("the session's virtual link goes round in circles", node=to)
        there = neighbours(to)
        if at not in there:
            raise RelayBroken(f"node {at} leads to node {to}, which does not lead back", node=at)
        qc = next((qc for qc in here[to] if qc in there[at]), None)
        if qc is None:
            raise RelayBroken(f"no QC leads from {at} to {to}", node=at)
        path.append(to)
        qcs.append(qc)
        here = there
    return tuple(path), tuple(qcs)


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
        self._found: dict[str, Session] = {}  # by KSID
        self._again: dict[str, float] = {}  # by KSID: when those are looked for of which a path is lacking
        self._looking: Once[Session] = Once()
        datastore.on_change(self._forget)

    def of(self, session: Association, enough: int = 1) -> Session:
        """The session with its route, or routes if several links feed it; NoSession, RelayBroken.

        `enough`: so many routes will do if not all can be found.
        """
        known = self._known(session.ksid, enough)
        if known is not None:
            return known
        return self._looking.do(session.ksid, lambda: self._look_for(session, enough))

    def _known(self, ksid: str, enough: int) -> Session | None:
        with self._lock:
            found = self._found.get(ksid)
            if found is not None and ksid in self._again:  # it lacks a path
                return found if len(found.paths) >= enough and time.monotonic() < self._again[ksid] else None
            return found

    def _look_for(self, session: Association, enough: int) -> Session:
        known = self._known(session.ksid, enough)
        if known is not None:  # it was found a moment ago
            return known
        here = {link["qkdl_id"]: link for link in links(self._datastore.tree)}
        backing = [here[b] for b in session.backing if b in here]
        if not backing:
            raise NoSession("the controller has configured no link for this session (yet)", ksid=session.ksid)
        paths, broken = list[Session](), list[NoSession | RelayBroken]()
        for link in backing:
            try:
                paths.append(self._along(session, link))
            except (NoSession, RelayBroken) as failure:
                broken.append(failure)
        if broken and len(paths) < enough:
            raise broken[0]
        passed = [node for path in paths for node in path.path[1:-1]]
        if (twice := next((node for node in passed if passed.count(node) > 1), None)) is not None:
            raise RelayBroken("two paths of the session pass the same node", node=twice)
        found = over(paths)
        with self._lock:
            self._found[session.ksid] = found
            self._again.pop(session.ksid, None)
            if broken:
                self._again[session.ksid] = time.monotonic() + LACKING_S
        return found

    def _along(self, session: Association, link: Entry) -> Session:
        """The session over that link; NoSession, RelayBroken."""
        path: tuple[str, ...]
        qcs: tuple[str, ...]
        if link["qkdl_type"] == gs015.PHYS:
            qc = self._fed_by().get(link["qkdl_id"])
            if qc is None or self._peers[qc] != session.slave_node:
                raise NoSession("no QC feeds the link of this session", ksid=session.ksid)
            path, qcs = (self._name, session.slave_node), (qc,)
        else:
            path, qcs = along(self._name, functools.partial(self._neighbours_of, link["qkdl_id"]))
            if path[-1] != session.slave_node:
                raise RelayBroken("the session's virtual link does not lead to the slave's node", node=path[-1])
        return Session(
            session.ksid, session.master_sae, session.slave_sae, path, qcs, link["qkdl_id"],
            double_at_last=len(qcs) > 1 and "virt_prev_hop" in link,
        )  # fmt: skip

    def neighbours(self, link_id: str) -> Neighbours:
        """This node's neighbours on that virtual link: one at the link's ends, two between.

        NoSession, or RelayBroken if the link is switched off or this node is not to relay.
        """
        virtual = (link for link in links(self._datastore.tree) if link["qkdl_type"] == gs015.VIRT)
        link = next((link for link in virtual if link["qkdl_id"] == link_id), None)
        if link is None:
            raise NoSession("this virtual link does not pass this node", link=link_id, node=self._name)
        if not link["qkdl_enable"]:
            raise RelayBroken("the session's virtual link is switched off", node=self._name)
        named = [self._names.get(hop, hop) for hop in hops(link)]
        if len(named) > 1 and not capability(self._datastore.tree, "key_relay_mode_enable"):
            raise RelayBroken("this node relays no keys: key_relay_mode_enable is false", node=self._name)
        fed_by = self._fed_by()
        app = next((a for a in apps(self._datastore.tree) if a["app_id"] == link_id), {})
        configured = [fed_by[b] for b in app.get("backing_qkdl_id", []) if b in fed_by]
        qcs = list(dict.fromkeys((*configured, *self._own_qcs)))
        return {name: [qc for qc in qcs if self.joins(qc, name)] for name in named}

    def next_hop(self, link_id: str, sender: str) -> str | None:
        """The node behind this one as seen from `sender`; None at the link's end. NoSession, RelayBroken, Malformed."""
        neighbours = self.neighbours(link_id)
        if sender not in neighbours:
            raise Malformed("link", f"a virtual link that joins {sender} and this node")
        return next((n for n in neighbours if n != sender), None)

    def joins(self, qc: str, neighbour: str) -> bool:
        """Whether `qc` is in use between this node and that one."""
        return self._peers.get(qc) == neighbour and qc in qcs_in_use(self._datastore.tree, self._own_qcs)

    def _neighbours_of(self, link_id: str, node: str) -> Neighbours:
        """What a node says of its neighbours on the virtual link; NoSession, RelayBroken."""
        if node == self._name:
            return self.neighbours(link_id)
        if node not in self._urls:
            raise RelayBroken(f"node {node} is not of this network", node=node)
        url = f"{self._urls[node]}/qkd/v1/virtual_links/{link_id}/neighbours"
        try:
            reply = self._caller.request("GET", url, to=Identity(Role.NODE, node), timeout_s=NEIGHBOURS_S)
        except Unreachable as error:
            raise RelayBroken(f"node {node} cannot be reached: {error.reason}", node=node) from None
        if not reply.ok:
            raise RelayBroken(reply.message, node=str(reply.detail("node") or node))
        try:
            entries = [
                mapping(entry, "neighbours")
                for entry in sequence(mapping(reply.body, "answer").get("neighbours"), "neighbours", longest=2)
            ]
            return {
                text(entry.get("node"), "neighbours.node"): [
                    text(qc, "neighbours.qcs")
                    for qc in sequence(entry.get("qcs"), "neighbours.qcs", longest=_MAX_PARALLEL_QCS)
                ]
                for entry in entries
            }
        except Malformed as error:
            raise RelayBroken(f"node {node} does not say who its neighbours are: {error}", node=node) from None

    def _fed_by(self) -> dict[str, str]:
        return {link["qkdl_id"]: qc for qc, link in qcs_in_use(self._datastore.tree, self._own_qcs).items()}

    def forget(self, ksid: str) -> None:
        """A route turned out to be of no use: next time it is found anew."""
        with self._lock:
            self._found.pop(ksid, None)

    def _forget(self, change: Change) -> None:
        """What was found by links that are configured otherwise now is found anew."""
        same = ("qkdl_type", "qkdl_enable", "virt_prev_hop", "virt_next_hop", "qkdl_local", "qkdl_remote")
        turned = {
            name
            for name, (was, now) in change.links.items()
            if was is None or now is None or any(was.get(member) != now.get(member) for member in same)
        }
        with self._lock:
            for ksid, (_, app) in change.apps.items():
                if ksid in self._found:
                    over_links = {path.link for path in self._found[ksid].paths}
                    if app is None or over_links != set(app.get("backing_qkdl_id", [])):
                        del self._found[ksid]
            if turned:
                self._found = {
                    ksid: found
                    for ksid, found in self._found.items()
                    if turned.isdisjoint(path.link for path in found.paths)
                }
            self._again = {ksid: at for ksid, at in self._again.items() if ksid in self._found}
