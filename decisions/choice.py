"""Which path a key session takes: candidates of a path policy, one after the other, until admission lets it. PURE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from decisions.admission import Refused
from decisions.paths import Path


def choose(
    candidates: Iterable[Path],
    admit: Callable[[Path], Refused | None],
    beside: Callable[[str, str], Sequence[str]],
    *,
    most: int,
    wanted: Callable[[Path], None] = lambda _: None,
) -> Path | Refused | None:
    """The first of `most` candidates on which the session is admitted; None if there is no candidate.

    If a QC of one is short, those `beside` it, which join the same two nodes, take its place one by one; then, if the
    candidate says so, the other end is to pay double. A refusal is that of the first candidate, and names all that were
    tried. `wanted` is told of the first candidate before it is tried.
    """
    first: Refused | None = None
    tried = []
    for number, candidate in enumerate(itertools.islice(candidates, most)):
        if number == 0:
            wanted(candidate)
        for way in candidate.ends():
            path, seen = way, set(way.qcs)
            while (short := admit(path)) is not None:
                first = first or short
                hop = path.qcs.index(short.qc)
                others = [qc for qc in beside(*path.joined_by(hop)) if qc not in seen]
                if not others:
                    break
                seen.add(others[0])
                path = replace(path, qcs=(*path.qcs[:hop], others[0], *path.qcs[hop + 1 :]))
            else:
                return path
        tried.append(candidate.nodes)
    return replace(first, tried=tuple(tried)) if first is not None else None
