"""What agents are to know of their applications: state, which is told again until its node has confirmed it.

A word that timed out may be obeyed all the same, later, when a newer one has been said. So each has a version, in the
order in which the controller said them, and a node goes by the newest. The answer tells which one counts there: a
controller that has forgotten how far it had come, because its own store is older than what nodes know, goes on above.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from controller import limits
from controller.agents.agents import Agents
from controller.agents.peer_shares import Turns
from controller.network.graph import Graph
from controller.network.store import Store
from telemetry import bugs, trace
from telemetry.journal import Journal

_SETTING = "words"
# The upper part of a version counts the controller's starts, the lower part its words since.
_PER_START = 1 << 32
_LAST = 1 << 62  # no node makes us count further


@dataclass(slots=True)
class _Word:
    """`tell` tells it, in the trace in which it was said. `due`: when (again). `until`: nobody waits for it then."""

    tell: Callable[..., None]
    document: Mapping[str, Any]
    version: int
    due: float
    until: float
    under_way: bool = False


class Words:
    """The words that are not confirmed yet, by node and by what they are about. Thread-safe."""

    def __init__(
        self, graph: Graph, agents: Agents, store: Store, journal: Journal, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._graph = graph
        self._agents = agents
        self._store = store
        self._now = now
        self._lock = threading.Condition()
        self._words: dict[str, dict[Hashable, _Word]] = {}
        self._version = 0
        self._go_above(int(store.setting(_SETTING).get("version", 0)))
        self._turns = Turns(
            "words", journal, threads=limits.WORDS, for_one=limits.WORDS_TO_ONE, waiting=limits.KEPT_FOR_ONE
        )
        self._stopping = False
        self._thread = bugs.vital_thread(self._run, name="words", stopped=lambda: self._stopping)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for what is under way."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        self._turns.stop()

    def say(self, node: str, about: Hashable, document: Mapping[str, Any], *, for_s: float = math.inf) -> None:
        """Have that node know this (the input of application_answer), in place of what was said about the same before.

        A word is given up after `for_s` seconds; so is the oldest one if a node confirms none of very many.
        """
        now = self._now()
        with self._lock:
            self._version += 1
            words = self._words.setdefault(node, {})
            words.pop(about, None)
            words[about] = _Word(trace.carried(self._tell), document, self._version, now, now + for_s)
            if len(words) > limits.KEPT_FOR_ONE:
                del words[next(iter(words))]
            self._lock.notify_all()

    def forget(self, node: str, about: Hashable) -> None:
        """Nothing about this is to be told to that node any more."""
        with self._lock:
            self._words.get(node, {}).pop(about, None)

    def _run(self) -> None:
        with self._lock:
            while not self._stopping:
                self._tell_due()
                self._words = {node: words for node, words in self._words.items() if words}
                self._lock.wait(limits.LOOK_S if self._words else None)

    def _tell_due(self) -> None:
        now = self._now()
        known = self._graph.nodes()
        for name, words in self._words.items():
            over = [about for about, word in words.items() if word.until <= now]
            if name in known and not known[name].extended:  # it knows no such words
                over = list(words)
            for about in over:
                del words[about]
            if name not in known or not known[name].reachable:
                continue
            for about, word in words.items():
                if not word.under_way and word.due <= now:
                    word.under_way = self._turns.take(name, word.tell, name, about, word)

    def _tell(self, name: str, about: Hashable, word: _Word) -> None:
        node = self._graph.nodes().get(name)
        counts = None
        try:
            if node is not None and node.reachable:
                counts = self._agents.tell(node.agent, {**word.document, "version": str(word.version)})
        finally:  # a word that met a bug is told again, too
            with self._lock:
                word.under_way = False
                word.due = self._now() + limits.WORD_AGAIN_S
        with self._lock:
            if counts is None or self._words.get(name, {}).get(about) is not word:
                return
            if word.version < counts < _LAST:
                self._go_above(counts)
                self._version += 1
                word.version, word.due = self._version, self._now()
            else:
                del self._words[name][about]
            self._lock.notify_all()

    def _go_above(self, version: int) -> None:
        """From now on versions are above that one, in this life of the controller and in later ones."""
        self._version = max(self._version, (version // _PER_START + 1) * _PER_START)
        self._store.put_setting(_SETTING, {"version": self._version})
