"""A suite that a test runs, to be stopped by it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.guardian import NAME

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def suite(folder: Path, tests: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The suite of a module with these `tests`, and the words behind "started" in the line that it prints."""
    (folder / "test_one.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["--confcutdir", str(ROOT), "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    command += [str(folder / "test_one.py")]
    unnamed = {key: value for key, value in os.environ.items() if key != NAME}
    with subprocess.Popen(command, cwd=ROOT, env=unnamed, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running, next(line.split()[1:] for line in running.stdout if line.startswith("started"))
        finally:
            running.kill()
