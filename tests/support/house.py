"""`python -m tests.support.house [ROOT]`: how long, how commented and how deep the house is, as one table.

Functions are counted without their docstrings, comments by the lines that have one. A public name is a function or a
class of a module that has no underscore before it. Import depth is the number of modules in the longest chain of
imports that are made when a module is loaded. A wing is a folder.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class House:
    """What was counted; `wings`: modules by folder."""

    files: dict[str, int] = field(default_factory=dict)
    functions: list[int] = field(default_factory=list)
    tests: list[int] = field(default_factory=list)
    comments: int = 0
    public: int = 0
    described: int = 0
    names: int = 0
    wings: Counter[str] = field(default_factory=Counter)
    imports: nx.DiGraph = field(default_factory=nx.DiGraph)

    @property
    def lines(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    def rows(self) -> list[tuple[str, str]]:
        """The table."""
        wing, most = self.wings.most_common(1)[0]
        longest = max(self.files, key=self.files.__getitem__)
        return [
            ("files", str(len(self.files))),
            ("lines", str(self.lines)),
            ("lines a file: median, p90", _spread(self.files.values())),
            ("lines a function: median, p90", _spread(self.functions)),
            ("comments per 100 lines", f"{100 * self.comments / self.lines:.1f}"),
            ("public docstrings", f"{100 * self.described / self.public:.0f} %"),
            ("lines a test: median", f"{statistics.median(self.tests):.0f}"),
            ("public names per 1000 lines", f"{1000 * self.names / self.lines:.1f}"),
            ("import depth", str(nx.dag_longest_path_length(self.imports) + 1)),
            ("files over 400 lines", str(sum(n > 400 for n in self.files.values()))),
            ("longest file", f"{self.files[longest]}: {longest}"),
            ("modules in the largest wing", f"{most}: {wing}"),
        ]


def measure(root: Path) -> House:
    """The house whose top folder that is."""
    rooms = [p.name for p in root.iterdir() if (p / "__init__.py").is_file()]
    paths = {
        ".".join(p.relative_to(root).with_suffix("").parts): p for room in rooms for p in (root / room).rglob("*.py")
    }
    house = House()
    for name, path in sorted(paths.items()):
        text = path.read_text()
        tree = ast.parse(text)
        house.files[str(path.relative_to(root))] = len(text.splitlines())
        house.comments += len({line for line, kind in _tokens(text) if kind == tokenize.COMMENT})
        house.wings[str(path.parent.relative_to(root))] += path.name != "__init__.py"
        house.names += sum(_is_public(n) for n in tree.body)
        house.imports.add_edges_from((name, used) for used in _imports(tree, paths) if used != name)
        for node in ast.walk(tree):
            if isinstance(node, _FUNCTIONS):
                house.functions.append(_length(node))
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                house.public += 1
                house.described += ast.get_docstring(node) is not None
    for path in (root / "tests" / "unit").rglob("test_*.py"):
        tests = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
        house.tests += [_length(n) for n in tests if n.name.startswith("test_")]
    return house


def _is_public(node: ast.stmt) -> bool:
    return isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return 1 + (body[-1].end_lineno or 0) - body[0].lineno if body else 0


def _tokens(text: str) -> Iterator[tuple[int, int]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        yield token.start[0], token.type


def _imports(tree: ast.Module, known: dict[str, Path]) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known or node.module in known:
                    yield full if full in known else node.module


def _spread(found: Sequence[int] | object) -> str:
    values = sorted(found)  # type: ignore[call-overload]
    return f"{statistics.median(values):.0f}, {values[int(0.9 * len(values))]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How long, how commented and how deep a house is, as one table.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="its top folder (default: this one)")
    for what, value in measure(parser.parse_args().root.resolve()).rows():
        print(f"{what:32} {value}")
