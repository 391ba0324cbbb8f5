"""What relays have brought to this node as the last one of a path, until the first node claims it. In memory only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from documents.secret import Secret
from node.limits import CLAIM_S, CLAIMS


@dataclass(frozen=True, slots=True)
class Relayed:
    """A secret, and the session that it is for.

    `new_keys`: what lay behind its pad, where the last QC gives the new keys.
    """

    secret: Secret
    ksid: str
    new_keys: Secret = field(default_factory=lambda: Secret(b""))

    def wipe(self) -> None:
        """Nobody needs any of it any more."""
        self.secret.wipe()
        self.new_keys.wipe()


class Arrivals:
    """By request; nothing older than `life_s()` by `clock` is given out: no request lives so long. Thread-safe."""

    def __init__(self, life_s: Callable[[], float], clock: Callable[[], float]) -> None:
        self._life_s = life_s
        self._clock = clock
        self._changed = threading.Condition()
        self.waiting = 0  # who claim something that has not come
        self._found: dict[str, tuple[float, Relayed]] = {}

    def put(self, request: str, relayed: Relayed) -> None:
        """Have it wait to be claimed."""
        with self._changed:
            self._found[request] = self._clock(), relayed
            self._changed.notify_all()

    def claim(self, request: str, ksid: str, *, patiently: bool = False) -> Relayed | None:
        """What was relayed for that request of that session, which is not here any more; None if nothing was.

        `patiently`: wait for it, unless too many wait.
        """
        self.expire()

        def there() -> bool:
            return request in self._found and self._found[request][1].ksid == ksid

        with self._changed:
            if patiently and not there() and self.waiting < CLAIMS:
                self.waiting += 1
                try:
                    self._changed.wait_for(there, CLAIM_S)
                finally:
                    self.waiting -= 1
            return self._found.pop(request)[1] if there() else None

    def expire(self) -> None:
        """Erase what is too old to be claimed."""
        oldest = self._clock() - self._life_s()
        with self._changed:
            for request in [request for request, (since, _) in self._found.items() if since < oldest]:
                self._found.pop(request)[1].wipe()
