"""docs/conformance.md does what it says; page.py says how it is run."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.page import blocks, here, read
from tests.support.running import ROOT, Running

PAGE = read("conformance.md")
(COMMAND,) = blocks(PAGE, "sh")


def run(command: str, exposed: Running) -> subprocess.CompletedProcess[str]:
    """A command as the page prints it."""
    return subprocess.run(
        ["bash", "-c", here(command, exposed)], capture_output=True, text=True, check=False, timeout=230, cwd=ROOT
    )


@pytest.mark.timeout(480)
def test_our_kmes_pass_whole_in_poliqi(exposed):
    """As printed, and as a document: at least 60 checks, all passed, and no key in what is said."""
    done = run(COMMAND.text.rstrip() + " --json", exposed)

    found = json.loads(done.stdout)
    assert (done.returncode, found["conforms"]) == (0, True)
    assert [check for check in found["checks"] if check["outcome"] != "passed"] == []
    assert len(found["checks"]) >= 60
    printed = done.stderr.splitlines()
    assert printed[:4] == COMMAND.answer.splitlines()[:4]
    assert printed[-2] == COMMAND.answer.splitlines()[-2]
    assert printed[-1] == f"{len(found['checks'])} checks: {len(found['checks'])} passed"
    assert COMMAND.answer.splitlines()[-1] == printed[-1]
