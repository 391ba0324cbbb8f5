"""docs/policies.md: its files and its commands, as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.policies_page import ROOT, TEXT, commands, write_files

COMMANDS = commands("python testbed/run.py")
TABLE = re.findall(r"^\| `(--[^`]+)` \| (\d+) \| (\d+) \|$", TEXT, re.M)


def simulated(folder, words):
    """What the command prints; it ends well."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "testbed", *words], capture_output=True, text=True, check=False, cwd=folder,
        timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_of_the_page_runs(tmp_path, words):
    """In a folder with the files that it has one write."""
    assert len(COMMANDS) >= 4
    assert write_files(tmp_path) == ["quiet.py", "half.py", "train.py"]

    assert "key sessions  52 offered" in simulated(tmp_path, words)


def test_policies_of_the_page_decide_otherwise_than_ours(tmp_path):
    """Else nobody would see that they were asked."""
    write_files(tmp_path)
    load = ["simulate", "--workload", "paper", "--seed", "1"]

    ours, half = (simulated(tmp_path, [*load, "--admission", name]) for name in ("reserve", "half.py:half"))
    assert ours != half
    plain, train = (simulated(tmp_path, [*load, "--mode", name]) for name in ("otp", "train.py:train"))
    assert plain != train


@pytest.mark.parametrize(("options", "refused", "unbroken"), TABLE)
def test_figures_of_the_page_are_those_that_its_commands_print(tmp_path, options, refused, unbroken):
    """Each of the three policies beside one of ours."""
    assert len(TABLE) >= 6
    write_files(tmp_path)

    printed = simulated(tmp_path, ["simulate", "--workload", "paper", "--seed", "1", *options.split()])

    said = "none" if refused == "0" else f"refused {refused}"
    assert f"52 offered; refused: {said}; {unbroken} without a key error\n" in printed


@pytest.mark.parametrize(
    "words",
    [
        ["--paths", "none.py:none"], ["--admission", "half.py:quarter"], ["--mode", "half.py:half"],
        ["--paths", "half.py:half"], ["--admission", "never"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_policy_that_cannot_be_is_one_line_and_status_2(tmp_path, words):
    """Before anything starts."""
    write_files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "testbed", "simulate", *words], capture_output=True, text=True, check=False,
        cwd=tmp_path, timeout=60,
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("run.py: ")
    assert done.stderr.count("\n") == 1


def test_page_runs_its_path_policy_on_real_nodes_too():
    """tests/e2e/test_policies.py does what it says."""
    assert commands("sudo python testbed/run.py")
    assert (ROOT / "tests" / "e2e" / "test_policies.py").exists()
