"""What processes take of the machine's memory, as the kernel says in smaps_rollup."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in kB: resident; its own alone; and its proportional share of what is shared (PSS)."""

    name: str  # as it calls itself, up to a colon
    rss: int
    own: int
    pss: int


def memory(root: int) -> Iterator[Memory]:
    """Of process `root` and all below it that are still there."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parts[2]))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        with contextlib.suppress(OSError):
            rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
            kb = {row[0]: int(row[1]) for row in rows}
            name = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode().partition(":")[0]
            yield Memory(name, kb["Rss:"], kb["Private_Clean:"] + kb["Private_Dirty:"], kb["Pss:"])
