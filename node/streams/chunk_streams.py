"""Use cases of GS QKD 004 for the SAEs of this node: OPEN_CONNECT, GET_KEY, CLOSE. No sockets here.

A stream is kept by one node (`node.streams.home`): where the stream ID came from a key manager, by that one; where the
two applications have agreed on an ID, by the node of the application whose ID comes first. The other node asks it.
Keys themselves go their usual ways: what one side makes, it gets as a master does, and the other fetches it as a slave.
So a chunk is a key like any other to admission, audit and stories.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from documents.checks import Malformed, integer, uuid_text
from documents.secret import Secret
from etsi import gs004_wire as wire
from etsi.gs004 import QoS
from etsi.gs004_wire import JSON, NO_KSID, Close, GetKey, OpenConnect, Service, Status, StreamQoS
from etsi.gs014 import KeyRequest, Limits
from etsi.sae_id import from_uri
from mtls import deadline
from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from node.failures import KeyFailure, OverBandwidth, SessionRefused, ShortOfMaterial, TooLate
from node.limits import ANSWER_S, STREAM_TIMEOUT_S, STREAMS_PER_SAE
from node.serving.fetching import Unauthorized
from node.serving.handing_out import Exchange, HandingOut
from node.serving.kme import Kme
from node.streams.home import HomeStreams
from node.streams.stream import Do, Turn

_LOOK_S = 0.05  # between two looks at whether the other side has made a chunk, or has come
_USUAL_TIMEOUT_MS = 5000
_USUAL_S = QoS().interval_s
# What metadata may take, bytes: a client that has room for less is told so before anything is used.
METADATA_BYTES = len(json.dumps({"age": (1 << 32) - 1, "hops": 1000}))
_TOO_LITTLE_LOOK_S = 0.25  # and between two tries to make one for which there was too little key material


@dataclass(frozen=True, slots=True)
class _Joined:
    """A stream that an SAE of this node has opened: which node keeps it, who the two are, and what was agreed."""

    home: str
    sae: str
    peer: str
    qos: StreamQoS


class _Away(Exception):
    """The node that keeps the stream does not answer, or not as one does."""


class _Held:
    """An exchange of which nobody is told yet what becomes of it."""

    def __init__(self, exchange: Exchange) -> None:
        self.arrived = exchange.arrived
        self.taken = self.lost = _nothing

    def tell_outcome(self, taken: Callable[[], None], lost: Callable[[], None]) -> None:
        """Call one of them later."""
        self.taken, self.lost = taken, lost


class ChunkStreams:
    """The streams of the SAEs of node `name`. `nodes`: agents' URLs; `saes`: SAE to node. Thread-safe."""

    def __init__(
        self,
        name: str,
        *,
        saes: Mapping[str, str],
        nodes: Mapping[str, str],
        limits: Limits,
        caller: Caller,
        kme: Kme,
        home: HomeStreams,
        keys: HandingOut,
        life_s: Callable[[], float],
    ) -> None:
        self._name = name
        self._saes = saes
        self._nodes = nodes
        self._limits = limits
        self._caller = caller
        self._kme = kme
        self._home = home
        self._keys = keys
        self._life_s = life_s
        self._lock = threading.Lock()
        self._joined: dict[tuple[str, str], _Joined] = {}  # by KSID and SAE

    def answer(self, sae: str, request: OpenConnect | GetKey | Close, exchange: Exchange) -> bytes:
        """The message that answers what `sae` asks for. `exchange`: to be told what becomes of it."""
        match request:
            case OpenConnect():
                return self._open(sae, request)
            case GetKey():
                return self._get_key(sae, request, exchange)
            case Close():
                return self._close(sae, request)

    def _open(self, sae: str, wanted: OpenConnect) -> bytes:
        pair = from_uri(wanted.source), from_uri(wanted.destination)
        if sae not in pair or len(set(pair)) < 2:
            return wire.said(Service.OPEN_CONNECT_ANSWER, Status.NO_CONNECTION)
        peer = pair[1] if sae == pair[0] else pair[0]
        if self._saes.get(sae) != self._name or self._saes.get(peer) in (None, self._name):
            return wire.said(Service.OPEN_CONNECT_ANSWER, Status.NO_CONNECTION)
        offered = self._offer(wanted.qos)
        if (offered.key_chunk_size, offered.metadata_mimetype) != (
            wanted.qos.key_chunk_size or offered.key_chunk_size, wanted.qos.metadata_mimetype
        ):  # fmt: skip
            return wire.opened(Status.QOS_NOT_MET, offered, NO_KSID)
        until = time.monotonic() + offered.timeout_ms / 1000
        try:
            with deadline.until(time.monotonic() + max(ANSWER_S, offered.timeout_ms / 1000)):
                return self._join(sae, peer, wanted.key_stream_id, offered, until)
        except SessionRefused as refused:
            needed, left = refused.facts.get("needed_bytes"), refused.facts.get("available_bytes")
            if not isinstance(needed, int) or not isinstance(left, int) or needed <= 0:
                return wire.said(Service.OPEN_CONNECT_ANSWER, Status.NO_CONNECTION)
            there_is = max(0, offered.min_bps * left // needed)
            return wire.opened(Status.QOS_NOT_MET, replace(offered, min_bps=there_is, max_bps=there_is), NO_KSID)
        except (KeyFailure, Malformed, _Away):
            return wire.said(Service.OPEN_CONNECT_ANSWER, Status.NO_CONNECTION)

    def _join(self, sae: str, peer: str, ksid: str, offered: StreamQoS, until: float) -> bytes:
        """KeyFailure where the key session of a new stream is refused; _Away, Malformed."""
        body = {"peer": peer, "qos": asdict(offered), "create": False}
        agreed = ksid != NO_KSID
        if agreed:
            home, found = self._find(sae, peer, ksid, body)
        else:
            ksid, home = str(uuid.uuid4()), self._name
            found = self._ask(home, ksid, "open", sae, body | {"create": True})
        if found.get("in_use"):
            return wire.said(Service.OPEN_CONNECT_ANSWER, Status.KSID_IN_USE)
        if not found["known"] or not isinstance(found.get("qos"), dict):
            return wire.said(Service.OPEN_CONNECT_ANSWER, Status.NO_CONNECTION)
        qos = wire.qos_from_json(found["qos"])
        if found.get("began"):
            try:
                self._kme.session(sae, peer, 8 * qos.key_chunk_size, interval_s=_interval_s(qos))
            except KeyFailure:
                self._ask(home, ksid, "close", sae, {})
                raise
        with self._lock:
            if sum(joined.sae == sae for joined in self._joined.values()) >= 2 * STREAMS_PER_SAE:
                self._joined.pop(next(key for key, joined in self._joined.items() if joined.sae == sae))
            self._joined[ksid, sae] = _Joined(home, sae, peer, qos)
        while agreed and not found.get("connected") and time.monotonic() < until:
            time.sleep(_LOOK_S)
            found = self._ask(home, ksid, "open", sae, body)
        # Who asked for an ID has to tell its peer before that one can come: nothing is waited for.
        alone = agreed and not found.get("connected")
        return wire.opened(Status.PEER_NOT_CONNECTED if alone else Status.SUCCESS, qos, ksid)

    def _find(self, sae: str, peer: str, ksid: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The node that keeps the stream of an ID that both applications know, and its answer."""
        there = self._saes[peer]
        for home in (self._name, there):
            found = self._ask(home, ksid, "open", sae, body)
            if found["known"] or found.get("in_use"):
                return home, found
        home = self._saes[min(sae, peer)]
        return home, self._ask(home, ksid, "open", sae, body | {"create": True})

    def _get_key(self, sae: str, asked: GetKey, exchange: Exchange) -> bytes:
        with self._lock:
            joined = self._joined.get((asked.key_stream_id, sae))
        if joined is None:
            return wire.said(Service.GET_KEY_ANSWER, Status.NO_PEER_YET)
        wants = bool(asked.metadata_size and joined.qos.metadata_mimetype)
        if wants and asked.metadata_size < METADATA_BYTES:
            return wire.metadata_too_small(METADATA_BYTES)
        until = time.monotonic() + joined.qos.timeout_ms / 1000
        status = Status.TIMEOUT
        while True:
            try:
                turn = _turn(self._ask(joined.home, asked.key_stream_id, "turn", sae, {"index": asked.index}))
                with deadline.until(time.monotonic() + ANSWER_S):
                    chunk = self._chunk(asked.key_stream_id, joined, turn, exchange)
                if isinstance(chunk, Secret):
                    about = {"age": turn.age_ms, "hops": turn.hops} if turn.do is Do.FETCH else {"age": 0}
                    return _key(turn.index, chunk, about if wants else None)
                status = chunk
            except (_Away, Malformed):
                status = Status.NO_CONNECTION
            if status in (Status.NO_CONNECTION, Status.NOT_OPEN) or time.monotonic() >= until:
                break
            time.sleep(_TOO_LITTLE_LOOK_S if status is Status.TOO_LITTLE_KEY else _LOOK_S)
        return wire.said(Service.GET_KEY_ANSWER, Status.NO_PEER_YET if status is Status.NOT_OPEN else status)

    def _chunk(self, ksid: str, joined: _Joined, turn: Turn, exchange: Exchange) -> Secret | Status:
        """The key that is that chunk, or why there is none now."""
        where = {"index": turn.index}
        if turn.do is Do.MAKE:
            return self._made(ksid, joined, turn.index, exchange)
        if turn.do is Do.FETCH:
            try:
                ((_, key),) = self._keys.to_slave(joined.sae, joined.peer, [turn.key_id], exchange)
            except (Malformed, Unauthorized):
                self._ask(joined.home, ksid, "fetched", joined.sae, where)  # nobody will have it any more
                return Status.TOO_LITTLE_KEY
            except KeyFailure as failure:
                if failure.status == 400:
                    self._ask(joined.home, ksid, "fetched", joined.sae, where)
                return Status.TOO_LITTLE_KEY
            self._ask(joined.home, ksid, "fetched", joined.sae, where)
            return key
        return {
            Do.WAIT: Status.TIMEOUT, Do.AWAIT_PEER: Status.NO_PEER_YET,
            Do.WAIT_FOR_PEER_TO_CATCH_UP: Status.TOO_LITTLE_KEY, Do.CLOSED: Status.NOT_OPEN,
        }[turn.do]  # fmt: skip

    def _made(self, ksid: str, joined: _Joined, index: int, exchange: Exchange) -> Secret | Status:
        """A new key for that chunk. The other side hears of it before this one has it, and nobody has it otherwise."""
        request, held = KeyRequest(1, 8 * joined.qos.key_chunk_size), _Held(exchange)
        try:
            handed = self._keys.to_master(joined.sae, joined.peer, request, held)
        except (KeyFailure, Malformed) as failure:
            self._ask(joined.home, ksid, "failed", joined.sae, {"index": index})
            short = isinstance(failure, ShortOfMaterial | OverBandwidth | TooLate)
            return Status.TOO_LITTLE_KEY if short else Status.NO_CONNECTION
        ((key_id, key),) = handed.keys
        try:
            body = {"index": index, "key_id": key_id, "hops": max(0, handed.hops - 1)}
            taken = self._ask(joined.home, ksid, "made", joined.sae, body).get("taken") is True
        except (_Away, Malformed):
            taken = False
        if not taken:
            key.wipe()
            held.lost()
            return Status.TOO_LITTLE_KEY
        exchange.tell_outcome(held.taken, held.lost)
        return key

    def _close(self, sae: str, asked: Close) -> bytes:
        with self._lock:
            joined = self._joined.pop((asked.key_stream_id, sae), None)
        if joined is None:
            return wire.said(Service.CLOSE_ANSWER, Status.NOT_OPEN)
        with contextlib.suppress(_Away, Malformed):  # it forgets streams that nobody uses
            self._ask(joined.home, asked.key_stream_id, "close", sae, {})
        return wire.said(Service.CLOSE_ANSWER, Status.SUCCESS)

    def _offer(self, wanted: StreamQoS) -> StreamQoS:
        """The closest quality of service that there is (clause 6.1); what was left empty is chosen here."""
        least, most = -(-self._limits.min_key_size // 8), self._limits.max_key_size // 8
        chunk = wanted.key_chunk_size or self._limits.key_size // 8
        life_s = int(self._life_s())
        return replace(
            wanted,
            key_chunk_size=min(max(chunk, least), most),
            timeout_ms=min(wanted.timeout_ms or _USUAL_TIMEOUT_MS, int(1000 * STREAM_TIMEOUT_S)),
            ttl_s=min(wanted.ttl_s or life_s, life_s),
            metadata_mimetype=wanted.metadata_mimetype and JSON,
        )

    def _ask(self, home: str, ksid: str, step: str, side: str, body: dict[str, Any]) -> dict[str, Any]:
        """A step of a stream, at the node that keeps it; _Away."""
        if home == self._name:
            return self._home.step(ksid, step, side, body)
        url = f"{self._nodes[home]}/qkd/v1/streams/{ksid}/{step}"
        try:
            reply = self._caller.request("POST", url, to=Identity(Role.NODE, home), body=body | {"side": side})
        except Unreachable:
            raise _Away from None
        if not reply.ok or not isinstance(reply.body, dict) or not isinstance(reply.body.get("known"), bool):
            raise _Away
        return reply.body


def _turn(document: dict[str, Any]) -> Turn:
    """A turn as the node that keeps the stream tells it; Malformed."""
    if not document["known"]:
        return Turn(Do.CLOSED, 0)
    try:
        do = Do(document.get("do"))
    except ValueError:
        raise Malformed("do", "what a side is to do") from None
    index, age, hops = (integer(document.get(m), m, low=0, high=(1 << 32) - 1) for m in ("index", "age_ms", "hops"))
    return Turn(do, index, uuid_text(document.get("key_id"), "key_id") if do is Do.FETCH else "", age, hops)


def _key(index: int, chunk: Secret, about: dict[str, int] | None) -> bytes:
    """The answer with that chunk, after which nobody here needs it: it is wiped."""
    message = wire.key(index, chunk, b"" if about is None else json.dumps(about).encode())
    chunk.wipe()
    return message


def _interval_s(qos: StreamQoS) -> float:
    """How often a chunk is needed, by the bandwidth that the application needs at least; the usual one if it has none.
    """
    return _USUAL_S if not qos.min_bps else min(max(8 * qos.key_chunk_size / qos.min_bps, 0.001), 86_400.0)


def _nothing() -> None:
    """What to do for a key that was not handed out."""
