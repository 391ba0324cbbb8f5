"""The fault storm in short: some twenty faults over a real network, from which it heals each time."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import PYTHON, ROOT
from tests.support.waiting import PATIENCE

SEED = 1730  # every kind of fault is among them, and of what can be killed each is
# The leader is killed and sleeps, the primary is killed and cut off: all for longer than it takes to take over.
SPARE_SEED = 39055


def weathered(run: Path, *options: object) -> tuple[dict[str, Any], int]:
    """What a storm found that the network weathered, and how many faults there were."""
    command = [PYTHON, "-P", "-m", "testbed.storm", "--run-dir", run, *options]
    patience = ["--within", 20 * PATIENCE]  # the machine runs other tests beside it

    done = subprocess.run(
        [*map(str, command + patience)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=400 * PATIENCE
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    found = json.loads((run / "storm.json").read_text())
    assert found["findings"] == []
    assert found["exchanges"]["identical"] > 100
    faults = re.search(r"\d+ gusts, (\d+) faults, 0 findings", done.stdout)
    assert faults is not None
    return found, int(faults[1])


def test_network_heals_from_every_gust_of_a_short_storm(tmp_path):
    """Exit status 0: pairs served again, sessions open, keys equal, nobody dead, audit clean, nothing left behind."""
    _, faults = weathered(tmp_path / "storm", "--seed", SEED, "--faults", 20, "--longest", 2)

    assert faults >= 20


@pytest.mark.slow
def test_network_with_a_database_that_fails_over_and_two_controllers_heals_too(tmp_path):
    """And nobody but the network itself has others take over; some two minutes."""
    options = ("--seed", SPARE_SEED, "--faults", 12, "--longest", 12, "--database", "ha", "--controller", "ha")
    found, _ = weathered(tmp_path / "storm", *options)

    assert {"kill", "pause", "partition"} <= found["healed_ms"].keys()
    assert min(found["takeovers"].values()) >= 1, found["takeovers"]
