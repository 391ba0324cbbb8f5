"""What nodes tell one another while they relay keys: its documents, and what is checked of them. PURE."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decisions.modes import NEW_KEYS, PAD, SHARED_KEY
from decisions.ranges import Range
from documents.checks import Malformed, integer, mapping, sequence, text, uuid_text
from documents.secret import Secret
from mtls.call import Reply
from node.associations.sessions import Association
from node.failures import MaterialExpired, RelayAltered, RelayBroken
from node.limits import MAX_HOPS
from node.material import key_events
from node.relaying.ciphers import otp

MAX_KEY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """What comes over a link of a path: ranges from this link on, and what is sealed.

    `server` allocated the ranges; `position`: of the link on the path, from 1 on; `proof`: see
    `node.relaying.ciphers`.
    """

    request: str
    link: str
    ksid: str
    server: str
    position: int
    ranges: Sequence[Range]
    proof: str
    sealed: Secret | None

    @property
    def hops(self) -> int:
        """How many links the path has."""
        return self.position + len(self.ranges) - 1

    @property
    def n_bytes(self) -> int:
        """How many bytes are relayed."""
        return min(len(r) for r in self.ranges) if self.sealed is None else len(self.sealed)

    def incoming(self) -> list[key_events.Use]:
        """What the incoming link's range is for: S itself on the first link, else its pad; new keys may lie behind."""
        return self._uses(self.ranges[0], SHARED_KEY if self.sealed is None else PAD)

    def outgoing(self) -> list[key_events.Use]:
        """What the next link's range is for."""
        return self._uses(self.ranges[1], PAD)

    def _uses(self, where: Range, purpose: str) -> list[key_events.Use]:
        relayed, new = where.split(self.n_bytes)
        return [(relayed, purpose), *([(new, NEW_KEYS)] if len(new) else [])]

    def opened(self, incoming: Secret) -> Secret:
        """What is relayed, from the incoming link's range: the range itself over the first link, else under it.

        New keys that lie behind it are those of the nodes at the path's ends: a node between does not keep them.
        """
        here = Secret(incoming.reveal()[: self.n_bytes])
        if self.sealed is None:
            return here
        opened = otp(self.sealed, here)
        here.wipe()
        return opened

    def resealed(self, relayed: Secret, outgoing: Secret) -> Secret:
        """What is relayed, under the pad of the next link's range."""
        pad = Secret(outgoing.reveal()[: self.n_bytes])
        sealed = otp(relayed, pad)
        pad.wipe()
        return sealed

    def new_keys(self, incoming: Secret) -> Secret:
        """What lies in the incoming link's range behind the relayed key or its pad; perhaps nothing."""
        return Secret(incoming.reveal()[self.n_bytes :])


@dataclass(frozen=True, slots=True)
class Announced:
    """Keys that a first node tells the last one of: in which request, of which session, IDs, bytes of each.

    `keys`: the same as the message has it.
    """

    request: str
    session: Association
    key_ids: Sequence[str]
    key_bytes: int
    keys: Sequence[Mapping[str, Any]]
    made: float  # by this node's clock; how long the message was on its way is not known

    @property
    def n_bytes(self) -> int:
        return self.key_bytes * len(self.key_ids)

    @property
    def header(self) -> bytes:
        return self.header_of(0)

    def header_of(self, part: int) -> bytes:
        """What is authenticated beside that part of the keys."""
        return header_of(self.request, self.session.ksid, self.keys, part)


def keys_named(document: Mapping[str, Any]) -> tuple[list[str], int]:
    """The IDs of the keys that a message names, and the bytes of each."""
    entries = [mapping(e, "keys") for e in sequence(document.get("keys"), "keys", longest=4096)]
    if not entries:
        raise Malformed("keys", "at least one entry")
    sizes = [integer(e.get("bytes"), "keys.bytes", low=1, high=MAX_KEY_BYTES) for e in entries]
    if len(set(sizes)) != 1:
        raise Malformed("keys.bytes", "the same size for all keys of a request")
    key_ids = [uuid_text(e.get("key_ID"), "keys.key_ID") for e in entries]
    if len(set(key_ids)) != len(key_ids):
        raise Malformed("keys.key_ID", "a different one for each key")
    return key_ids, sizes[0]


def header_of(request: str, ksid: str, keys: Any, part: int = 0) -> bytes:
    """What is authenticated beside the keys, or a part of them: which keys, of which session, in which request."""
    facts = {"request": request, "ksid": ksid, "keys": keys} | ({"part": part} if part else {})
    return json.dumps(facts, sort_keys=True).encode()


def cut(whole: Secret, key_bytes: int) -> list[Secret]:
    """`whole` as keys of `key_bytes` each; `whole` is wiped."""
    data = whole.reveal()
    whole.wipe()
    return [Secret(data[i : i + key_bytes]) for i in range(0, len(data), key_bytes)]


def range_json(r: Range) -> dict[str, Any]:
    """A range as a message bears it."""
    return {"qc": r.qc, "epoch": r.epoch, "start": r.start, "end": r.end}


def ranges_named(document: Mapping[str, Any]) -> list[Range]:
    """The ranges that a message bears, those of its links from the one on that it came over."""
    entries = sequence(document.get("ranges"), "ranges", longest=MAX_HOPS)
    found = []
    for i, entry in enumerate(entries):
        given = mapping(entry, f"ranges[{i}]")
        qc = text(given.get("qc"), f"ranges[{i}].qc")
        epoch = integer(given.get("epoch"), f"ranges[{i}].epoch", low=0, high=(1 << 63) - 1)
        start = integer(given.get("start"), f"ranges[{i}].start", low=0, high=1 << 62)
        limit = start + 2 * MAX_KEY_BYTES
        end = integer(given.get("end"), f"ranges[{i}].end", low=start, high=limit)
        found.append(Range(qc, start, end, epoch))
    lengths = [len(r) for r in found]
    longer = [hop for hop, n in enumerate(lengths) if n > min(lengths)]
    if not lengths or not min(lengths) or longer not in ([], [0], [len(lengths) - 1]):
        raise Malformed("ranges", "one at least, all as long as one another, but for the first or the last, if longer")
    return found


def encoded(sealed: Secret) -> str:
    """Bytes as a message bears them."""
    return base64.b64encode(sealed.reveal()).decode()


def decoded(value: Any, field: str, n_bytes: int, *, or_fewer: bool = False) -> Secret:
    """The bytes that a message bears there; Malformed unless there are so many, or fewer if that may be."""
    given = text(value, field, longest=2 * MAX_KEY_BYTES)
    try:
        found = Secret(base64.b64decode(given, validate=True))
    except ValueError:
        raise Malformed(field, "base64 (RFC 4648)") from None
    if len(found) != n_bytes and not (or_fewer and 0 < len(found) < n_bytes):
        raise Malformed(field, f"{n_bytes} bytes{' or fewer' if or_fewer else ''}")
    return found


def failure_from(reply: Reply, node: str) -> RelayBroken | RelayAltered | MaterialExpired:
    """The failure that a node further on reported, so that the first node names the one at which it happened."""
    if reply.detail("cause") == MaterialExpired.cause:
        return MaterialExpired(reply.message, qc=str(reply.detail("qc")), node=str(reply.detail("node")))
    if reply.detail("cause") == RelayAltered.cause:
        return RelayAltered(str(reply.detail("path")))
    return RelayBroken(reply.message, node=str(reply.detail("node") or node))
