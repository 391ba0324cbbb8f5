"""An audit of keys that went over several node-disjoint paths, and of records of them that are false."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etsi.gs004 import QoS
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.workload import Arrival
from simulation.engine import Simulation
from simulation.records import Recorder
from testbed import audit

THETA = """
name: theta
nodes: [{name: s}, {name: a}, {name: b}, {name: c}, {name: t}]
links:
  - {a: s, b: a, length_km: 10}
  - {a: a, b: t, length_km: 10}
  - {a: s, b: b, length_km: 10}
  - {a: b, b: t, length_km: 10}
  - {a: s, b: c, length_km: 10}
  - {a: c, b: t, length_km: 10}
saes: [{name: alice, node: s}, {name: bob, node: t}]
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Path]:
    """A run in virtual time, in that mode, between s and t, which three paths join."""

    def build(mode: str) -> Path:
        (tmp_path / "theta.yaml").write_text(THETA)
        topology = load(str(tmp_path / "theta.yaml"), tmp_path)
        session = Arrival(0.0, *topology.saes, 30.0, QoS(128, 1.0))
        scenario = Scenario(topology, [session], {"mode": mode, "admission": "none"}, seed=1)
        simulation = Simulation(scenario)
        recorder = simulation.witness = Recorder(tmp_path / "run", scenario, simulation.qcs)
        assert simulation.run().made > 10
        recorder.close(simulation.now_s)
        return tmp_path / "run"

    return build


def change(run: Path, document: Callable[[dict[str, Any]], None]) -> None:
    """Have the records be others."""
    found = json.loads((run / audit.RECORDS).read_text())
    document(found)
    (run / audit.RECORDS).write_text(json.dumps(found))


def without(*nodes: str) -> Callable[[dict[str, Any]], None]:
    """Records in which these nodes took nothing for the first key, and told of nothing."""

    def alter(document: dict[str, Any]) -> None:
        request = document["allocations"][0][0]
        for node in nodes:
            account = document["nodes"][node]
            gone = [take for take in account["taken"] if take[6] == request]
            account["taken"] = [take for take in account["taken"] if take[6] != request]
            for take in gone:
                (stream,) = [s for s in account["streams"] if s["qc"] == take[0]]
                stream["used"] -= take[3] - take[2]
                stream["expired"] += take[3] - take[2]

    return alter


def silenced(run: Path, *nodes: str) -> None:
    """Have their journals not tell of it, either."""
    request = json.loads((run / audit.RECORDS).read_text())["allocations"][0][0]
    for node in nodes:
        journal = run / "nodes" / node / "journal.jsonl"
        lines = [line for line in journal.read_text().splitlines(keepends=True) if request not in line]
        journal.write_text("".join(lines))


@pytest.mark.parametrize("mode", ["paths-2", "paths-3", "paths-2of3"])
def test_true_records_are_clean(run, mode):
    """In each of the modes."""
    assert audit.load(run(mode)).to_json()["findings"] == []


def test_key_without_a_part_that_it_needs_is_found(run):
    """All parts are needed, and the node between has taken no bytes for its one."""
    folder = run("paths-3")
    silenced(folder, "a")
    change(folder, without("a"))

    findings = audit.load(folder).to_json()["findings"]

    assert any("node a did not take its bytes on QC" in finding for finding in findings)


def test_key_may_do_without_a_part_where_others_are_enough(run):
    """One of three paths brought nothing; not two of them."""
    folder = run("paths-2of3")
    silenced(folder, "a")
    change(folder, without("a"))
    assert not any("did not take its bytes" in finding for finding in audit.load(folder).to_json()["findings"])

    silenced(folder, "b")
    change(folder, without("b"))
    assert any("did not take its bytes" in finding for finding in audit.load(folder).to_json()["findings"])


def test_relay_on_two_paths_of_a_key_is_found(run):
    """Its QCs are said to have given two of the parts."""

    def alter(document: dict[str, Any]) -> None:
        request = document["allocations"][0][0]
        rows = [row for row in document["allocations"] if row[0] == request]
        rows[2][2:6], rows[3][2:6] = rows[0][2:6], rows[1][2:6]

    folder = run("paths-2")
    change(folder, alter)

    findings = audit.load(folder).to_json()["findings"]

    assert any("its QCs do not join up to a path from s" in finding for finding in findings)
