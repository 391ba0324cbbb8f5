"""The house's rules: which room may import which, wings without circles, no name that hides one of Python's own."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[3]
BELOW_ALL = {"documents"}
DATA = BELOW_ALL | {"ietf", "etsi"}
PARTIES = DATA | {"telemetry", "decisions", "mtls"}
ALLOWED = {
    "documents": set(),
    "ietf": BELOW_ALL,
    "etsi": BELOW_ALL | {"ietf"},
    "telemetry": BELOW_ALL,
    "decisions": BELOW_ALL,
    "scenario": DATA | {"decisions"},
    "conformance": set(),
    "mtls": DATA | {"telemetry"},
    "node": PARTIES,
    "controller": PARTIES,
    "sae": PARTIES,
    "simulation": DATA | {"decisions", "scenario"},
    "testbed": PARTIES | {"scenario", "node", "controller", "sae", "simulation", "conformance"},
}
MODULES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))
MOST_IN_A_WING = 12
MOST_LINES = 400


NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Full names of what a module imports, and of what it may import from there."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def wing_of(name: str) -> str:
    """The folder below its room that a module stands in; of one that stands in the room itself, the module."""
    parts = name.split(".")
    return ".".join(parts[: 2 if NAMES[name].parent != ROOT / parts[0] else len(parts)])


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_rooms_it_may_know(path):
    """node, controller and sae do not know one another, and nobody but testbed/ knows that this is an emulation."""
    known = {name.partition(".")[0] for name in imports(path)} & set(ALLOWED)

    room = path.relative_to(ROOT).parts[0]
    assert known - {room} <= ALLOWED[room]


def test_no_module_imports_itself_by_way_of_others():
    """The modules form no circle."""
    graph = nx.DiGraph([(name, used) for name, path in NAMES.items() for used in imports(path) & set(NAMES)])

    assert not list(nx.simple_cycles(graph))


def test_no_wing_imports_itself_by_way_of_others():
    """Nor do the folders of a room."""
    arrows = {(wing_of(name), wing_of(used)) for name, path in NAMES.items() for used in imports(path) & set(NAMES)}
    circles = nx.strongly_connected_components(nx.DiGraph([(a, b) for a, b in arrows if a != b]))

    assert not [circle for circle in circles if len(circle) > 1]


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda p: str(p.relative_to(ROOT)))
def test_listing_of_a_folder_is_short_and_says_what_it_is_for(folder):
    """So that a newcomer sees at a glance what is there."""
    modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]

    assert len(modules) <= MOST_IN_A_WING
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_no_module_is_longer_than_one_reads_at_a_sitting():
    """One that grows beyond has a part that belongs elsewhere."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}

    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}


def test_testbed_starts_rooms_as_processes():
    """The testbed imports only the block format, the shared database's schemas, which ID a node has, what applications
    may do, and what of tunnels a gateway leaves to the kernel.
    """
    used = {name for path in (ROOT / "testbed").rglob("*.py") for name in imports(path) & set(NAMES)}
    rooms = {name for name in used if name.split(".")[0] in ("node", "controller", "sae") and "." in name}

    assert rooms <= {
        "controller.leading.shared_store", "node.material.blocks", "node.material.shared_db", "node.tree.model",
        "sae.config", "sae.vpn.kernel",
    }  # fmt: skip


def test_nobody_but_the_operators_interface_is_at_the_desk():
    """Command line, live view, storm, experiments and benchmarks make its requests, and have no way of their own."""
    users = {name for name, path in NAMES.items() if "testbed.operation.desk.Desk" in imports(path)}

    assert users == {"testbed.operation.operator"}


def test_decisions_are_pure():
    """They need nothing but the language and graphs: no network, files, threads, clocks or chance."""
    used = {name.partition(".")[0] for path in (ROOT / "decisions").rglob("*.py") for name in imports(path)}

    plain = {"__future__", "collections", "dataclasses", "enum", "fractions", "itertools", "math", "typing"}
    assert used <= plain | {"decisions", "documents", "networkx"}


def test_only_the_framework_module_imports_os_ken_or_ryu():
    """So that the controller can move to another framework in one place."""
    frameworks = ("os_ken", "ryu", "eventlet")
    users = {path.name for path in MODULES for name in imports(path) if name.split(".")[0] in frameworks}

    assert users <= {"framework.py"}


def test_no_name_on_pythons_path_is_one_of_its_own():
    """The path has the project, and, as `python testbed/run.py` is started, testbed/ before all."""
    found = [path.stem for folder in (ROOT, ROOT / "testbed") for path in folder.iterdir() if is_importable(path)]

    assert not set(found) & set(sys.stdlib_module_names)


def is_importable(path: Path) -> bool:
    """Whether `import` finds it there."""
    return path.suffix == ".py" or (path.is_dir() and path.name.isidentifier())
