"""The fault storm in short: some twenty faults over a real network, from which it heals each time."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from telemetry import journal
from tests.support.running import PYTHON, ROOT
from tests.support.waiting import PATIENCE

SEED = 1730  # every kind of fault is among them, and of what can be killed each is
# The leader is killed and sleeps, the primary is killed and cut off: all for longer than it takes to take over.
SPARE_SEED = 39055
# KMEs of real devices are killed, slow and cut off; and a node beside one is killed.
DEVICES, DEVICES_SEED, DEVICES_FAULTS = 2, 687, 8


def weathered(run: Path, *options: object, least: int = 100) -> tuple[dict[str, Any], int]:
    """What a storm found that a network weathered, and how many faults; foreign clients had more than `least` keys."""
    command = [PYTHON, "-P", "-m", "testbed.storm", "--run-dir", run, *options]
    patience = ["--within", 20 * PATIENCE]  # the machine runs other tests beside it

    done = subprocess.run(
        [*map(str, command + patience)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=400 * PATIENCE
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    found = json.loads((run / "storm.json").read_text())
    assert found["findings"] == []
    assert found["exchanges"]["identical"] > least
    faults = re.search(r"\d+ gusts, (\d+) faults, 0 findings", done.stdout)
    assert faults is not None
    return found, int(faults[1])


def test_network_heals_from_every_gust_of_a_short_storm(tmp_path):
    """Exit status 0: pairs served again, sessions open, keys equal, nobody dead, audit clean, nothing left behind."""
    _, faults = weathered(tmp_path / "storm", "--seed", SEED, "--faults", 20, "--longest", 2)

    assert faults >= 20


def test_network_whose_qcs_have_real_devices_heals_from_their_faults_too(tmp_path):
    """Keys of GS QKD 014 come again, in the same order at both ends; the audit goes by what the nodes tell of them."""
    run = tmp_path / "storm"
    options = ("--seed", DEVICES_SEED, "--faults", DEVICES_FAULTS, "--longest", 3, "--devices", DEVICES)
    found, _ = weathered(run, *options, least=20)

    assert {"device-kill", "device-slow", "device-cut"} <= found["healed_ms"].keys()
    laid = [event for node in ("government", "military") for event in journal.read(
        run / "nodes" / node / "journal.jsonl", "device_block")]  # fmt: skip
    assert {event["qc"] for event in laid} >= {"government-military/1"}
    left = [path for pattern in ("*.key", "local.db*", "pki", "db") for path in (run / "devices").rglob(pattern)]
    assert not left, "what is secret is erased"


@pytest.mark.slow
def test_network_with_a_database_that_fails_over_and_two_controllers_heals_too(tmp_path):
    """And nobody but the network itself has others take over; some two minutes."""
    options = ("--seed", SPARE_SEED, "--faults", 12, "--longest", 12, "--database", "ha", "--controller", "ha")
    found, _ = weathered(tmp_path / "storm", *options)

    assert {"kill", "pause", "partition"} <= found["healed_ms"].keys()
    assert min(found["takeovers"].values()) >= 1, found["takeovers"]
