"""Registrations that were taken back: told to the controller until it has confirmed it, or has dropped them by itself.

A word may go into a connection whose other side is gone. The controller would then go on having half a key session,
and whoever registers the other half would get one whose peer does not want it any more. A node that restarts tells of
none: it has forgotten who waited, too.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from node import limits
from node.tree.notifications import EXTENDED, Streams

_Pair = tuple[str, str]  # master, slave


@dataclass(slots=True)
class _Withdrawn:
    """`name`: by which it is confirmed. `told`: when last, and to which of the controllers that came; None: not yet."""

    name: str
    since: float
    told: tuple[float, int] | None = None


class Withdrawals:
    """`say` tells the controller that a pair's registration is withdrawn, and under which name. Thread-safe.

    `now` gives seconds that only grow.
    """

    def __init__(
        self, streams: Streams, say: Callable[[str, str, str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._streams = streams
        self._say = say
        self._now = now
        self._lock = threading.Lock()
        self._withdrawn: dict[_Pair, _Withdrawn] = {}  # the oldest first
        streams.on_controller(self.tell)

    def add(self, pair: _Pair) -> None:
        """The pair's registration is taken back."""
        with self._lock:
            self._withdrawn.pop(pair, None)
            if len(self._withdrawn) >= limits.MOST_PENDING:
                del self._withdrawn[next(iter(self._withdrawn))]
            self._withdrawn[pair] = _Withdrawn(secrets.token_hex(8), self._now())
        self.tell()

    def forget(self, pair: _Pair) -> None:
        """The pair registers again: nothing is told of what was before."""
        with self._lock:
            self._withdrawn.pop(pair, None)

    def tell(self) -> None:
        """Whoever listens hears of what it has not confirmed, again and again."""
        with self._lock:
            now, who = self._now(), self._streams.controllers
            dropped = now - limits.HALF_OPEN_S
            self._withdrawn = {pair: w for pair, w in self._withdrawn.items() if w.since > dropped}
            if self._streams.controlled != EXTENDED:  # the standard has no such word
                return
            for (master, slave), withdrawn in self._withdrawn.items():
                told = withdrawn.told
                if told is None or told[1] != who or now - told[0] >= limits.SAID_AGAIN_S:
                    self._say(master, slave, withdrawn.name)
                    withdrawn.told = now, who

    def known(self, names: Collection[str]) -> None:
        """The controller knows of the withdrawals of these names."""
        with self._lock:
            self._withdrawn = {pair: w for pair, w in self._withdrawn.items() if w.name not in names}
