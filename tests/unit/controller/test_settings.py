"""What an operator has set, kept by the controller."""

from __future__ import annotations

import sqlite3

import pytest

from controller.network.graph import Graph
from controller.network.nodes import Link, LinkEnd
from controller.network.settings import Parameters, Settings
from controller.network.store import FileStore
from telemetry import journal

_END = LinkEnd("", "a-b/1", True, "ACTIVE", 0, 0, 0, None)


@pytest.fixture
def start(tmp_path):
    """A function that starts a controller's settings, again and again on what the one before has left."""

    stores = []

    def settings():
        stores.append(FileStore(tmp_path / "controller.db"))
        written = journal.Journal(tmp_path / "journal.jsonl", "ctl")
        return Settings(Graph(1.0), Parameters(ttl_slots=15), written, stores[-1])

    yield settings
    for store in stores:
        store.close()


def test_journal_says_at_each_start_which_parameters_count(start, tmp_path):
    """A change that was kept may be missing there, if the controller was killed before it wrote it."""
    start().set_parameters({"ttl_slots": 20})
    start()

    told = journal.read(tmp_path / "journal.jsonl", "parameters")
    assert [event["ttl_slots"] for event in told] == [15, 20, 20]


def test_what_cannot_be_kept_is_not_changed(start):
    """The operator reads that it failed; nodes that hear of something later must not hear of it all the same."""
    settings, link = start(), Link("a-b/1", "L", "a", "b", _END, _END)
    settings._store._db.execute("PRAGMA query_only = ON")

    for change in (
        lambda: settings.set_parameters({"ttl_slots": 20}),
        lambda: settings.set_rate(link, 1, 2),
        lambda: settings.set_generation(link, enabled=False),
    ):
        with pytest.raises(sqlite3.Error):
            change()

    assert (settings.parameters.ttl_slots, settings.rates, settings.wishes("a"), settings.version) == (15, {}, {}, 0)
