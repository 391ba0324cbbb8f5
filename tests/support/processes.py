"""What runs on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def commands() -> Iterator[list[str]]:
    """The words of each process's command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
