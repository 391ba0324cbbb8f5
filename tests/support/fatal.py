"""A task that kills who does it, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def squared(number: int, fatal: int, died: Path) -> int:
    """The number's square. Whoever computes that of `fatal` dies, unless `died` is there, as somebody did before."""
    if number == fatal and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number
