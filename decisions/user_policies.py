"""Policies of the user's own, beside ours: in the same tables, under their own names, called with care.

A reference is FILE.py:NAME. A policy is a function of the signature in `decisions.paths` or `decisions.admission`, or a
`decisions.modes.Mode`. One that raises, takes longer than a second or gives what it must not costs the session that it
was asked about, and no other: `PluggedFailed` names file and line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decisions.admission import ADMISSION_POLICIES, Demand, QcView, Refused
from decisions.modes import AES_CCM, MODES, OTP, Mode
from decisions.paths import PATH_POLICIES, Path, QkdGraph, View
from documents import plugged
from documents.plugged import PlugError, PluggedFailed

_MOST_PATHS = 16  # that are looked at of what a path policy gives
_MOST_TOGETHER = 8  # node-disjoint paths of a mode
_CIPHERS = (None, OTP, AES_CCM)


def use(references: Mapping[str, str]) -> dict[str, str]:
    """Put the policies that `references` (by parameter) name into our tables: their names there, by parameter.

    PlugError; then nothing has changed.
    """
    for parameter in references:
        if parameter not in _WAYS:
            raise PlugError(f"policies: expected {', '.join(_WAYS)}, got {parameter!r}")
    found = {parameter: _WAYS[parameter](reference) for parameter, reference in references.items()}
    for parameter, (name, _) in found.items():
        if name in _OURS[parameter]:
            raise PlugError(f"{references[parameter]}: expected a name of its own, as there is a {name!r} of ours")
    for parameter, (name, policy) in found.items():
        _TABLES[parameter][name] = policy
    return {parameter: name for parameter, (name, _) in found.items()}


def _paths(reference: str) -> tuple[str, Any]:
    name, policy = plugged.function(reference, "graph", "source", "target", "view")

    def guarded(graph: QkdGraph, source: str, target: str, view: View) -> Sequence[Path]:
        def step() -> Sequence[Path]:
            found = list(itertools.islice(policy(graph, source, target, view), _MOST_PATHS))
            for path in found:
                if not _is_path(path, graph, source, target):
                    text = f"gives {path!r:.200}: expected a Path from {source} to {target} along QCs of the graph"
                    raise PluggedFailed(f"{reference} {text}")
            return found

        return plugged.call(reference, step)  # type: ignore[no-any-return]

    return name, guarded


def _is_path(path: object, graph: QkdGraph, source: str, target: str) -> bool:
    if not isinstance(path, Path) or len(path.nodes) != len(path.qcs) + 1 or len(set(path.nodes)) != len(path.nodes):
        return False
    hops = zip(itertools.pairwise(path.nodes), path.qcs, strict=True)
    joined = all(graph.has_edge(a, b, key=qc) for (a, b), qc in hops)
    return bool(path.qcs) and joined and (path.nodes[0], path.nodes[-1]) == (source, target)


def _admission(reference: str) -> tuple[str, Any]:
    name, policy = plugged.function(reference, "path", "demand")

    def guarded(path: Sequence[QcView], demand: Demand) -> Refused | None:
        def step() -> Refused | None:
            found = policy(path, demand)
            if found is None or (isinstance(found, Refused) and found.qc in {view.qc for view in path}):
                return found
            raise PluggedFailed(f"{reference} gives {found!r:.200}: expected None, or Refused with a QC of the path")

        return plugged.call(reference, step)  # type: ignore[no-any-return]

    return name, guarded


def _mode(reference: str) -> tuple[str, Any]:
    name, mode = plugged.find(reference)
    if type(mode) is not Mode:  # nodes carry out what a Mode says, and nothing that a class of another kind adds
        raise PlugError(f"{reference}: expected a decisions.modes.Mode, got {type(mode).__name__}")
    if mode.name != name:
        raise PlugError(f"{reference}: expected a mode that is called {name!r}, got {mode.name!r}")
    if mode.cipher not in _CIPHERS:
        raise PlugError(f"{reference}: expected cipher to be one of {_CIPHERS}, got {mode.cipher!r}")
    if mode.at_once and mode.cipher is not None:
        raise PlugError(f"{reference}: expected no cipher where nodes relay at once, got {mode.cipher!r}")
    if not (type(mode.paths) is type(mode.enough) is int):
        text = f"expected whole numbers, got paths={mode.paths!r}, enough={mode.enough!r}"
        raise PlugError(f"{reference}: {text}")
    if not 1 <= mode.enough <= mode.paths <= _MOST_TOGETHER or (mode.paths > 1) != (mode.enough > 1):
        text = f"expected 1 path, or 2 to {_MOST_TOGETHER} paths of which at least 2 are enough"
        raise PlugError(f"{reference}: {text}, got paths={mode.paths!r}, enough={mode.enough!r}")
    if mode.paths > 1 and not mode.at_once:
        raise PlugError(f"{reference}: expected nodes that relay at once where there are several paths")
    return name, mode


_WAYS: Mapping[str, Callable[[str], tuple[str, Any]]] = {"path_policy": _paths, "admission": _admission, "mode": _mode}
_TABLES: Mapping[str, dict[str, Any]] = {"path_policy": PATH_POLICIES, "admission": ADMISSION_POLICIES, "mode": MODES}
_OURS: Mapping[str, frozenset[str]] = {parameter: frozenset(table) for parameter, table in _TABLES.items()}
