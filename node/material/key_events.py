"""What the story of a key has of its node, beside calls: statements to the shared database, and what ranges were for.

Offsets in a QC's stream say nothing of the bytes that lie there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from decisions.modes import KEY
from decisions.ranges import Instruction, Range
from node.failures import KeyFailure
from telemetry.journal import Journal

PART = "part"  # what a range is for if a key was lost alone: its part, whatever the whole is for

Use = tuple[Range, str]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes in as few ranges as it takes. PURE."""
    found: list[Range] = []
    for r in sorted(ranges, key=lambda r: (r.qc, r.epoch, r.start)):
        if found and (found[-1].qc, found[-1].epoch, found[-1].end) == (r.qc, r.epoch, r.start):
            found[-1] = replace(found[-1], end=r.end)
        else:
            found.append(r)
    return found


def as_json(used: Iterable[Use]) -> list[list[str | int]]:
    """As a journal has it, which has many of them: QC, start, end, purpose. PURE."""
    return [[r.qc, r.start, r.end, purpose] for r, purpose in used]


def used(journal: Journal, request: str, of: Iterable[Use], **facts: Any) -> None:
    """Ranges of the allocation `request` have left this node's streams."""
    journal.event("used", allocation=request, ranges=as_json(of), **facts)


def instructions(found: Iterable[Instruction]) -> dict[str, Any]:
    """What is told of single-hop keys that the shared database said how to find. PURE."""
    found = list(found)
    return {
        "allocations": sorted({i.request for i in found}),
        "made_in": sorted({i.trace for i in found if i.trace}),
        "ahead": [i.key_id for i in found if not i.asked],
        "ranges": as_json((r, KEY) for r in joined(i.where for i in found)),
    }


def collected(journal: Journal, found: Sequence[Instruction], at: float, duration_s: float) -> None:
    """The shared database, asked `at` that time (wall clock), gave instructions for keys that nobody had asked for."""
    key_ids = [i.key_id for i in found]
    facts = instructions(found) | {"ahead": []}
    _told(journal, "collect", at, duration_s, key_ids=key_ids, **facts)


@contextmanager
def statement(journal: Journal, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """The block makes that statement to the shared database, and may add to what is told of it."""
    at, started = time.time(), time.monotonic()
    told: dict[str, Any] = {}
    try:
        yield told
    except Exception as error:
        # By the word that the answer has for it; stories are for people, who know nothing of exceptions' names.
        told = {"error": error.cause if isinstance(error, KeyFailure) else "failed"}
        raise
    finally:
        _told(journal, name, at, time.monotonic() - started, **facts, **told)


def _told(journal: Journal, name: str, at: float, duration_s: float, **facts: Any) -> None:
    journal.event("statement", statement=name, at=round(at, 6), duration_ms=round(duration_s * 1000, 3), **facts)
