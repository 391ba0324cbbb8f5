"""The comparison of policies with a planner that knows everything."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from scenario.topology import load as load_topology
from testbed.errors import UserError
from testbed.experiments import policies
from testbed.experiments.policies import Case, draw, outcome, shares

TOPOLOGIES = Path(__file__).resolve().parents[4] / "topologies"
CASE = Case("poliqi", 0.8, 1, "basic")


def test_no_policy_carries_more_than_the_planner_and_the_calendar_breaks_no_session():
    """On one load of PoliQI, of which something has to be refused."""
    topology, case = load_topology("poliqi", TOPOLOGIES), Case("poliqi", 2.5, 1, "basic")

    found = outcome(case, {"poliqi": topology})

    assert 0 < found.best < found.offered == len(draw(topology, case))
    assert all(number <= found.best for number in found.unbroken.values())
    assert found.broken["calendar"] == 0
    assert found.unbroken["calendar"] >= max(found.unbroken[name] for name in ("none", "eq1", "reserve"))
    assert found.unbroken["selective, widest"] > found.unbroken["calendar, widest"]


def test_calendar_accepts_as_many_as_a_planner_that_does_not_know_who_will_come(tmp_path, monkeypatch):
    """At least 0.95 of them. One that knows the load accepts more, and still fewer than the one that knows all."""
    monkeypatch.setattr(policies, "LOADS", (2.5,))
    arguments = ["--seeds", "3", "--networks", "poliqi", "--out", str(tmp_path)]
    assert policies.main(arguments, topologies=TOPOLOGIES, results=tmp_path) == 0
    rows = list(csv.DictReader((tmp_path / "policies" / "outcomes.csv").read_text().splitlines()))
    accepted = {
        policy: sum(int(row["unbroken"]) for row in rows if row["policy"] == policy)
        for policy in ("calendar", policies.ONE_BY_ONE, policies.KNOWS_THE_LOAD)
    }

    best = sum(int(row["planner"]) for row in rows if row["policy"] == "calendar")
    assert accepted["calendar"] >= 0.95 * accepted[policies.ONE_BY_ONE]
    assert accepted[policies.ONE_BY_ONE] < accepted[policies.KNOWS_THE_LOAD] < best


def test_planner_is_not_asked_where_a_policy_carries_all_that_is_offered(monkeypatch):
    """It can do no better; and on large networks it takes a while to find that out."""
    monkeypatch.setattr(policies, "best_acceptance", pytest.fail)

    found = outcome(Case("poliqi", 0.3, 1, "basic"), {"poliqi": load_topology("poliqi", TOPOLOGIES)})

    assert found.best == found.offered
    assert found.unbroken["calendar"] == found.offered


def test_same_case_is_the_same_sessions():
    """And another seed others."""
    topology = load_topology("poliqi", TOPOLOGIES)

    assert draw(topology, CASE) == draw(topology, CASE)
    assert draw(topology, CASE) != draw(topology, Case("poliqi", 0.8, 2, "basic"))


def test_share_is_a_mean_over_loads_with_its_interval():
    """Of two loads with 0.5 and 1.0: 0.75, and a wide one."""
    found = [
        policies.Outcome(CASE, 10, 8, {"none": number}, {"none": 0}) for number in (4, 8)
    ]  # fmt: skip

    mean, half = shares(found, "none")

    assert mean == 0.75
    assert 3.17 < half < 3.18


def test_table_figure_and_outcomes_are_written(tmp_path, capsys, monkeypatch):
    """For one network, in a minute; the table is printed, too."""
    monkeypatch.setattr(policies, "LOADS", (0.5, 0.6, 0.9))
    arguments = ["--quick", "--networks", "pair", "--out", str(tmp_path)]

    assert policies.main(arguments, topologies=TOPOLOGIES, results=tmp_path) == 0

    out = tmp_path / "policies"
    assert (out / "table.txt").read_text() == capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"figure.svg", "figure.pdf", "figure.png", "outcomes.csv"}
    rows = list(csv.DictReader((out / "outcomes.csv").read_text().splitlines()))
    assert len(rows) == 2 * 3 * (len(policies.POLICIES) + 2)


def test_series_goes_on_where_it_was_interrupted_unless_something_else_is_compared(tmp_path, monkeypatch):
    """More loads are added to those that are there; another mode is another series."""
    monkeypatch.setattr(policies, "LOADS", (0.5,))
    arguments = ["--networks", "pair", "--out", str(tmp_path)]
    assert policies.main([*arguments, "--seeds", "1"], topologies=TOPOLOGIES, results=tmp_path) == 0
    raw = tmp_path / "policies" / "raw"
    first = raw / "pair_0-5_0.json"
    before = first.stat().st_mtime_ns

    assert policies.main([*arguments, "--seeds", "2"], topologies=TOPOLOGIES, results=tmp_path) == 0

    assert first.stat().st_mtime_ns == before
    assert len([path for path in raw.iterdir() if "more" not in path.name]) == 2
    with pytest.raises(UserError, match=r"a series with other settings .* --again to begin anew"):
        policies.main([*arguments, "--mode", "otp"], topologies=TOPOLOGIES, results=tmp_path)


def test_table_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    """As in a folder of root's."""
    monkeypatch.setattr(policies, "LOADS", (0.5,))
    (tmp_path / "policies" / "table.txt").mkdir(parents=True)

    with pytest.raises(UserError, match=r"cannot write \S+/table.txt: Is a directory: choose another --out"):
        policies.main(
            ["--networks", "pair", "--seeds", "1", "--out", str(tmp_path)], topologies=TOPOLOGIES, results=tmp_path
        )
