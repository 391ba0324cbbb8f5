"""Whether an open key session stays on its path, goes another way, or has none. PURE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decisions.paths import Path, QkdGraph

Way = Callable[[QkdGraph, str, str], Path | None]  # from one node to another


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where to go, None to stay; `down` is what the present path lacks. A session that has nowhere to go waits."""

    path: Path | None
    down: Sequence[str] = ()


def judge(path: Path, down: Sequence[str], usable: QkdGraph, steady: QkdGraph, way: Way) -> Verdict:
    """The verdict on a session on `path`, of which `down` is down.

    `usable`: what can carry keys now; `steady`: what has been able to for a while. A session whose path died takes any
    other way, and be it over another QC of the same fibre. One that has a way leaves it only for a shorter one that is
    steady: keys over more links cost more.
    """
    if down:
        return Verdict(way(usable, path.nodes[0], path.nodes[-1]), down)
    if len(path.qcs) == 1:
        return Verdict(None)
    better = way(steady, path.nodes[0], path.nodes[-1])
    return Verdict(better if better is not None and len(better.qcs) < len(path.qcs) else None)
