"""Key sessions that ended here: told to the controller until it has confirmed that it knows, over restarts, too.

A controller that comes again has the node configured for the sessions that it believes open. So it is told when it
begins to listen, before it does anything else, and reads of those ends in the node's data. One that knows only the
standard confirms nothing: it counts as told when its connection has outlived the telling for longer than a dead peer's
would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from node import limits
from node.associations.registrations import Registrations
from node.material.key_store import KeyStore
from node.recent import RecentIds
from node.tree.model import ENDED
from node.tree.notifications import EXTENDED, STANDARD, Streams


class Ends:
    """The ends that no controller is known to have heard of. Thread-safe. `now` gives seconds that only grow."""

    def __init__(
        self,
        store: KeyStore,
        streams: Streams,
        registrations: Registrations,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._streams = streams
        self._registrations = registrations
        self._now = now
        self._lock = threading.Lock()
        # KSID -> when it was told last, and which of the controllers that came; None if it was not.
        self._untold: dict[str, tuple[float, int] | None] = {
            name: None for kind, name in store.documents() if kind == ENDED
        }
        self._lately = RecentIds()
        self._lately.add(self._untold)
        registrations.on_end_known(self.known)
        streams.on_controller(self.tell)

    def begin(self, ksid: str) -> None:
        """A session is about to end here: what a controller configures of it from now on is late."""
        self._lately.add([ksid])

    def tell(self, *ksids: str) -> None:
        """These ended, as is written down; whoever listens hears of all that it has not confirmed, again and again."""
        with self._lock:
            self._untold |= dict.fromkeys(ksids)
            stream, who, now = self._streams.controlled, self._streams.controllers, self._now()
            if stream is None:
                return
            for ksid, told in sorted(self._untold.items()):
                if told is None or told[1] != who or (stream == EXTENDED and now - told[0] >= limits.SAID_AGAIN_S):
                    self._registrations.ended(ksid)
                    self._untold[ksid] = now, who
                elif stream != EXTENDED and now - told[0] >= limits.END_HEARD_S:
                    self._forget(ksid)

    def unconfirmed(self) -> list[str]:
        """The KSIDs."""
        with self._lock:
            return sorted(self._untold)

    def known(self, ksid: str) -> None:
        """The controller has written down that it is over."""
        with self._lock:
            self._forget(ksid)

    def came_back(self, ksid: str) -> bool:
        """Whether a session that a controller configures is open: it is not if it ended here before.

        The controller had not heard of the end yet, or was configuring when it heard; it removes the session next. A
        controller that knows only the standard may have an application come back. Then the end counts no more.
        """
        if self._streams.controlled == STANDARD:
            self.known(ksid)
            return True
        return not self._lately.any_of([ksid])

    def _forget(self, ksid: str) -> None:
        if ksid in self._untold:
            self._store.put_documents({(ENDED, ksid): None})
            del self._untold[ksid]
