"""Keys over three paths that share no relay."""

from __future__ import annotations

import itertools
import json

import pytest
import yaml

from decisions.exposure import NOTHING
from telemetry import journal
from tests.support.running import finished

# Between a and z: over one relay, over two, and over three.
PATHS = [["a", "b", "z"], ["a", "c1", "c2", "z"], ["a", "d1", "d2", "d3", "z"]]


def three() -> dict:
    """The smallest network with three such paths."""
    ends = [pair for path in PATHS for pair in itertools.pairwise(path)]
    return {
        "name": "three",
        "nodes": [{"name": name} for name in dict.fromkeys(itertools.chain(*PATHS))],
        "links": [
            {"a": a, "b": b, "delay_ms": 0, "qcs": [{"low_bytes_per_slot": 900, "high_bytes_per_slot": 1000}]}
            for a, b in ends
        ],
        "saes": [{"name": f"{node}{number}", "node": node} for node in "az" for number in (1, 2)],
    }


@pytest.mark.parametrize(
    ("topology", "mode", "sessions"),
    [
        ("three", "paths-3", 4),
        *(pytest.param("trellis", mode, 12, marks=pytest.mark.slow) for mode in ("paths-3", "paths-2of3")),
    ],
)
def test_keys_go_over_three_paths_of_which_no_relay_learns_them(tmp_path, topology, mode, sessions):
    """Both sides have the same key, the audit is clean, and each key takes three disjoint paths between its ends."""
    run = tmp_path / "run"
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(three()))
    network = tmp_path / "three.yaml" if topology == "three" else topology

    done = finished("--topology", network, "--mode", mode, "--sessions", sessions, "--seed", 1, "--duration", 8,
                    "--no-cli", "--run-dir", run)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["sessions"] == {"requested": sessions, "admitted": sessions, "refused": 0, "failed": 0}
    assert (summary["keys"]["single_hop"], summary["keys"]["errors"]) == (0, {})
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > sessions
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
