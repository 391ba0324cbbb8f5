"""Trusted relay (the paper's Figure 6): a secret hop by hop under OTP, and in most modes new keys under that secret.

On the path n0, n1, ..., nk the ranges are allocated on all links at once. In BASIC and QKP the first link's range is
the shared key S and, behind it, the new keys K. n1 holds S too, and sends it on under the pad of the next link; each
node does so until nk has S. Then n0 sends K under S to nk directly. In OTP mode K is drawn by n0 and takes the way of
S, under a pad on the first link too, and there is no second message. A message bears the ranges of the links from the
one it comes over on: what a node needs, and what it passes on. Every node erases what the ranges name on its side
before it sends anything, so that a failure half way costs material and never repeats it.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etsi.checks import integer, mapping, sequence, text, uuid_text
from etsi.errors import Malformed
from etsi.secret import Secret
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from node import told
from node.failures import MaterialExpired, NoSession, RelayBroken
from node.key_stream import KeyStore, Missing, RelayedKey
from node.modes import AES_CCM, OTP, Mode
from node.pads import CCM_TAG_BYTES, ccm_open, ccm_seal, otp
from node.performance import Performance
from node.ranges import Range
from node.routes import MAX_HOPS, Routes
from node.sessions import Association, Session, Sessions
from telemetry.journal import Journal

# A shared key whose second message never comes is dropped after this time.
_SHARED_KEY_LIFE_S = 30.0
_TIMEOUT_PER_HOP_S = 3.0
_MAX_KEY_BYTES = 1 << 20
_MAX_UNDER_WAY = 12


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
        journal: Journal,
    ) -> None:
        self._name = name
        self._nodes = nodes
        self._caller = caller
        self._store = store
        self._sessions = sessions
        self._routes = routes
        self._performance = performance
        self._journal = journal
        self._shared: dict[str, _Waiting] = {}
        self._lock = threading.Lock()
        # Each takes one of the server's threads until the next node answers. Some must be left, or two nodes that relay
        # to each other could wait for each other.
        self._under_way = threading.BoundedSemaphore(_MAX_UNDER_WAY)

    def originate(
        self,
        session: Session,
        mode: Mode,
        ranges: Sequence[Range],
        *,
        request: str,
        key_ids: Sequence[str],
        key_bytes: int,
    ) -> list[Secret]:
        """As first node: make `key_ids` of `key_bytes` each at the last node too; the keys, once it has confirmed."""
        keys = [{"key_ID": key_id, "bytes": key_bytes} for key_id in key_ids]
        first: dict[str, Any] = {
            "link": session.link, "ksid": session.ksid, "ranges": [_range_json(r) for r in ranges],
        }  # fmt: skip
        if mode.cipher is None:
            (pad,) = self._take([(ranges[0], told.PAD)], request)
            self._performance.consumed(session.link, 8 * len(pad))
            new = Secret(os.urandom(len(pad)))
            body = first | {"sealed": _encode(otp(new, pad)), "keys": keys}
            self._send(session.path[1], f"/qkd/v1/relay/{request}", body, hops=session.hops)
            pad.wipe()
            return cut(new, key_bytes)
        shared, new = self._take(told.uses(mode, ranges, key_bytes, len(key_ids))[:2], request)
        self._performance.consumed(session.link, 8 * (len(shared) + len(new)))
        first |= {"sealed": None, "keys": None}
        self._send(session.path[1], f"/qkd/v1/relay/{request}", first, hops=session.hops)
        if mode.cipher == AES_CCM:
            sealed = ccm_seal(new, shared, request, _header(request, session.ksid, keys))
        else:
            sealed = otp(new, shared)
        shared.wipe()
        body = {"ksid": session.ksid, "keys": keys, "cipher": mode.cipher, "sealed": _encode(sealed)}
        self._send(session.path[-1], f"/qkd/v1/relay/{request}/keys", body, hops=1)
        return cut(new, key_bytes)

    def forward(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As a later node: take over what is relayed and pass it on, or keep it if this is the last node."""
        link = uuid_text(document.get("link"), "link")
        onward = self._routes.next_hop(link, sender)
        ranges = _ranges(document)
        if onward is None and len(ranges) > 1:
            raise Malformed("ranges", "one range, because the link ends here")
        if onward is not None and len(ranges) == 1:
            raise Malformed("ranges", "a range for each link from here on")
        for neighbour, where in zip((sender, onward), ranges, strict=False):
            if neighbour is None or not self._routes.joins(where.qc, neighbour):
                raise Malformed("ranges.qc", f"a QC between this node and {neighbour}")
        n_bytes = len(ranges[-1])
        keys = None if document.get("keys") is None else _keys(document)
        if keys is not None and keys.n_bytes != n_bytes:
            raise Malformed("keys.bytes", f"{n_bytes} bytes in all, as on the links")
        sealed = None if document.get("sealed") is None else _decode(document["sealed"], n_bytes)
        if sealed is not None and len(ranges[0]) != n_bytes:
            raise Malformed("ranges", "a pad as long as what it seals")
        if sealed is None and onward is None:
            raise Malformed("sealed", "to be given behind the first hop")
        message = _Message(request, link, uuid_text(document.get("ksid"), "ksid"), ranges, keys, sealed)
        if onward is None:
            self._receive(message)
        elif not self._under_way.acquire(blocking=False):
            raise RelayBroken("too many keys are being relayed here at once: try again", hop=self._name)
        else:
            try:
                self._pass_on(message, document, to=onward)
            finally:
                self._under_way.release()

    def _pass_on(self, message: _Message, document: Mapping[str, Any], *, to: str) -> None:
        uses = [*message.incoming(), (message.ranges[1], told.PAD)]
        taken = self._take(uses, message.request, ranges=message.ranges[:2])
        self._performance.consumed(message.link, 8 * sum(len(r) for r in message.ranges[:2]))
        relayed = message.opened(taken[0])
        body = {
            "link": message.link, "ksid": message.ksid, "ranges": document["ranges"][1:], "keys": document.get("keys"),
            "sealed": _encode(otp(relayed, taken[1])),
        }  # fmt: skip
        for secret in (*taken, relayed):
            secret.wipe()
        self._send(to, f"/qkd/v1/relay/{message.request}", body, hops=len(message.ranges) - 1)

    def _receive(self, message: _Message) -> None:
        """As last node: keep what was relayed."""
        session = self._ends_here(message.ksid, message.link)
        (taken,) = self._take(message.incoming(), message.request)
        self._performance.consumed(message.link, 8 * len(message.ranges[0]))
        relayed = message.opened(taken)
        taken.wipe()
        qc = message.ranges[0].qc
        if message.keys is None:
            self._keep_shared(message.request, _Waiting(relayed, time.monotonic(), session.ksid, qc))
        else:
            self._keep_keys(session, message.keys, relayed, qc)

    def accept_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As last node: the new keys under the shared key of `request`, kept for the slave SAE."""
        ksid = uuid_text(document.get("ksid"), "ksid")
        session = self._ends_here(ksid, None)
        if session.master_node != sender:
            raise Malformed("ksid", f"a session from {sender} that ends at this node")
        keys = _keys(document)
        cipher = document.get("cipher")
        if cipher not in (OTP, AES_CCM):
            raise Malformed("cipher", f"{OTP} or {AES_CCM}")
        sealed = _decode(document.get("sealed"), keys.n_bytes + (CCM_TAG_BYTES if cipher == AES_CCM else 0))
        with self._lock:
            waiting = self._shared.get(request)
            if waiting is None or waiting.ksid != ksid or (cipher == OTP and len(waiting.key) != len(sealed)):
                raise Malformed("request", "a relayed shared key that fits to be waiting here")
            del self._shared[request]
        try:
            if cipher == AES_CCM:
                new = ccm_open(sealed, waiting.key, request, _header(request, session.ksid, document["keys"]))
            else:
                new = otp(sealed, waiting.key)
        except ValueError:
            raise Malformed("sealed", "what the relayed shared key opens") from None
        finally:
            waiting.key.wipe()
        self._keep_keys(session, keys, new, waiting.qc)
        self._journal.event("keys_relayed", ksid=session.ksid, request=request, key_ids=keys.key_ids)

    def _ends_here(self, ksid: str, link: str | None) -> Association:
        """The session of that KSID, whose slave is at this node and, if `link` is given, which goes over it."""
        session = self._sessions.get(ksid)
        if session is None or session.slave_node != self._name or (link is not None and link not in session.backing):
            raise NoSession("no key session of this KSID ends at this node", ksid=ksid, node=self._name)
        return session

    def _take(self, uses: Sequence[told.Use], request: str, *, ranges: Sequence[Range] | None = None) -> list[Secret]:
        """What is for these uses; in pieces of the same bytes as `ranges` has them, if these are given."""
        try:
            taken = self._store.take(ranges or [r for r, _ in uses], request)
        except Missing as missing:
            raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self._name) from None
        told.used(self._journal, request, uses)
        return taken

    def _keep_keys(self, session: Association, keys: _Keys, whole: Secret, qc: str) -> None:
        relayed = [
            RelayedKey(key_id, session.ksid, session.master_sae, session.slave_sae, key)
            for key_id, key in zip(keys.key_ids, cut(whole, keys.key_bytes), strict=True)
        ]
        self._store.put_relayed(relayed, qc)

    def _keep_shared(self, request: str, waiting: _Waiting) -> None:
        oldest = waiting.since - _SHARED_KEY_LIFE_S
        with self._lock:
            for old in [r for r, known in self._shared.items() if known.since < oldest]:
                self._shared.pop(old).key.wipe()
            self._shared[request] = waiting

    def _send(self, node: str, path: str, body: dict[str, Any], *, hops: int) -> None:
        """To `node`, which passes it on over `hops` - 1 links more."""
        timeout_s = _TIMEOUT_PER_HOP_S * hops  # outer calls outlast the inner ones
        try:
            if node not in self._nodes:
                raise Unreachable(node, "no such node is configured")
            reply = self._caller.request(
                "POST", self._nodes[node] + path, to=Identity(Role.NODE, node), body=body, timeout_s=timeout_s
            )
        except Unreachable as error:
            raise RelayBroken(f"node {node} cannot be reached: {error.reason}", hop=node) from None
        if not reply.ok:
            raise _failure_from(reply, node)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A shared key that waits for the keys under it, since when, of which session, over which QC it came."""

    key: Secret
    since: float
    ksid: str
    qc: str


