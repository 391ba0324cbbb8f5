"""docs/security.md names a test for what it claims, and each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/security.md").read_text())))


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_every_test_that_the_page_names_is_there(file, function):
    """By file and function."""
    functions = {f.name for f in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(f, ast.FunctionDef)}

    assert not function or function in functions


def test_page_names_tests():
    """A page that named none would pass."""
    assert len(NAMED) > 20
