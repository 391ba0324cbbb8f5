"""PoliQI over two and over three machines, at length: `make test-machines`. The suite has shorter forms."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machines import Machines, placement
from tests.support.running import PYTHON, Running
from tests.support.waiting import PATIENCE, until

DELAY_MS = 5
# Plenty of key material: for want of it no pair is to go without.
OPTIONS = ("--delay", DELAY_MS, "--seed", 5, "--qc-rate", "900-1000", "--no-dashboard")
PLACES = {
    "two": {"west": ["finance", "university"]},
    "three": {"west": ["finance", "university"], "east": ["military"]},
}
FAULTS = 30
NODES = ["government", "military", "telecom", "finance", "university"]
FIBRES = list(zip(NODES, [*NODES[1:], NODES[0]], strict=True))
CLEAN = {"lo", "eth0"}


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[Machines]:
    """West and east, beside home."""
    with Machines(tmp_path_factory.mktemp("lab") / "lab", ["west", "east"]) as found:
        yield found


def said(running: Running, *words: object) -> str:
    """What `qkd` prints, once it has done what it was asked for."""
    argv = [PYTHON, "-P", "-m", "testbed.qkd", "--run", running.directory, *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary(run: Path) -> dict[str, Any]:
    """The summary of a run that has ended."""
    return json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("places", PLACES)
def test_poliqi_over_several_machines_has_keys_between_all_and_fibres_as_configured(machines, tmp_path, places):
    """Over one hop and several; round trips within a millisecond of what is configured, once the machine has a quiet
    moment; the audit is clean, and no machine has anything left.
    """
    placed, run = placement(tmp_path / "machines.yaml", **PLACES[places]), tmp_path / "run"
    running = Running(run, *OPTIONS, "--machines", placed, "--sessions", 20, on=machines)
    try:
        running.wait_up()
        for a, b in FIBRES:
            assert until(lambda a=a, b=b: abs(round_trip_ms(running, a, b) - 2 * DELAY_MS) < 1)
        until(lambda: min(keys(run)) > 20)
        assert running.exit() == 0, running.text
    finally:
        running.stop()
    found = summary(run)
    assert found["audit"]["verdict"] == "clean"
    assert found["sessions"]["admitted"] == 20
    assert min(found["keys"]["single_hop"], found["keys"]["multi_hop"]) > 20
    assert found["pairs"]["compared"] == found["pairs"]["identical"]
    for name in machines.names:
        assert (machines.links(name), machines.processes(name)) == (CLEAN, {})


def round_trip_ms(running: Running, a: str, b: str) -> float:
    """Of the fibre between two datacenters, as it is measured now."""
    return float(re.search(r"([\d.]+) ms measured now", said(running, "fibre", a, b, "reset"))[1])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("places", PLACES)
def test_storm_over_several_machines_heals_after_each_gust_and_its_audit_is_clean(machines, tmp_path, places):
    """That of `make storm`: processes killed and paused, fibres cut, QCs broken, disks full, on whatever machine."""
    placed = placement(tmp_path / "machines.yaml", **PLACES[places])
    options = ["--machines", placed, "--delay", 2, "--seed", 3, "--faults", FAULTS, "--run-dir", tmp_path / "run"]

    done = subprocess.run(
        machines.at_home([str(PYTHON), "-P", "-m", "testbed.storm", *map(str, options)]), env=machines.environment,
        capture_output=True, text=True, timeout=800 * PATIENCE, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert (done.returncode, done.stdout.splitlines()[-1][-11:]) == (0, " 0 findings"), done.stdout + done.stderr
    for name in machines.names:
        assert (machines.links(name), machines.processes(name)) == (CLEAN, {})


def keys(run: Path) -> list[int]:
    """How many keys the applications of each datacenter have had."""
    return [keys_of(run, folder.name) for folder in sorted((run / "saes").iterdir())]


def test_machine_that_is_cut_off_is_missed_and_ends_by_itself(machines, tmp_path):
    """Home tells of it within seconds, and goes on; the machine hears nothing more, and leaves nothing."""
    placed, run = placement(tmp_path / "machines.yaml", **PLACES["three"]), tmp_path / "run"
    running = Running(run, *OPTIONS, "--machines", placed, "--sessions", 10, on=machines)
    try:
        running.wait_up()
        machines.attach("east", up=False)

        running.wait_for("run.py: node-military ended on its own: .*machine east is gone, and this with it")
        until(lambda: not machines.processes("east"), 90)
        assert machines.links("east") == CLEAN
        counted = keys(run)
        until(lambda: sum(keys(run)) > sum(counted))
        assert running.exit() == 1
    finally:
        running.stop()
        machines.attach("east", up=True)
    assert [line for line in summary(run)["died"] if line.startswith("machine-east")]


def test_machine_that_is_killed_under_load_costs_no_other_pair_its_keys(machines, tmp_path):
    """The pairs that are left have keys again; the audit is clean, with the account of what was killed."""
    placed, run = placement(tmp_path / "machines.yaml", **PLACES["three"]), tmp_path / "run"
    running = Running(run, *OPTIONS, "--machines", placed, "--sessions", 20, on=machines)
    try:
        running.wait_up()
        said(running, "fault", "machine", "east")

        counted = {name: keys_of(run, name) for name in ("government", "telecom", "finance", "university")}
        until(lambda: all(keys_of(run, name) > before for name, before in counted.items()))
        assert running.exit() == 0, running.text
    finally:
        running.stop()
    assert summary(run)["audit"]["verdict"] == "clean"
    assert summary(run)["died"] == []


def keys_of(run: Path, node: str) -> int:
    """How many keys the applications of one datacenter have had."""
    return (run / "saes" / node / "journal.jsonl").read_text().count('"event":"key"')