@dataclass(frozen=True, slots=True)
class _Message:
    """What comes over a link of a path: ranges from this link on, keys that travel themselves, what is sealed."""

    request: str
    link: str
    ksid: str
    ranges: Sequence[Range]
    keys: _Keys | None
    sealed: Secret | None

    def incoming(self) -> list[told.Use]:
        """What the incoming link's range is for: on the first link S, and the new keys, not this node's to keep."""
        if self.sealed is not None:
            return [(self.ranges[0], told.PAD)]
        shared, new = self.ranges[0].split(len(self.ranges[-1]))
        return [(shared, told.SHARED_KEY), *([(new, told.NEW_KEYS)] if len(new) else [])]

    def opened(self, incoming: Secret) -> Secret:
        """What is relayed, from the incoming link's range: the range itself over the first link, else under it."""
        n_bytes = len(self.ranges[-1])
        # Behind S the first link's range holds the new keys, which are not this node's to keep.
        return Secret(incoming.reveal()[:n_bytes]) if self.sealed is None else otp(self.sealed, incoming)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys announced in a message: their IDs, and the size of each in bytes."""

    key_ids: list[str]
    key_bytes: int

    @property
    def n_bytes(self) -> int:
        return self.key_bytes * len(self.key_ids)


def _keys(document: Mapping[str, Any]) -> _Keys:
    entries = [mapping(e, "keys") for e in sequence(document.get("keys"), "keys", longest=4096)]
    if not entries:
        raise Malformed("keys", "at least one entry")
    sizes = [integer(e.get("bytes"), "keys.bytes", low=1, high=_MAX_KEY_BYTES) for e in entries]
    if len(set(sizes)) != 1:
        raise Malformed("keys.bytes", "the same size for all keys of a request")
    key_ids = [uuid_text(e.get("key_ID"), "keys.key_ID") for e in entries]
    if len(set(key_ids)) != len(key_ids):
        raise Malformed("keys.key_ID", "a different one for each key")
    return _Keys(key_ids, sizes[0])


def _header(request: str, ksid: str, keys: Any) -> bytes:
    """What AES-CCM authenticates beside the keys themselves: which keys, of which session, in which request."""
    return json.dumps({"request": request, "ksid": ksid, "keys": keys}, sort_keys=True).encode()


def cut(whole: Secret, key_bytes: int) -> list[Secret]:
    """`whole` as keys of `key_bytes` each; `whole` is wiped."""
    data = whole.reveal()
    whole.wipe()
    return [Secret(data[i : i + key_bytes]) for i in range(0, len(data), key_bytes)]


def _failure_from(reply: Reply, node: str) -> RelayBroken | MaterialExpired:
    """The failure that a node further on reported, so that the first node names the hop where it happened."""
    if reply.detail("cause") == MaterialExpired.cause:
        return MaterialExpired(reply.message, qc=str(reply.detail("qc")), node=str(reply.detail("node")))
    return RelayBroken(reply.message, hop=str(reply.detail("hop") or node))


def _range_json(r: Range) -> dict[str, Any]:
    return {"qc": r.qc, "start": r.start, "end": r.end}


def _ranges(document: Mapping[str, Any]) -> list[Range]:
    entries = sequence(document.get("ranges"), "ranges", longest=MAX_HOPS)
    found = []
    for i, entry in enumerate(entries):
        given = mapping(entry, f"ranges[{i}]")
        qc = text(given.get("qc"), f"ranges[{i}].qc")
        start = integer(given.get("start"), f"ranges[{i}].start", low=0, high=1 << 62)
        limit = start + 2 * _MAX_KEY_BYTES
        found.append(Range(qc, start, integer(given.get("end"), f"ranges[{i}].end", low=start, high=limit)))
    n_bytes = len(found[-1]) if found else 0
    if not n_bytes or len(found[0]) < n_bytes or any(len(r) != n_bytes for r in found[1:]):
        raise Malformed("ranges", "one at least, the same length on all links but the first, and no less there")
    return found


def _encode(sealed: Secret) -> str:
    return base64.b64encode(sealed.reveal()).decode()


def _decode(value: Any, n_bytes: int) -> Secret:
    encoded = text(value, "sealed", longest=2 * _MAX_KEY_BYTES)
    try:
        sealed = Secret(base64.b64decode(encoded, validate=True))
    except ValueError:
        raise Malformed("sealed", "base64 (RFC 4648)") from None
    if len(sealed) != n_bytes:
        raise Malformed("sealed", f"{n_bytes} bytes")
    return sealed
