"""Reads what journals have gained since the last look, and only the events that are wanted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_NAME = b'"event":"'
# At most so much of a journal at a time: a look must not take long, the rest comes with the next one.
_MOST_BYTES = 4 << 20


class Tail:
    """New events of some journals. A journal may come into being later."""

    def __init__(self, paths: Iterable[Path], wanted: Iterable[str]) -> None:
        self._offsets = dict.fromkeys(paths, 0)
        self._wanted = {name.encode() for name in wanted}

    def new(self) -> list[dict[str, Any]]:
        """Wanted events that were written since the last call, journal by journal."""
        return [event for path in self._offsets for event in self._read(path)]

    def _read(self, path: Path) -> list[dict[str, Any]]:
        try:
            with path.open("rb") as file:
                file.seek(self._offsets[path])
                data = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return []
        whole = data.rpartition(b"\n")[0]
        self._offsets[path] += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.split(b"\n") if self._is_wanted(line)]

    def _is_wanted(self, line: bytes) -> bool:
        return line.partition(_NAME)[2].partition(b'"')[0] in self._wanted
