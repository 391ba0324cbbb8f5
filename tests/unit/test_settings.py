"""What an operator has set, kept by the controller."""

from __future__ import annotations

import pytest

from controller.graph import Graph
from controller.parameters import Parameters
from controller.settings import Settings
from controller.store import Store
from telemetry import journal


@pytest.fixture
def start(tmp_path):
    """A function that starts a controller's settings, again and again on what the one before has left."""

    def settings():
        written = journal.Journal(tmp_path / "journal.jsonl", "ctl")
        return Settings(Graph(1.0), Parameters(ttl_slots=15), written, Store(tmp_path / "controller.db"))

    return settings


def test_journal_says_at_each_start_which_parameters_count(start, tmp_path):
    """A change that was kept may be missing there, if the controller was killed before it wrote it."""
    start().set_parameters({"ttl_slots": 20})
    start()

    told = journal.read(tmp_path / "journal.jsonl", "parameters")
    assert [event["ttl_slots"] for event in told] == [15, 20, 20]
