"""Keys in the records of a run in virtual time, where nobody makes any bytes. PURE."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from decisions.modes import Mode
from decisions.paths import Path
from decisions.ranges import Range


@dataclass(frozen=True, slots=True)
class Key:
    """A key that was made: its ID, what it was allocated by, and what stands for its fingerprint."""

    key_id: str
    allocation: str
    mark: str


def mark(ranges: Sequence[Range], number: int) -> str:
    """What stands for the fingerprint of key `number` of those made of these ranges."""
    where = [(r.qc, r.start, r.end, number) for r in ranges]
    return hashlib.sha256(repr(where).encode()).hexdigest()


def cut(whole: Range, number: int) -> list[Range]:
    """A range in equal parts."""
    n_bytes = len(whole) // number
    return [Range(whole.qc, whole.start + i * n_bytes, whole.start + (i + 1) * n_bytes) for i in range(number)]


def several(path: Path, mode: Mode) -> dict[str, Any]:
    """What a node's journal says more of keys that a mode makes over several paths."""
    return {} if mode.paths == 1 else {"paths": [list(one.nodes) for one in path.paths], "enough": mode.enough}
