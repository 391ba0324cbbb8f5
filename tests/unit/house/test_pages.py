"""Pages lead where they say, and what they tell one to type is understood; end-to-end tests do some of it."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import command as conformance
from scenario.topology import load
from testbed import command, simulate
from testbed.experiments import bypass, policies
from testbed.experiments import command as experiments
from testbed.network.faults import check
from testbed.operation.fibre_commands import changes
from testbed.operation.interface import checked
from testbed.operation.words import obey
from testbed.planning.databases import HA, SINGLE
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan
from testbed.storm import __main__ as storm

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (".", "docs", "docs/lessons", "docs/theory", "monitoring", "topologies", "requirements")
THEORY = sorted((ROOT / "docs" / "theory").glob("*.md"))
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link to it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_to_a_file_of_ours_finds_it_and_the_heading(page):
    """Pictures, too; addresses of others are not looked at."""
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)

    assert missing == []


# How a page calls a program of ours, and what stands behind its name.
PYTHON = r"(?:\.venv/bin/)?python (?:-P )?"
CALL = re.compile(rf"(?:sudo )?(?:{PYTHON})?((?:testbed/)?run\.py|-m testbed\S*|make|qkd)(?: (.*))?")


def calls(page: Path) -> Iterator[tuple[str, str]]:
    """Each program of ours that the page tells one to call, and its arguments: in blocks, and in sentences.

    A sentence may also speak of a command by its first word alone, which is no call.
    """
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    blocks = [*"".join(fences).replace("\\\n", " ").splitlines(), *re.findall(r"^ {4}(.*)$", prose, re.M)]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in [*blocks, *(span for span in spans if span.count(" ") > 1)]:
        found = CALL.fullmatch(re.sub(r"\s+# .*| > .*|^qkd-testbed> ", "", line).strip())
        if found:
            yield found[1], found[2] or ""


CALLS = sorted({(program, said) for page in PAGES for program, said in calls(page)})


def called(program: str) -> list[str]:
    """What pages give to programs whose name ends like that."""
    return sorted({said for name, said in CALLS if name.endswith(program)})


@pytest.fixture(scope="module")
def poliqi() -> Plan:
    """The network that pages speak of."""
    return make_plan(load("poliqi", ROOT / "topologies"))


@pytest.mark.parametrize("said", called("run.py"))
def test_run_py_takes_what_pages_give_it(said):
    """Its parser says so; of experiments and of virtual time it has others."""
    words = shlex.split(said)
    parsers = {
        ("experiment", "policies"): policies._parser, ("experiment", "bypass"): bypass._parser,
        ("experiment",): experiments._parser,
        ("simulate",): simulate._parser, ("conformance",): conformance._parser, (): command._parser,
    }  # fmt: skip
    start = next(start for start in parsers if tuple(words[: len(start)]) == start)

    assert parsers[start]().parse_args(words[len(start) :])


def test_readme_has_every_option_of_run_py_and_no_other():
    """In the first column of its table."""
    rows = re.findall(r"^\| (`--.*?`) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    options = {word for row in rows for word in re.findall(r"--[a-z-]+", row)}

    shown = (action for action in command._parser()._actions if action.help != argparse.SUPPRESS)
    known = {name for action in shown for name in action.option_strings}
    assert options | {"--no-vm", "--help", "-h"} == known


@pytest.mark.parametrize("said", called("qkd"))
def test_command_line_knows_the_qkd_commands_of_pages(said, poliqi):
    """Each becomes a request that there is, and a fault or a fibre's shape is one."""

    class Asked(Exception):
        pass

    def do(name: str, /, **arguments: object) -> None:
        checked(name, {k: v for k, v in arguments.items() if v is not None})
        raise Asked

    words = [word for word in said.split() if word != "--json"]
    if words[0] in ("help", "events", "stop", "completion"):
        return
    with pytest.raises(Asked):
        obey(words, do)
    fault = [word for word in words[1:] if word != "heal"] if words[0] == "fault" else []
    if fault and not {"A", "HOST"} & {*fault} and fault[0] != "machine":  # this network has one
        kind = HA if fault[0] == "database" and fault[1:] else SINGLE
        check(make_plan(poliqi.topology, kind, standby=True), fault[0], fault[1:])
    if shape := re.fullmatch(r"fibre \S+ (?:-> )?\S+ ((?:delay|jitter|loss|bandwidth) .*)", said):
        assert changes(shape[1].split())


@pytest.mark.parametrize("said", called("make"))
def test_make_has_the_targets_and_variables_of_pages(said):
    """A name that the Makefile does not use would be ignored in silence."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target, *variables = said.split()

    assert re.search(rf"^{target}:", makefile, re.M)
    assert all(f"$({name.partition('=')[0]})" in makefile for name in variables)


MODULES = [(name.removeprefix("-m "), said) for name, said in CALLS if name.startswith("-m ")]


@pytest.mark.parametrize(("module", "said"), MODULES)
def test_modules_that_pages_have_python_run_can_be_run(module, said):
    """They are there; the storm's parser takes what it is given."""
    assert importlib.util.find_spec(module) is not None
    if module == "testbed.storm":
        assert storm._parser().parse_args(said.split())


def test_pages_were_read():
    """Commands of the README's first screens, and of a block of a page, are among those that are tried."""
    known = ("testbed/run.py", "--sessions 20 --duration 60"), ("make", "demo"), ("qkd", "fault device telecom finance")
    assert {*known} < {*CALLS}


def test_lines_of_the_readme_are_no_longer_than_120_characters():
    """Tables apart, whose rows cannot be broken."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", THEORY, ids=lambda p: p.name)
def test_every_name_of_our_code_on_a_page_of_theory_exists(page):
    """As `room/module.py`, `room/module.py:function` or `room/module.py:Class.method`."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_]+/[a-z0-9_/]+\.(?:py|sql))(?::([A-Za-z0-9_.]+))?`", text))

    assert len(named) > 50
    assert sorted(f"{path}:{name}" for path, name in named if name not in names_in(ROOT / path)) == []


def names_in(path: Path) -> set[str]:
    """What a module defines, by names with dots, and "" for itself; of SQL its functions and tables."""
    if not path.is_file():
        return set()
    if path.suffix == ".sql":
        return {"", *re.findall(r"(?:FUNCTION|TABLE|VIEW)(?: IF NOT EXISTS)? (\w+)", path.read_text(), re.I)}
    found = {""}
    waiting: list[tuple[str, ast.AST]] = [("", ast.parse(path.read_text()))]
    while waiting:
        inside, scope = waiting.pop()
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(inside + node.name)
                waiting.append((f"{inside}{node.name}.", node))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
                found |= {inside + name.id for name in names}
            else:
                waiting.append((inside, node))
    return found
