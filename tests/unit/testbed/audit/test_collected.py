"""Nodes of which no account can be made are named, with the reason in words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from telemetry.bugs import MARK
from testbed.audit.collected import document
from testbed.audit.evidence import Meant


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A local database that is none."""
    path = tmp_path / "local.db"
    path.write_text("no database at all " * 100)
    return path


def lacking(path: Path) -> str:
    """Why there is no account of the node whose database is at `path`."""
    found = document(Meant({"a"}, {}, {}, 15, {}), {"a": path}, [], [])

    assert not found["nodes"]
    return found["lacking"]["a"]


def test_database_that_cannot_be_read_is_named(broken):
    """In the words of SQLite."""
    assert lacking(broken).endswith("file is not a database")


def test_bug_of_ours_is_called_one_and_the_log_has_its_traceback(broken, monkeypatch, caplog):
    """Nobody who reads an audit learns anything from the name of an exception."""
    program = broken.with_name("python")
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'raise LookupError(1)'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    assert lacking(broken) == f"{MARK} kept its account from being made"
    assert "Traceback" in caplog.text
    assert "LookupError" in caplog.text
