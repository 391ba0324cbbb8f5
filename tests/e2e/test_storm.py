"""The fault storm in short: some twenty faults over a real network, from which it heals each time."""

from __future__ import annotations

import json
import re
import subprocess

from tests.support.running import PYTHON, ROOT
from tests.support.waiting import PATIENCE

SEED = 1730  # every kind of fault is among them, and of what can be killed each is


def test_network_heals_from_every_gust_of_a_short_storm(tmp_path):
    """Exit status 0: pairs served again, sessions open, keys equal, nobody dead, audit clean, nothing left behind."""
    run = tmp_path / "storm"
    command = [PYTHON, "-P", "-m", "testbed.storm", "--seed", SEED, "--faults", 20, "--longest", 2, "--run-dir", run]
    patience = ["--within", 20 * PATIENCE]  # the machine runs other tests beside it

    done = subprocess.run(
        [*map(str, command + patience)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=230 * PATIENCE
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    found = json.loads((run / "storm.json").read_text())
    assert found["findings"] == []
    assert found["exchanges"]["identical"] > 100
    faults = re.search(r"\d+ gusts, (\d+) faults, 0 findings", done.stdout)
    assert faults is not None
    assert int(faults[1]) >= 20
