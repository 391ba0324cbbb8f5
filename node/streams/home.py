"""The chunk streams that this node keeps: each is kept by the node of one of its two applications. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from documents.checks import Malformed, integer, text, uuid_text
from etsi.gs004_wire import StreamQoS, qos_from_json
from etsi.sae_id import sae_id
from node.limits import STREAM_IDLE_S, STREAMS_PER_SAE
from node.streams.stream import Stream

_MOST_INDEX = (1 << 32) - 1
_MOST_HOPS = 1 << 10


class _Kept:
    """A stream, who began it, with which quality of service, and when somebody asked something of it last."""

    def __init__(self, stream: Stream, began: str, qos: StreamQoS, used_s: float) -> None:
        self.stream = stream
        self.began = began
        self.qos = qos
        self.used_s = used_s


class HomeStreams:
    """`life_s()`: how long a key lives, in seconds; `now` gives seconds that only grow."""

    def __init__(self, *, life_s: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self._life_s = life_s
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def step(self, ksid: str, step: str, side: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the application `side`, at this node or at another, does to the stream `ksid`; Malformed.

        `open`: {peer, qos, create}. `turn`: {index}. `made`: {index, key_id, hops}. `failed`, `fetched`: {index}.
        `close`: {}. The answer has `known: false` where there is no such stream of that application.
        """
        take = {
            "open": self._open, "turn": self._turn, "made": self._made, "failed": self._failed,
            "fetched": self._fetched, "close": self._close,
        }.get(step)  # fmt: skip
        if take is None:
            raise Malformed("step", "open, turn, made, failed, fetched or close")
        with self._lock:
            now = self._now()
            kept = self._kept.get(ksid)
            if kept is None and step == "open" and body.get("create") is True:
                kept = self._begin(ksid, side, body, now)
            if kept is None:
                return {"known": False}
            if not kept.stream.has(side):
                return {"known": False, "in_use": True}
            kept.used_s = now
            kept.stream.expire(now, self._life_s())
            answer = {"known": True, **take(kept, side, body, now)}
            if kept.stream.over:
                del self._kept[ksid]
            return answer

    def _begin(self, ksid: str, side: str, body: Mapping[str, Any], now: float) -> _Kept | None:
        for old, kept in list(self._kept.items()):
            if now - kept.used_s > STREAM_IDLE_S:
                del self._kept[old]
        if sum(kept.began == side for kept in self._kept.values()) >= STREAMS_PER_SAE:
            return None
        peer, qos = sae_id(body.get("peer"), "peer"), body.get("qos")
        if peer == side or not isinstance(qos, dict):
            raise Malformed("peer, qos", "another application, and a quality of service")
        kept = self._kept[ksid] = _Kept(Stream(side, peer), side, qos_from_json(qos), now)
        return kept

    def _open(self, kept: _Kept, side: str, body: Mapping[str, Any], _: float) -> dict[str, Any]:
        if not kept.stream.has(sae_id(body.get("peer"), "peer")):
            return {"in_use": True}
        kept.stream.connect(side)
        return {"connected": kept.stream.connected, "qos": asdict(kept.qos), "began": kept.began == side}

    def _turn(self, kept: _Kept, side: str, body: Mapping[str, Any], now: float) -> dict[str, Any]:
        turn = kept.stream.turn(side, _index(body), now)
        return asdict(turn) | {"do": turn.do.value}

    def _made(self, kept: _Kept, side: str, body: Mapping[str, Any], now: float) -> dict[str, Any]:
        key_id = uuid_text(body.get("key_id"), "key_id")
        hops = integer(body.get("hops"), "hops", low=0, high=_MOST_HOPS)
        return {"taken": kept.stream.made(side, _index(body), key_id, hops, now)}

    def _failed(self, kept: _Kept, side: str, body: Mapping[str, Any], _: float) -> dict[str, Any]:
        kept.stream.failed(side, _index(body))
        return {}

    def _fetched(self, kept: _Kept, side: str, body: Mapping[str, Any], _: float) -> dict[str, Any]:
        kept.stream.fetched(side, _index(body))
        return {}

    def _close(self, kept: _Kept, side: str, _: Mapping[str, Any], __: float) -> dict[str, Any]:
        kept.stream.close(side)
        return {}


def side_of(body: Mapping[str, Any]) -> str:
    """The application that a request of another node speaks of; Malformed."""
    return text(body.get("side"), "side", longest=128)


def _index(body: Mapping[str, Any]) -> int:
    return integer(body.get("index"), "index", low=0, high=_MOST_INDEX)
