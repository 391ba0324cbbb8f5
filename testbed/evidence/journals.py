"""Reads what journals have gained since the last look, and only the events that are wanted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from telemetry import journal

_NAME = b'"event":"'
# At most so much of a journal at a time: a look must not take long, the rest comes with the next one.
_MOST_BYTES = 4 << 20


class Tail:
    """New events of some journals. A journal may come into being later, and goes on in further files."""

    def __init__(self, paths: Iterable[Path], wanted: Iterable[str]) -> None:
        self._reached = dict.fromkeys(paths, (1, 0))  # number of a file, and bytes of it
        self._wanted = {name.encode() for name in wanted}
        self._ends: dict[Path, tuple[int, int]] = {}  # of the last file of each that was read to its end: inode, size

    def new(self) -> list[dict[str, Any]]:
        """Wanted events that were written since the last call, journal by journal."""
        return [event for path in self._reached for event in self._read(path)]

    def skip(self) -> None:
        """What was written until now is not looked at."""
        for path in self._reached:
            number = 1
            while journal.is_full(path, number):
                number += 1
            with contextlib.suppress(FileNotFoundError):
                self._reached[path] = (number, path.stat().st_size)

    def _read(self, path: Path) -> list[dict[str, Any]]:
        number, at = self._reached[path]
        try:
            file_now = path.stat()
            end = file_now.st_ino, file_now.st_size
            if self._ends.get(path) == end:
                return []  # nearly always: journals are looked at often, and one look at many takes no time
        except FileNotFoundError:
            if (number, at) == (1, 0) and not journal.is_full(path, number):
                return []  # it has not begun
            end = (0, 0)  # it is between two files
        try:
            goes_on = journal.is_full(path, number)  # before it is read: nothing comes to a full one
            with journal.open_file(path, number) as file:
                file.seek(at)
                data = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return []
        whole = data.rpartition(b"\n")[0]
        at += len(whole) + 1 if whole else 0
        self._reached[path] = (number + 1, 0) if goes_on and not data else (number, at)
        if not goes_on and len(data) < _MOST_BYTES:
            self._ends[path] = end
        found = [json.loads(line) for line in whole.split(b"\n") if self._is_wanted(line)]
        return found + (self._read(path) if goes_on and len(data) < _MOST_BYTES else [])

    def _is_wanted(self, line: bytes) -> bool:
        return line.partition(_NAME)[2].partition(b'"')[0] in self._wanted
