"""What an application may take of its keys: no more than the app_qos/max_bandwidth that it was configured with.

GS QKD 015 has the key store answer with an error when an application goes over its maximum, and leaves open over what
time. Here a request is refused as long as what was given before is more than the maximum allows until now, so that the
mean holds over any time, and a key of any size can be had once.
"""

from __future__ import annotations

import threading


class Bandwidths:
    """Applications by ID, each with the moment until which its maximum is used up. Thread-safe. Moments in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used_until: dict[str, float] = {}

    def take(self, app_id: str, bits: int, max_bps: int, now: float) -> bool:
        """Take `bits`; False, and nothing is taken, if the application is over its maximum."""
        with self._lock:
            if not max_bps or self._used_until.get(app_id, now) > now:
                return False
            self._used_until[app_id] = now + bits / max_bps
            return True

    def give_back(self, app_id: str, bits: int, max_bps: int) -> None:
        """What was taken was not handed out."""
        with self._lock:
            if app_id in self._used_until:
                self._used_until[app_id] -= bits / max_bps

    def forget(self, app_id: str) -> None:
        """An application is over."""
        with self._lock:
            self._used_until.pop(app_id, None)
