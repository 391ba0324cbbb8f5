"""Every command that a page names says what it does when it is asked for help, and does nothing else."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.unit.house.test_pages import PAGES, ROOT

MODULES = sorted({m for page in PAGES for m in re.findall(r"-m ((?:testbed|tests)\.[\w.]+\w)", page.read_text())})
COMMANDS = [
    ["testbed/run.py"], ["testbed/run.py", "simulate"], ["testbed/run.py", "experiment"],
    ["testbed/run.py", "experiment", "policies"], ["testbed/run.py", "conformance"],
    ["-m", "testbed.qkd"], *(["-m", module] for module in MODULES),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_helps(command):
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) > 10
