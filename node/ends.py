"""Key sessions that ended here: told to the controller that listens, or kept until one does, over restarts, too.

A controller that comes again has the node configured for the sessions that it believes open. So it is told when it
begins to listen, before it does anything else.
"""

from __future__ import annotations

import threading

from node.key_stream import KeyStore
from node.registrations import Registrations
from node.streams import Streams

_ENDED = "ended"


class Ends:
    """The ends that no controller has heard of. Thread-safe."""

    def __init__(self, store: KeyStore, streams: Streams, registrations: Registrations) -> None:
        self._store = store
        self._streams = streams
        self._registrations = registrations
        self._lock = threading.Lock()
        self._untold = {name for kind, name in store.documents() if kind == _ENDED}
        streams.on_controller(self.tell)

    def tell(self, *ksids: str) -> None:
        """These ended; whoever listens hears of all that no controller has heard of."""
        with self._lock:
            self._store.put_documents({(_ENDED, ksid): {} for ksid in ksids})
            self._untold |= set(ksids)
            if self._streams.controlled is None:
                return
            for ksid in sorted(self._untold):
                self._registrations.ended(ksid)
            self._forget(self._untold)

    def came_back(self, ksid: str) -> None:
        """A controller has configured it again, so that its end is none."""
        with self._lock:
            self._forget(self._untold & {ksid})

    def _forget(self, ksids: set[str]) -> None:
        self._store.put_documents({(_ENDED, ksid): None for ksid in ksids})
        self._untold = self._untold - ksids
