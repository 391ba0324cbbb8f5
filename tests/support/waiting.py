"""How tests wait: for a state, never for a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

# How many times slower than usual this machine is: user-mode Linux is.
PATIENCE = float(os.environ.get("QKD_PATIENCE", "1"))
_LOOKS_EACH_S, _LONGEST_S = 0.02, 0.5
# When a client gives up. What is to be answered "in time" is answered before that; how much before, benchmarks measure.
GIVES_UP_S = 10.0 * PATIENCE


def until(what: Callable[[], Any], timeout_s: float = 60.0, *, else_tell: Callable[[], object] | None = None) -> Any:
    """The first true result of `what`. AssertionError with the last one, or what `else_tell` says, if none comes.

    The time-out is long because only a test that fails waits for it. It is not how quick something has to be.
    """
    deadline = time.monotonic() + timeout_s * PATIENCE
    before = _used_s()
    while not (found := what()):
        assert time.monotonic() < deadline, f"still {found!r}" if else_tell is None else else_tell()
        # Who looks by starting programs is to leave the processor to what he waits for.
        time.sleep(max(_LOOKS_EACH_S, min(_used_s() - before, _LONGEST_S)))
        before = _used_s()
    return found


def _used_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    return sum(os.times()[:4])
