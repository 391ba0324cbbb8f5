"""Journals as they are read."""

from __future__ import annotations

import json

import pytest

from telemetry import journal


@pytest.fixture
def path(tmp_path):
    """A journal of three events, the last of which a crash cut off."""
    found = tmp_path / "journal.jsonl"
    written = journal.Journal(found, "me")
    for name in ("one", "two", "three"):
        written.event(name)
    found.write_bytes(found.read_bytes()[:-1])
    return found


def test_line_that_a_crash_cut_off_is_left_out(path):
    """Whoever writes it is in the middle of it, too."""
    assert [e["event"] for e in journal.read(path)] == ["one", "two"]
    assert [e["event"] for e in journal.read(path, "two", "three")] == ["two"]


def test_events_are_read_as_they_are_asked_for(path):
    """A journal may be longer than the memory: what comes later does not count yet."""
    events = journal.events(path)
    first = next(events)
    path.write_text("no journal\n" * 3)

    assert first["event"] == "one"
    with pytest.raises(json.JSONDecodeError):
        list(journal.events(path))


def test_missing_journal_has_no_events(tmp_path):
    """Of who never came to write one."""
    assert journal.read(tmp_path / "journal.jsonl") == []
