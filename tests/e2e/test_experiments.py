"""Experiments on real networks, as a user makes them: results, a run that fails, one that is interrupted."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from simulation.supply import Uniform
from testbed.experiments.experiment import Seen
from testbed.experiments.kinds import fig7, latency
from tests.support.running import ROOT, command, finished, kill
from tests.support.waiting import until
from tests.unit.testbed.experiments.test_series import SETTINGS

RUNS = ROOT / "runs"
# Times are before --quick divides them.
TINY = """
name: tiny
applications: 6
gap_s: {constant: 1}
length_s: {constant: 7}
interval_s: {constant: 2.5}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


class Series:
    """`experiment table1` under way."""

    def __init__(self, out: Path, workload: Path, number: int) -> None:
        self._output = out.with_suffix(f".{number}.txt")
        options = ("table1", "--quick", "--repeat", 3, "--seed", 1, "--workload", workload, "--out", out)
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                command("experiment", *options), stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    @property
    def text(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.text or self.process.poll() is not None)
        assert text in self.text

    def ended(self) -> int:
        return self.process.wait(120)


def folder(out: Path, name: str) -> Path:
    """Of that experiment under the load `tiny`."""
    return out / f"{name}-tiny"


def document(out: Path, name: str) -> dict:
    return json.loads((folder(out, name) / "results.json").read_text())


def real(out: Path, name: str) -> list[Seen]:
    """What the phases of an experiment showed."""
    return [Seen(json.loads(path.read_text())) for path in sorted((folder(out, name) / "raw").glob("repeat*.json"))]


def run_directories() -> set[Path]:
    """Folders of runs that were given none; of other runs there are links."""
    return {path for path in RUNS.glob("*") if path.is_dir() and not path.is_symlink()}


def test_failed_run_is_reported_and_made_good_and_an_interrupted_series_goes_on(tmp_path, tiny):
    """A node is killed in the first of three runs; a second start is interrupted; a third one finishes."""
    out = tmp_path / "out"
    before = run_directories()
    first = Series(out, tiny, 1)
    first.wait_for("run 1 of 3")
    (run,) = until(lambda: run_directories() - before)
    assert until(lambda: kill(f"{run}/config/node-finance.json"))

    assert first.ended() == 1, first.text
    assert re.search(r"FAILED: repeat01_very-low: .*node-finance", first.text), first.text
    assert "1 PHASES FAILED and are left out" in first.text
    found = document(out, "table1")
    assert [f["phase"] for f in found["failed"]] == ["repeat01_very-low"]
    assert {row["repeats"] for row in found["rows"]} == {2}
    assert "repeat01_very-low" in (out / "report.html").read_text()
    assert run.is_dir()
    assert not list(run.rglob("*.key"))
    others = {p.name: p.read_bytes() for p in (folder(out, "table1") / "raw").iterdir() if "failed" not in p.name}
    assert len(others) == 2

    second = Series(out, tiny, 2)
    second.wait_for("run 1 of 1")
    second.process.send_signal(signal.SIGINT)

    assert second.ended() == 130, second.text
    assert "2 of 3 runs are there already" in second.text
    assert "the same command goes on from here" in second.text
    assert "Traceback" not in second.text

    third = Series(out, tiny, 3)

    assert third.ended() == 0, third.text
    found = document(out, "table1")
    assert found["failed"] == []
    assert {row["repeats"] for row in found["rows"]} == {3}
    assert {row["labels"]["step"] for row in found["rows"]} == {"t1", "t2", "t3", "t4", "ask_connection", "whole"}
    assert {row["samples"] for row in found["rows"]} == {18}
    assert {name: (folder(out, "table1") / "raw" / name).read_bytes() for name in others} == others
    check_floors(real(out, "table1"))
    check_qcs(real(out, "table1"))


@pytest.mark.slow
def test_quick_figure_8_has_all_scenarios_measures_and_the_planner(tmp_path, tiny):
    """From the command line to figures and report."""
    out = tmp_path / "out"
    done = finished("experiment", "fig8", "--quick", "--seed", 2, "--workload", tiny, "--out", out, timeout_s=200)

    assert done.returncode == 0, done.stdout + done.stderr
    found = document(out, "fig8")
    assert (found["seed"], found["quick"], found["failed"]) == (2, True, [])
    assert found["shaper"]
    shares = {(row["labels"]["scenario"], row["measure"]): row["median"] for row in found["rows"]}
    measures = {"applications refused", "connections with an error", "key requests failed"}
    scenarios = {"BASIC", "QKP", "BASIC+REJ", "QKP+REJ"}
    assert {(s, m) for s in scenarios for m in measures} <= set(shares)
    assert {s for s, m in shares if m not in measures} == {"BASIC+REJ", "QKP+REJ"}
    assert all(0 <= share <= 100 for share in shares.values())
    assert {row["repeats"] for row in found["rows"]} == {2}
    with (folder(out, "fig8") / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"])
    with (folder(out, "fig8") / "events.csv").open() as file:
        events = list(csv.DictReader(file))
    assert {e["scenario"] for e in events} == scenarios
    assert len([e for e in events if e["event"] == "session_requested"]) == 2 * 4 * 6
    assert (folder(out, "fig8") / "figure.png").stat().st_size > 10_000
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert "A quick look" in page
    check_pools(real(out, "fig8"))


def check_qcs(phases: list[Seen]) -> None:
    """QCs make as much in each slot as in virtual time under the seed that all scenarios of a repeat have."""
    for document in (phase.document for phase in phases):
        made = defaultdict(list)
        for qc, _, n_bytes in document["made"]:
            made[qc].append(n_bytes)
        assert len(made) == 5
        for qc, found in made.items():
            supply = Uniform(*document["qc_rate"], f"{document['seed']}/{qc}", len(found))
            supply.made(-1.0)
            assert found == [after - before for before, after in pairwise(supply.heads)]


def check_floors(phases: list[Seen]) -> None:
    """Real runs have what latency needs: times of keys and sessions, and floors by the pings of the same run."""
    rows = latency.rows(phases, SETTINGS)

    assert {row.measure for row in rows} >= {"delivery", "floor of delivery", "floor of initialisation"}
    assert all(row.estimate.low > 0 for row in rows)


def check_pools(phases: list[Seen]) -> None:
    """And what Figure 7 needs: in QKP refills and pool hits apart, and the mean over both."""
    rows = fig7.rows([p for p in phases if p.labels["scenario"] == "QKP"], SETTINGS)

    assert {row.labels["keys"] for row in rows} == {"all keys", "refill", "pool hit"}
