"""Keys of one kind that several callers want at the same moment are made in one go.

The first caller begins at once. Those who come while it is at work wait, and the next of them makes keys for all: one
allocation and one commit where there would have been one each.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable

from documents.secret import Secret
from node.failures import ShortOfMaterial

Keys = list[tuple[str, Secret]]


class _Caller:
    def __init__(self, number: int) -> None:
        self.number = number
        # Of one who waits: held until `keys` or `failure` is there, or this caller is to make keys, which is once.
        self.turn: threading.Lock | None = None
        self.keys: Keys | None = None
        self.failure: Exception | None = None


class Together:
    """Callers of `make` by kind; `most` is the largest number of keys made in one go. Thread-safe.

    `ready` raises if it is too late for the caller whose turn it is to make keys: then it makes none for others either.
    """

    def __init__(self, most: int, *, ready: Callable[[], None] = lambda: None) -> None:
        self._most = most
        self._ready = ready
        self._lock = threading.Lock()
        self._queues: dict[Hashable, deque[_Caller]] = {}  # a kind is in it while somebody makes keys of it

    def make(self, kind: Hashable, number: int, make: Callable[[int], Keys]) -> Keys:
        """`number` keys out of what `make(total)` gives for a whole group; raises what it raises."""
        me = _Caller(number)
        with self._lock:
            queue = self._queues.get(kind)
            if queue is None:
                self._queues[kind] = deque()
            else:
                me.turn = threading.Lock()  # an event would be several of them
                me.turn.acquire()
                queue.append(me)
        if me.turn is not None:
            me.turn.acquire()
        if me.keys is None and me.failure is None:
            self._lead(kind, me, make)
        if isinstance(me.failure, ShortOfMaterial):
            return make(number)  # too little for all, but perhaps enough for this one
        if me.failure is not None:
            raise me.failure
        return me.keys or []

    def _lead(self, kind: Hashable, me: _Caller, make: Callable[[int], Keys]) -> None:
        group = [me]
        try:
            self._ready()
            group += self._followers(kind, me.number)
            keys = make(sum(caller.number for caller in group))
            for caller in group:
                caller.keys, keys = keys[: caller.number], keys[caller.number :]
        except Exception as failure:
            if len(group) == 1:
                raise
            for caller in group:
                caller.failure = failure
        finally:
            self._hand_over(kind)
            for caller in group[1:]:
                _wake(caller)

    def _followers(self, kind: Hashable, number: int) -> list[_Caller]:
        """Those whose keys can be made along with the leader's `number`, in the order in which they came."""
        found: list[_Caller] = []
        with self._lock:
            queue = self._queues[kind]
            while queue and number + queue[0].number <= self._most:
                found.append(queue.popleft())
                number += found[-1].number
        return found

    def _hand_over(self, kind: Hashable) -> None:
        with self._lock:
            if self._queues[kind]:
                _wake(self._queues[kind].popleft())
            else:
                del self._queues[kind]


def _wake(caller: _Caller) -> None:
    if caller.turn is not None:
        caller.turn.release()
