"""Keys over three paths that share no relay, on the network that carries all modes."""

from __future__ import annotations

import json

import pytest

from decisions.exposure import NOTHING
from telemetry import journal
from tests.support.running import finished


@pytest.mark.parametrize("mode", ["paths-3", pytest.param("paths-2of3", marks=pytest.mark.slow)])
def test_keys_go_over_three_paths_of_which_no_relay_learns_them(tmp_path, mode):
    """Both sides have the same key, the audit is clean, and each key takes three disjoint paths between its ends."""
    run = tmp_path / "run"

    done = finished("--topology", "trellis", "--mode", mode, "--sessions", 12, "--seed", 1, "--duration", 8, "--no-cli",
                    "--run-dir", run)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["sessions"] == {"requested": 12, "admitted": 12, "refused": 0, "failed": 0}
    assert (summary["keys"]["single_hop"], summary["keys"]["errors"]) == (0, {})
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 12
    learned = [{what for what, keys in counts.items() if keys} for counts in summary["relays"][mode].values()]
    assert learned
    assert all(what == {NOTHING} for what in learned)
    said = [event for path in run.glob("nodes/*/journal.jsonl") for event in journal.read(path, "statement")]
    asked = [event for event in said if event["statement"] == "allocate"]
    for event in asked:
        between = [node for path in event["paths"] for node in path[1:-1]]
        assert len(event["paths"]) == 3
        assert len(between) == len(set(between))
    assert max(len(path) - 1 for event in asked for path in event["paths"]) > 3
