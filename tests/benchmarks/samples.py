"""What a run takes of memory and disk while it goes on: samples, and how they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.network.emulation import Emulation
from testbed.operation.tables import table
from tests.support.memory import memory

_SHOWN = 12  # sizes of the run directory


@dataclass(frozen=True, slots=True)
class Sample:
    """By kind of process how many there are and their memory in kB; `at_s`: after the beginning.

    It is what is resident, and of PostgreSQL's processes what is their own.
    """

    at_s: float
    number: Counter[str]
    kb: Counter[str]
    directory_mb: float


def sample(emulation: Emulation, at_s: float) -> Sample:
    """How it is now."""
    number: Counter[str] = Counter()
    kb: Counter[str] = Counter()
    for process in memory(1):
        number[process.name] += 1
        kb[process.name] += process.own if process.name == "postgres" else process.rss
    sizes = []
    for path in emulation.run.path.rglob("*"):
        try:
            sizes.append(path.lstat().st_size)
        except FileNotFoundError:  # it was a file of the database's
            continue
    return Sample(at_s, number, kb, sum(sizes) / 1e6)


def told(samples: Sequence[Sample], settled_s: float, age: Callable[[float], str]) -> str:
    """A table of memory from the first sample after `settled_s`, or after half of the time, to the end, and a line with
    sizes of the run directory. `age`: how a time is called. PURE.
    """
    later = [s for s in samples if s.at_s >= min(settled_s, samples[-1].at_s / 2)]
    quarters = [later[(len(later) - 1) * quarter // 4] for quarter in range(5)]  # so that it shows what levels off
    first, last = later[0], later[-1]
    rows = [
        (name, last.number[name], *(s.kb[name] / 1024 for s in quarters), max(s.kb[name] for s in later) / 1024,
         f"{last.kb[name] / first.kb[name]:.2f}")
        for name in sorted(last.kb)
        if first.kb[name]
    ]  # fmt: skip
    header = ("process", "number", *(f"MB at {age(s.at_s)}" for s in quarters), "most", "ratio")
    shown = [*samples[:: max(1, len(samples) // _SHOWN)], last]
    sizes = ", ".join(f"{s.directory_mb:.0f} MB at {age(s.at_s)}" for s in shown)
    return f"{table(header, rows)}\nrun directory: {sizes}"
