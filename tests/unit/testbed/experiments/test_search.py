"""The search for the load that comes closest to the paper's Figure 8, and the record of it that ships."""

from __future__ import annotations

import csv
import re
from dataclasses import astuple
from pathlib import Path

import pytest

from testbed.experiments import search
from tests.unit.testbed.experiments.test_series import SETTINGS, WORKLOADS

DOCS = Path(__file__).resolve().parents[4] / "docs"
PAPERS = {
    ("BASIC", "connections with an error"): 25.4, ("BASIC", "key requests failed"): 4.4,
    ("QKP", "connections with an error"): 1.9, ("QKP", "key requests failed"): 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def record():
    with (DOCS / "closest.csv").open() as file:
        return list(csv.DictReader(file))


def setting(line):
    return search.Setting(
        float(line["gap_s"]), int(line["length_s"]), int(line["ttl_slots"]), line["on_key_failure"], line["pace"]
    )


def test_distance_is_none_from_the_papers_own_values_and_the_mean_factor_from_others():
    assert search.distance(PAPERS) == 0
    assert search.distance(PAPERS | {("BASIC", "connections with an error"): 51.3}) == pytest.approx(0.1733, abs=1e-4)


def test_record_has_every_setting_once_and_finalists_by_their_distance(record):
    first = record[: search.FINALISTS]

    assert sorted(map(repr, map(setting, record))) == sorted(map(repr, search.settings()))
    assert {line["loads"] for line in first} == {str(len(search.FINAL_SEEDS))}
    assert [line["distance"] for line in first] == sorted(line["distance"] for line in first)


def test_quick_look_has_every_value_of_what_the_paper_leaves_open():
    """So many settings apart as they are, no value is left out."""
    values = [set(column) for column in zip(*map(astuple, search.settings()), strict=True)]
    quick = search.settings()[:: search.QUICK_EVERY]

    assert len(quick) == 18
    assert [set(column) for column in zip(*map(astuple, quick), strict=True)] == values


def test_record_can_be_made_again(record):
    """The best of those that came to no final."""
    line = record[search.FINALISTS]
    found = search.shares(setting(line), SETTINGS.topology, WORKLOADS["paper"], search.SEEDS)

    assert f"{search.distance(found):.3f}" == line["distance"]
    assert [f"{share:.1f}" for share in found.values()] == [line[name] for name in line if name.endswith("%")]


def test_the_workload_that_ships_is_the_closest(record):
    """At a TTL that it cannot say itself."""
    best = setting(record[0])
    shipped = WORKLOADS["closest"]

    assert best.ttl_slots == 20
    assert (best.of(WORKLOADS["paper"]).to_json() | {"name": "", "description": ""}) == (
        shipped.to_json() | {"name": "", "description": ""}
    )


def test_the_page_quotes_the_record(record):
    """Each row of its table that names a setting."""
    page = (DOCS / "experiments.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if re.search(r"\| (session|application) \|", line)]
    quoted = [[part.strip() for cell in row for part in cell.split(",")] for row in rows]
    names = ["gap_s", "length_s", "ttl_slots", "on_key_failure", "pace"]
    figures = [name for name in record[0] if name.endswith("%")]
    lines = [[*(line[n] for n in names), *(line[n] for n in figures), line["distance"]] for line in record]

    assert len(quoted) >= 4
    assert all(row in lines for row in quoted)
    assert "@@" not in page
