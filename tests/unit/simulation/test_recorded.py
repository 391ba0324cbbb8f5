"""What a run was offered, offered again: by a file of requests, or as it was recorded, under other options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import simulate
from testbed.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = {"topologies": ROOT / "topologies", "workloads": ROOT / "workloads"}


def simulated(folder: Path, *arguments: str) -> dict:
    """What comes of it, for programs."""
    assert simulate.main([*arguments, "--run-dir", str(folder)], **FOLDERS) == 0
    found: dict = json.loads((folder / "summary.json").read_text())["virtual"]
    return found


def test_requests_of_a_file_are_the_requests_that_are_made(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    lines = [f"{10 + 0.5 * n},alice-mail,bob-mail" for n in range(20)]
    path.write_text("\n".join(["time_s,master,slave", *lines, ""]))

    found = simulated(tmp_path / "run", "--topology", "pair", "--requests", str(path), "--seed", "1")

    assert (found["offered"], found["requests"]) == (1, 20)


def test_recorded_run_is_offered_again_in_another_mode_and_on_another_network(tmp_path, capsys):
    """Of a run in virtual time: its journals are those of any run. The same options give the same again."""
    load = ("--workload", "paper", "--seed", "3")
    first = simulated(tmp_path / "first", *load)
    recorded = ("--recorded", str(tmp_path / "first"))

    same = simulated(tmp_path / "same", *recorded)
    other = simulated(tmp_path / "other", *recorded, "--mode", "otp")

    for what in ("offered", "requests", "unbroken", "key_errors"):
        assert same[what] == first[what]
    assert other["offered"] == first["offered"]
    assert sum(other["key_errors"].values()) <= sum(first["key_errors"].values())
    with pytest.raises(UserError, match=r"pair: expected an SAE '.*', which the recorded run had"):
        simulate.main([*recorded, "--topology", "pair"], **FOLDERS)


def test_two_loads_are_refused(tmp_path):
    with pytest.raises(UserError, match="--workload and --requests: choose one"):
        simulate.main(["--workload", "paper", "--requests", "x.csv"], **FOLDERS)
