"""Policies of the user's own, on real nodes and a real controller."""

from __future__ import annotations

import json

import pytest

from tests.support.policies_page import commands, write_files
from tests.support.running import finished


def test_command_of_the_page_has_real_parts_decide_by_the_users_policies(tmp_path):
    """Of paths and admission the controller, of the mode the nodes: keys come, the same at both ends."""
    write_files(tmp_path)
    (words,) = commands("sudo python testbed/run.py")

    done = finished(*words, "--seed", 1, "--run-dir", tmp_path / "run", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    used = {name: summary["parameters"][name] for name in ("path_policy", "admission", "mode")}
    assert used == {"path_policy": "quiet", "admission": "half", "mode": "train"}
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 8
    assert summary["keys"]["multi_hop"] > 0
    assert summary["audit"]["verdict"] == "clean"


@pytest.mark.slow
def test_fault_of_a_policy_costs_the_sessions_that_it_was_asked_about(tmp_path):
    """One that takes no session over two hops, as it divides by nothing there: those over one hop get their keys."""
    (tmp_path / "bad.py").write_text("def bad(path, demand):\n    return None if len(path) == 1 else 1 / 0\n")

    done = finished(
        "--admission", "bad.py:bad", "--sessions", 8, "--duration", 8, "--seed", 1, "--run-dir", tmp_path / "run",
        cwd=tmp_path,
    )  # fmt: skip

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "bad.py, line 2: raises ZeroDivisionError" in done.stdout
    assert 0 < summary["sessions"]["admitted"] < 8
    assert summary["keys"]["single_hop"] > 0
    assert summary["keys"]["multi_hop"] == 0
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"]
