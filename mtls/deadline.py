"""Until when an answer is of use: said once, for all that is done to give it, over all processes that take part.

Whoever serves a request sets a deadline. Each wait on the way asks how much time is left; a call says so to the party
called (header Qkd-Timeout-Ms), which must answer a little earlier, so that a refusal comes before its caller gives up.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

HEADER = "Qkd-Timeout-Ms"
_LONGEST_MS = 3_600_000
LEAST_S = 0.001  # of a time-out: with none left a socket would not wait at all, or refuse the figure
# What an answer needs that another party gave: a part of the time, so that it is less at each hop of a long path.
_ON_THE_WAY = 0.06
_current: ContextVar[float | None] = ContextVar("deadline", default=None)


class TimedSocket(ssl.SSLSocket):
    """The seconds of `settimeout` are for all that is read until its next call, not for each read anew."""

    _until = math.inf

    def settimeout(self, value: float | None) -> None:
        self._until = math.inf if value is None else time.monotonic() + value
        super().settimeout(value)

    def settimeout_of_each(self, value: float | None) -> None:
        """Those of this are for each read anew."""
        self._until = math.inf
        super().settimeout(value)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self._until != math.inf:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the deadline has passed")
            super().settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


@contextmanager
def until(moment: float | None) -> Iterator[None]:
    """The block serves what must be over at that monotonic moment, or at one that was said before and is earlier."""
    before = _current.get()
    token = _current.set(moment if before is None or (moment is not None and moment < before) else before)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def at_least(seconds: float) -> Iterator[None]:
    """The block has so many seconds, whatever is left: it takes back what nobody else will if time has run out."""
    moment = _current.get()
    token = _current.set(None if moment is None else max(moment, time.monotonic() + seconds))
    try:
        yield
    finally:
        _current.reset(token)


def left(longest_s: float) -> float:
    """Seconds that are left, and never more than `longest_s`; below 0 if it is too late."""
    moment = _current.get()
    return longest_s if moment is None else min(longest_s, moment - time.monotonic())


def left_for_others(longest_s: float) -> float:
    """Seconds that another party may take, so that its answer can still be passed on; never more than `longest_s`."""
    moment = _current.get()
    return longest_s if moment is None else min(longest_s, (1 - _ON_THE_WAY) * (moment - time.monotonic()))


def to_header(seconds: float) -> str:
    """The header's value for a call that must be answered in that time."""
    return str(max(0, int(1000 * seconds)))


def from_header(value: str | None) -> float | None:
    """The seconds that a caller gives; None if it does not say, or nothing that makes sense."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 9:
        return None
    return min(int(value), _LONGEST_MS) / 1000
