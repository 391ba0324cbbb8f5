"""When an application asks for its next key, and whether it goes on after one failed. PURE."""

from __future__ import annotations

import math

END, GO_ON = "end", "go_on"
# What a session does when it cannot get a new key: end, rather than go on under an old key; or try again next time.
POLICIES = (END, GO_ON)
SESSION, APPLICATION = "session", "application"
# What keeps the interval between two requests: each session for itself; or the application for all of its sessions
# together, which then asks at most once an interval, however many sessions it has.
PACES = (SESSION, APPLICATION)


def next_due(start: float, interval_s: float, now: float) -> float:
    """The first time after `now` on the grid start, start + interval_s, ...

    The grid keeps delays from adding up, and a key that came late from being followed by a burst.
    """
    if now < start:
        return start
    due = start + interval_s * (math.floor((now - start) / interval_s) + 1)
    return due if due > now else due + interval_s  # rounding may leave us where we are


def goes_on(policy: str, *, failed: bool) -> bool:
    """Whether a session asks for another key after this one."""
    return not failed or policy == GO_ON


class Pace:
    """Sessions that ask for keys in turn: first come, first served, an interval apart."""

    def __init__(self) -> None:
        self._next = -math.inf

    def take(self, now: float, interval_s: float) -> float:
        """When it is the turn of who asks, not before `now`; the next one comes `interval_s` later."""
        turn = max(now, self._next)
        self._next = turn + interval_s
        return turn
