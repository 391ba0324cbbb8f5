"""Paths as documents name them: the nodes in `path`; where keys go over several paths at once, each in `paths`. PURE.

Then `path` has the first node, those between of one path after the other, and the last node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from documents.checks import sequence, text

_MOST_PATHS = 64


def paths_of(document: Mapping[str, Any]) -> list[list[str]]:
    """The paths that a document of ours names; none if it names none."""
    path = document.get("path")
    return [list(one) for one in document.get("paths") or ([path] if path else [])]


def parsed(document: Mapping[str, Any], longest: int) -> list[tuple[str, ...]]:
    """The same of a document of others, with at most so many nodes each; Malformed."""
    entries = document.get("paths") or [document.get("path", [])]
    paths = [sequence(path, "paths", longest=longest) for path in sequence(entries, "paths", longest=_MOST_PATHS)]
    return [tuple(text(node, "paths") for node in path) for path in paths]


def in_words(paths: Sequence[Sequence[str]], dash: str = " - ") -> str:
    """Each path, for people."""
    return ", and ".join(dash.join(path) for path in paths)
