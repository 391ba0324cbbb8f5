"""Trusted relay in BASIC mode (the paper's Figure 6): a shared key hop by hop under OTP, the new key under that one.

On the path n0, n1, ..., nk the ranges are allocated on all links at once. On the first link twice the key's length:
the first half is the shared key S, the second half the new key K. n1 holds S too, and sends it on under the pad of
the next link; each node does so until nk has S. Then n0 sends K under S to nk directly. Every node erases what the
ranges name on its side before it sends anything, so that a failure half way costs material and never repeats it.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etsi.checks import integer, mapping, sequence, text, uuid_text
from etsi.errors import Malformed
from etsi.secret import Secret
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from node.failures import MaterialExpired, NoSession, RelayBroken
from node.key_stream import KeyStore, Missing, RelayedKey
from node.pads import otp
from node.ranges import Range
from node.sessions import Session, Sessions
from telemetry.journal import Journal

# A shared key whose second message never comes is dropped after this time.
_SHARED_KEY_LIFE_S = 30.0
_TIMEOUT_PER_HOP_S = 3.0
_MAX_KEY_BYTES = 1 << 20


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
        journal: Journal,
    ) -> None:
        self._name = name
        self._nodes = nodes
        self._caller = caller
        self._store = store
        self._sessions = sessions
        self._journal = journal
        self._shared: dict[str, tuple[Secret, float]] = {}
        self._lock = threading.Lock()

    def originate(
        self, session: Session, request: str, key_ids: Sequence[str], key_bytes: int, ranges: Sequence[Range]
    ) -> list[Secret]:
        """As first node: make `key_ids` of `key_bytes` each at the last node too; the keys, once it has confirmed."""
        n_bytes = key_bytes * len(key_ids)
        shared, new = self._take(ranges[0].split(n_bytes))
        body = {"ksid": session.ksid, "ranges": [_range_json(r) for r in ranges], "sealed": None}
        self._send(session, 1, f"/qkd/v1/relay/{request}", body)
        keys = [{"key_ID": key_id, "bytes": key_bytes} for key_id in key_ids]
        body = {"ksid": session.ksid, "keys": keys, "sealed": _encode(otp(new, shared))}
        self._send(session, session.hops, f"/qkd/v1/relay/{request}/keys", body)
        shared.wipe()
        return cut(new, key_bytes)

    def forward(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As a later node: take over the shared key and pass it on, or keep it if this is the last node."""
        session = self._session(document)
        at = session.path.index(self._name)
        if at == 0 or session.path[at - 1] != sender:
            raise Malformed("ksid", f"a session whose path leads from {sender} to this node")
        ranges = _ranges(document, session)
        n_bytes = len(ranges[1])
        outgoing = ranges[at : at + 1]  # empty at the last node
        taken = self._take([ranges[at - 1], *outgoing])
        if at == 1:
            shared = Secret(taken[0].reveal()[:n_bytes])  # the second half is the new key: not this node's to keep
        else:
            shared = otp(_decode(document.get("sealed"), n_bytes), taken[0])
        taken[0].wipe()
        if not outgoing:
            self._keep_shared(request, shared)
            self._journal.event("relay_received", ksid=session.ksid, request=request)
            return
        body = {"ksid": session.ksid, "ranges": document["ranges"], "sealed": _encode(otp(shared, taken[1]))}
        taken[1].wipe()
        shared.wipe()
        self._send(session, at + 1, f"/qkd/v1/relay/{request}", body)
        self._journal.event("relay_forwarded", ksid=session.ksid, request=request, to=session.path[at + 1])

    def accept_keys(self, sender: str, request: str, document: Mapping[str, Any]) -> None:
        """As last node: the new keys under the shared key of `request`, kept for the slave SAE."""
        session = self._session(document)
        if session.path[-1] != self._name or session.path[0] != sender:
            raise Malformed("ksid", f"a session from {sender} that ends at this node")
        entries = [mapping(e, "keys") for e in sequence(document.get("keys"), "keys", longest=4096)]
        if not entries:
            raise Malformed("keys", "at least one entry")
        sizes = [integer(e.get("bytes"), "keys.bytes", low=1, high=_MAX_KEY_BYTES) for e in entries]
        if len(set(sizes)) != 1:
            raise Malformed("keys.bytes", "the same size for all keys of a request")
        key_ids = [uuid_text(e.get("key_ID"), "keys.key_ID") for e in entries]
        sealed = _decode(document.get("sealed"), sum(sizes))
        with self._lock:
            shared, _ = self._shared.pop(request, (None, 0.0))
        if shared is None or len(shared) != len(sealed):
            raise Malformed("request", "a relayed shared key of the same length to be waiting here")
        keys = cut(otp(sealed, shared), sizes[0])
        shared.wipe()
        relayed = [
            RelayedKey(key_id, session.ksid, session.master_sae, session.slave_sae, key)
            for key_id, key in zip(key_ids, keys, strict=True)
        ]
        self._store.put_relayed(relayed, session.qcs[-1])
        self._journal.event("keys_relayed", ksid=session.ksid, request=request, key_ids=key_ids)

    def _session(self, document: Mapping[str, Any]) -> Session:
        ksid = uuid_text(document.get("ksid"), "ksid")
        session = self._sessions.get(ksid)
        if session is None or self._name not in session.path:
            raise NoSession("no key session of this KSID runs over this node", ksid=ksid, node=self._name)
        return session

    def _take(self, ranges: Sequence[Range]) -> list[Secret]:
        try:
            return self._store.take(ranges)
        except Missing as missing:
            raise MaterialExpired(str(missing), qc=missing.wanted.qc, node=self._name) from None

    def _keep_shared(self, request: str, shared: Secret) -> None:
        now = time.monotonic()
        with self._lock:
            for old in [r for r, (_, since) in self._shared.items() if now - since > _SHARED_KEY_LIFE_S]:
                self._shared.pop(old)[0].wipe()
            self._shared[request] = (shared, now)

    def _send(self, session: Session, to: int, path: str, body: dict[str, Any]) -> None:
        node = session.path[to]
        timeout_s = _TIMEOUT_PER_HOP_S * (session.hops - to + 1)  # outer calls outlast the inner ones
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


def _ranges(document: Mapping[str, Any], session: Session) -> list[Range]:
    entries = sequence(document.get("ranges"), "ranges", longest=session.hops)
    if len(entries) != session.hops or session.hops < 2:
        raise Malformed("ranges", "one a link of the session's path, which has several")
    found = []
    for i, entry in enumerate(entries):
        given = mapping(entry, f"ranges[{i}]")
        if text(given.get("qc"), f"ranges[{i}].qc") != session.qcs[i]:
            raise Malformed(f"ranges[{i}].qc", session.qcs[i])
        start = integer(given.get("start"), f"ranges[{i}].start", low=0, high=1 << 62)
        limit = start + 2 * _MAX_KEY_BYTES
        found.append(Range(session.qcs[i], start, integer(given.get("end"), f"ranges[{i}].end", low=start, high=limit)))
    n_bytes = len(found[1])
    if [len(r) for r in found] != [2 * n_bytes] + [n_bytes] * (session.hops - 1) or not n_bytes:
        raise Malformed("ranges", "twice the key's length on the first link and the key's length on every other")
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
