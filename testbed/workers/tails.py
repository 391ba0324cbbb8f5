"""What files of a worker's run directory have grown by: journals and logs, on their way home."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_JOURNAL = "journal.jsonl"
_PATTERNS = (f"nodes/*/{_JOURNAL}", f"saes/*/{_JOURNAL}", "logs/*.log")
_CHUNK_BYTES = 48 << 10


class Tails:
    """Of the files in `run`, which `tell` is told of: {"file", "data"}, base64. `machine` marks the worker's own logs.

    A journal that begins a new file goes on, at home, in the same one. Of a line that is half there nothing is told
    yet: where a process was killed it may be cut off.
    """

    def __init__(self, run: Path, machine: str, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._run = run
        self._machine = machine
        self._tell = tell
        self._open: dict[Path, int] = {}

    def follow(self) -> None:
        """Tell of what has come since the last time. Not thread-safe."""
        for path in sorted(path for pattern in _PATTERNS for path in self._run.glob(pattern)):
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._send(path)
            found = path.stat()
            here = os.fstat(self._open[path])
            if (found.st_ino, found.st_dev) != (here.st_ino, here.st_dev):
                self._send(path)  # what came between the two
                os.close(self._open.pop(path))

    def whole(self, pattern: str) -> None:
        """Tell of all bytes of files that nobody writes any more."""
        for path in self._run.glob(pattern):
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._send(path)

    def _send(self, path: Path) -> None:
        name = path.relative_to(self._run)
        if name.parts[0] == "logs" and not name.name.startswith(("node-", "sae-", "passage-")):
            name = Path("logs", f"{self._machine}-{name.name}")
        file, size = self._open[path], os.fstat(self._open[path]).st_size
        at = os.lseek(file, 0, os.SEEK_CUR)
        end = _end_of_lines(file, at, size) if path.name == _JOURNAL else size
        while data := os.read(file, max(0, min(_CHUNK_BYTES, end - at))):
            at += len(data)
            self._tell({"file": str(name), "data": base64.b64encode(data).decode()})


def _end_of_lines(file: int, at: int, end: int) -> int:
    """Behind the last whole line between these two places."""
    while end > at:
        begin = max(at, end - _CHUNK_BYTES)
        if (found := os.pread(file, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        end = begin
    return at
