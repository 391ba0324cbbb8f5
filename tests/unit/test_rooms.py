"""The house's rules: which room may import which, no circles, no module that shadows one of Python's own."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "etsi": set(),
    "telemetry": {"etsi"},
    "mtls": {"etsi", "telemetry"},
    "decisions": set(),
    "node": {"etsi", "telemetry", "decisions", "mtls"},
    "controller": {"etsi", "telemetry", "decisions", "mtls"},
    "sae": {"etsi", "telemetry", "mtls"},
    "testbed": {"etsi", "telemetry", "decisions", "mtls", "node", "controller", "sae"},
}
MODULES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of what a module imports, and of what it may import from there."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_rooms_it_may_know(path):
    """node, controller and sae do not know one another, and nobody but testbed/ knows that this is an emulation."""
    known = {name.partition(".")[0] for name in imports(path)} & set(ALLOWED)

    room = path.relative_to(ROOT).parts[0]
    assert known - {room} <= ALLOWED[room]


def test_no_module_imports_itself_by_way_of_others():
    """The modules form no circle."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    graph = nx.DiGraph([(name, used) for name, path in names.items() for used in imports(path) & set(names)])

    assert not list(nx.simple_cycles(graph))


def test_testbed_starts_rooms_as_processes():
    """The testbed imports only the block format, which bytes may be given (its model decides by the same rule),
    shared database's schema, which ID a node has, and what applications may do."""
    used = {name for path in (ROOT / "testbed").rglob("*.py") for name in imports(path)}
    rooms = {".".join(name.split(".")[:2]) for name in used if name.split(".")[0] in ("node", "controller", "sae")}

    assert rooms <= {"node", "node.blocks", "node.model", "node.ranges", "node.shared_db", "sae", "sae.rekey"}


def test_decisions_are_pure():
    """They need nothing but the language: no network, files, threads, clocks or chance."""
    used = {name.partition(".")[0] for path in (ROOT / "decisions").rglob("*.py") for name in imports(path)}

    assert used <= {"__future__", "collections", "dataclasses", "decisions", "math", "typing"}


def test_only_the_framework_module_imports_os_ken_or_ryu():
    """So that the controller can move to another framework in one place."""
    frameworks = ("os_ken", "ryu", "eventlet")
    users = {path.name for path in MODULES for name in imports(path) if name.split(".")[0] in frameworks}

    assert users <= {"framework.py"}


def test_no_module_of_testbed_shadows_a_standard_one():
    """`python testbed/run.py` puts testbed/ first on Python's path."""
    assert not {path.stem for path in (ROOT / "testbed").glob("*.py")} & set(sys.stdlib_module_names)
