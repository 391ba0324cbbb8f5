"""docs/security.md names a test for what it claims, and each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
# What somebody can do who is trusted not to, and what ciphers promise: no test shows either.
TRUST = {
    "to read the keys that pass it",
    "keeps a copy of its bytes, makes bad ones, gives the same ones again under new numbers, or calls an old block new",
    "gives a range out twice, once to each end",
    "names the wrong slave for a key, or confirms digests that differ",
    "to break TLS later, from a recording",
    "to fetch keys from the wire between an SAE and its own KME",
}


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_every_test_that_the_page_names_is_there(file, function):
    """By file and function."""
    functions = {f.name for f in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(f, ast.FunctionDef)}

    assert not function or function in functions


def test_every_claim_names_a_test_but_for_what_is_a_matter_of_trust():
    """Of all tables that have a column for it."""
    tables = re.findall(r"^\|[^\n]*\| test \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split(" |")] for table in tables for row in table.splitlines()]

    assert len(tables) == 6
    assert {what for what, _, test in rows if not re.search(r"`tests/", test)} == TRUST
