"""One chunk stream (GS QKD 004's key stream): which chunk each side has had, and who makes the next one. PURE.

Theory of operation. In GS QKD 004 both applications call GET_KEY and get the same bits for the same index; neither of
them is master. Our keys have a master, which gets the key, and a slave, which fetches it by its ID. So the first side
that asks for an index is master of that chunk: it is told to MAKE it, and the other side will be told to FETCH it. Both
directions of a pair may be in use in one stream. One node keeps a stream, that of one of the sides; the other node asks
it. So the two never make two chunks of one index.

A side that asks for an index gets that one, or the next one that it has not had: no chunk is given to a side twice.
Clients that always ask for index 0 get one chunk after the other. A chunk that its other side does not fetch while the
key lives is dead for both.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

WINDOW = 1024  # how far a side may ask ahead of the first chunk that it has not had
MOST_OPEN = 256  # chunks that one side has had, and the other one has not


class Do(enum.Enum):
    """What a side that wants a chunk is to do."""

    MAKE = "make"  # it is the master of that chunk: make it, and say so, or that it could not
    FETCH = "fetch"  # the other side has made it
    WAIT = "wait"  # the other side is about to make it
    AWAIT_PEER = "await_peer"  # which has not opened the stream yet
    WAIT_FOR_PEER_TO_CATCH_UP = "full"  # it has not fetched too many chunks
    CLOSED = "closed"  # by this side, or by the other one, and there is no more chunk to fetch


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do, about which chunk; of one to fetch, its key ID, its age and the trusted nodes that it passed."""

    do: Do
    index: int
    key_id: str = ""
    age_ms: int = 0
    hops: int = 0


@dataclass(slots=True)
class _Side:
    connected: bool = False
    closed: bool = False
    first: int = 0  # the first index that it has not had
    had: set[int] = field(default_factory=set)  # those beyond

    def have(self, index: int) -> None:
        if index >= self.first:
            self.had.add(index)
        while self.first in self.had:
            self.had.remove(self.first)
            self.first += 1

    def next(self, wanted: int) -> int:
        index = max(wanted, self.first)
        while index in self.had:
            index += 1
        return index


@dataclass(slots=True)
class _Chunk:
    maker: str
    at_s: float
    key_id: str = ""  # none while it is being made
    hops: int = 0


class Stream:
    """A stream between the applications `source` and `destination`. Times in seconds, by a clock that only grows."""

    def __init__(self, source: str, destination: str) -> None:
        self._sides = {source: _Side(), destination: _Side()}
        self._chunks: dict[int, _Chunk] = {}

    def has(self, side: str) -> bool:
        """Whether that is one of its applications."""
        return side in self._sides

    def connect(self, side: str) -> None:
        """That side has opened it; once closed it stays closed."""
        self._sides[side].connected = True

    @property
    def connected(self) -> bool:
        """Whether both sides have opened it."""
        return all(side.connected for side in self._sides.values())

    @property
    def over(self) -> bool:
        """Whether nobody will ask for a chunk any more."""
        return all(side.closed or not side.connected for side in self._sides.values())

    def turn(self, side: str, wanted: int, now_s: float) -> Turn:
        """What `side`, which wants the chunk `wanted`, is to do."""
        mine, other = self._sides[side], self._other(side)
        index = mine.next(wanted)
        if mine.closed:
            return Turn(Do.CLOSED, index)
        if not other.connected:
            return Turn(Do.AWAIT_PEER, index)
        chunk = self._chunks.get(index)
        if chunk is None:
            if other.closed:
                return Turn(Do.CLOSED, index)
            if index - mine.first >= WINDOW or len(self._chunks) >= MOST_OPEN:
                return Turn(Do.WAIT_FOR_PEER_TO_CATCH_UP, index)
            self._chunks[index] = _Chunk(side, now_s)
            return Turn(Do.MAKE, index)
        if not chunk.key_id:
            return Turn(Do.WAIT, index)
        return Turn(Do.FETCH, index, chunk.key_id, int(1000 * (now_s - chunk.at_s)), chunk.hops)

    def made(self, side: str, index: int, key_id: str, hops: int, now_s: float) -> bool:
        """That side has made the chunk; False if nobody waits for it any more, and its key must go to nobody."""
        chunk = self._chunks.get(index)
        if chunk is None or chunk.maker != side or chunk.key_id:
            return False
        chunk.key_id, chunk.hops, chunk.at_s = key_id, hops, now_s
        self._sides[side].have(index)
        return True

    def failed(self, side: str, index: int) -> None:
        """That side could not make the chunk: whoever asks next may try."""
        chunk = self._chunks.get(index)
        if chunk is not None and chunk.maker == side and not chunk.key_id:
            del self._chunks[index]

    def fetched(self, side: str, index: int) -> None:
        """That side has the chunk, or cannot have it any more."""
        chunk = self._chunks.get(index)
        if chunk is not None and chunk.key_id and chunk.maker != side:
            self._dead(index)

    def close(self, side: str) -> None:
        """That side wants no more; what it has made still can be fetched."""
        self._sides[side].closed = True

    def expire(self, now_s: float, life_s: float) -> None:
        """Chunks that are older than keys live are dead, and so are those that somebody has been making for so long."""
        for index, chunk in list(self._chunks.items()):
            if now_s - chunk.at_s > life_s:
                if chunk.key_id:
                    self._dead(index)
                else:
                    del self._chunks[index]

    def _dead(self, index: int) -> None:
        del self._chunks[index]
        for side in self._sides.values():
            side.have(index)

    def _other(self, side: str) -> _Side:
        return next(found for name, found in self._sides.items() if name != side)
