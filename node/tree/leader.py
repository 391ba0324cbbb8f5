"""Which of several controllers a node goes by: the one that spoke in the latest term, for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ietf.yang import Refusal
from node.material.key_store import KeyStore
from node.tree.notifications import Streams

_KIND = "leader"


class LaterTerm(Refusal):
    """Another controller leads than the one that asks, since `term`."""

    def __init__(self, controller: str, term: int, spoken: int | None) -> None:
        said = "without a term" if spoken is None else f"in term {spoken}"
        text = f"this node goes by controller {controller}, which leads in term {term}, and was asked {said}"
        super().__init__("in-use", text)
        self.term = term


class Leader:
    """That controller and its term, kept across restarts; nobody until one speaks of a term. Thread-safe."""

    def __init__(self, store: KeyStore, streams: Streams) -> None:
        self._store = store
        self._streams = streams
        self._lock = threading.Lock()
        kept = store.documents().get((_KIND, ""))
        self._known: tuple[int, str] | None = None if kept is None else (int(kept["term"]), str(kept["controller"]))

    @property
    def known(self) -> tuple[int, str] | None:
        """Its term and its name."""
        return self._known

    @contextmanager
    def heeding(self, controller: str, term: int | None) -> Iterator[None]:
        """For the block no controller of a later term is heard of; LaterTerm if one was before.

        `term`: None if the controller speaks of none, as one that is alone or knows only the standard.
        """
        with self._lock:
            known = self._known
            if known is not None and (term is None or term < known[0] or (term == known[0] and controller != known[1])):
                raise LaterTerm(known[1], known[0], term)
            if term is not None and known != (term, controller):
                self._store.put_documents({(_KIND, ""): {"controller": controller, "term": term}})
                self._known = term, controller
                if known is not None and known[1] != controller:
                    self._streams.end(known[1])
            yield
