"""The paper's four times of an initialisation (section IV-A, Figure 4), on live networks, without and with delay."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from testbed.experiments import outcome
from testbed.experiments.outcome import Initialisation
from tests.e2e.running import PATIENCE, finished

DELAY_MS = 20
# a - b - c, controller and database at a: round trips of 40 ms to b, of 80 ms to c.
ROW = """
name: row
nodes: [{name: a}, {name: b}, {name: c}]
links:
  - {a: a, b: b, delay_ms: 0, qcs: [{low_bytes_per_slot: 900, high_bytes_per_slot: 1000}]}
  - {a: b, b: c, delay_ms: 0, qcs: [{low_bytes_per_slot: 900, high_bytes_per_slot: 1000}]}
saes:
  - {name: one, node: a}
  - {name: two, node: b}
  - {name: three, node: c}
  - {name: four, node: a}
  - {name: five, node: b}
  - {name: six, node: c}
"""
R_B, R_C = 2 * DELAY_MS, 4 * DELAY_MS
Best = dict[tuple[str, ...], Initialisation]


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Best]:
    """By delay and path: each time as it was at its shortest, that is over connections that were open already."""
    folder = tmp_path_factory.mktemp("four_times")
    (folder / "row.yaml").write_text(ROW)
    (folder / "load.yaml").write_text(
        "{name: again, applications: 24, gap_s: {constant: 0.5}, length_s: {constant: 0.2}, interval_s: {constant: 5}}"
    )
    done = finished(
        # The rest before a load is a TTL: a short one.
        "experiment", "sweep", "--over", f"delay=0,{DELAY_MS}", "--over", "ttl=3", "--quick", "--speed", 1,
        "--repeat", 2, "--seed", 1,
        "--topology", folder / "row.yaml", "--workload", folder / "load.yaml", "--out", folder,
        timeout_s=240 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {delay: _best(folder.glob(f"sweep-again/raw/*_{delay}_3.json")) for delay in (0, DELAY_MS)}


def _best(phases: Iterable[Path]) -> Best:
    found: dict[tuple[str, ...], list[Initialisation]] = {}
    for phase in phases:
        for one in outcome.initialisations(json.loads(phase.read_text())["events"]):
            found.setdefault(one.path, []).append(one)
    return {
        path: Initialisation(
            "", path, *(min(getattr(i, t) for i in all_) for t in ("t1", "t2", "t3", "t4", "ask_connection", "whole"))
        )
        for path, all_ in found.items()
    }


def test_an_application_waits_longer_than_its_node(best):
    """t1 contains t2, and t3 contains t4; the master's side, which has a path chosen and nodes informed, the whole."""
    for one in (one for delayed in best.values() for one in delayed.values()):
        assert one.t1 > one.t2 > 0
        assert one.t3 > one.t4 > 0
        assert one.ask_connection > one.t1
        assert one.whole > one.t3


@pytest.mark.parametrize(
    ("path", "t2", "t4", "t3"),
    [
        # From the slave's node to the controller. From the master's, and from the controller to whom it informs first.
        (("a", "b"), R_B, R_B, R_B),
        (("b", "a"), 0, R_B, R_B),
        (("c", "b"), R_B, R_C + R_B, R_C + R_B),
        # Over two hops all nodes are informed first, and the master's asks both others for the way.
        (("a", "b", "c"), R_C, R_C, R_C + R_B + R_C),
        (("c", "b", "a"), 0, R_C + R_C, R_C + R_C + R_B + R_C),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_times_grow_by_the_round_trips_of_the_protocol(best, path, t2, t4, t3):
    """As docs/paper.md says; by one round trip more they would be found out."""
    without, with_delay = (best[delay][path] for delay in (0, DELAY_MS))

    for name, trips in {"t1": t2, "t2": t2, "t4": t4, "t3": t3}.items():
        grown = getattr(with_delay, name) - getattr(without, name)
        assert trips - 0.5 * R_B * PATIENCE < grown < trips + R_B * PATIENCE, (name, trips, grown)
