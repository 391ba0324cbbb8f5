"""What runs on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path


def commands() -> dict[Path, list[str]]:
    """The words of each process's command line, by the process's folder in /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found[path.parent] = path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    return found
