"""What docs/results/ keeps: measured whole, at the paper's own speed, and shown as it was measured."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from testbed.experiments import command, report
from testbed.experiments.evaluation.results import CONFIDENCE
from testbed.experiments.kinds import latency

KEPT = Path(__file__).resolve().parents[4] / "docs" / "results"
FOLDERS = sorted(path.parent.name for path in KEPT.glob("*/results.json"))


def document(folder):
    """As it was written where it was measured."""
    return json.loads((KEPT / folder / "results.json").read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_kept_results_were_measured_whole_and_at_speed_1(folder):
    found = document(folder)

    assert (found["quick"], found["settings"]["speed"], found["failed"], found["warnings"]) == (False, 1, [], [])
    assert all(row["coverage"] >= CONFIDENCE for row in found["rows"])
    assert all(found["provenance"][name] for name in ("date", "commit", "machine"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_command_that_makes_kept_results_again_is_one(folder):
    """It stands beside them, with the seed, and with the topology if that is not the experiment's usual one."""
    words = shlex.split(document(folder)["command"])

    assert words[:4] == ["sudo", "python", "testbed/run.py", "experiment"]
    given = command._parser().parse_args(words[4:])
    assert given.seed == document(folder)["seed"]
    usual = next(e for e in command.EXPERIMENTS.values() if e.name == document(folder)["experiment"]).topology
    assert (given.topology or usual) == document(folder)["settings"]["topology"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_kept_median_lies_below_its_floor(folder):
    """Floors are those of `latency`, which has one for each of its figures."""
    medians = {(row["measure"], *row["labels"].items()): row["median"] for row in document(folder)["rows"]}
    floors = {key: medians.get((latency.FLOOR + key[0], *key[1:])) for key in medians if latency.FLOOR not in key[0]}

    assert [key for key, floor in floors.items() if floor is not None and medians[key] < floor] == []
    assert folder.partition("-")[0] != latency.NAME or None not in floors.values()


def test_pages_of_kept_results_are_made_of_them(tmp_path):
    """`make results` would write the very same."""
    shutil.copytree(KEPT, tmp_path / "results")

    report.publish(tmp_path / "nothing", list(command.EXPERIMENTS), tmp_path / "results")

    for page in ("README.md", "report.html"):
        assert (tmp_path / "results" / page).read_text() == (KEPT / page).read_text(), page
