"""Journals as they are written, also on a disk that is full for a while, and as they are read.

A limit on the size of files stands for the full disk: it, too, takes a part of a line and then no more.
"""

from __future__ import annotations

import errno
import json
import resource
import threading
from pathlib import Path

import pytest

from telemetry import journal
from telemetry.journal import Journal, read
from tests.support.waiting import until


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


@pytest.fixture
def room():
    """Sets how long files may be, None for any length."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes):
        soft = before[0] if n_bytes is None else n_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_events_wait_for_room_and_are_then_all_there_in_order(tmp_path, room):
    """Also the one of which a part was written."""
    book = Journal(tmp_path / "journal.jsonl", "me")
    book.event("before")
    room((tmp_path / "journal.jsonl").stat().st_size + 10)
    for number in range(100):
        book.event("meanwhile", number=number)
    assert book.is_behind
    assert [e["event"] for e in read(tmp_path / "journal.jsonl")] == ["before"]

    room(None)
    book.event("after")

    assert not book.is_behind
    found = read(tmp_path / "journal.jsonl")
    assert [e["event"] for e in found] == ["before", *["meanwhile"] * 100, "after"]
    assert [e["number"] for e in found[1:-1]] == list(range(100))


def test_events_for_which_memory_has_no_room_are_counted_and_told(tmp_path, room, monkeypatch):
    """What waits is bounded."""
    monkeypatch.setattr(journal, "_MOST_WAITING_BYTES", 1000)
    book = Journal(tmp_path / "journal.jsonl", "me")
    room(0)
    for number in range(100):
        book.event("meanwhile", number=number)
    room(None)
    book.event("after")

    *found, last = read(tmp_path / "journal.jsonl")

    assert last["event"] == "events_lost"
    assert last["number"] == 101 - len(found)
    assert 0 < len(found) < 20


def test_what_waits_is_written_when_the_journal_is_closed(tmp_path, room):
    """If there is room then."""
    book = Journal(tmp_path / "journal.jsonl", "me")
    room(0)
    book.event("last words")
    room(None)

    book.close()

    assert [e["event"] for e in read(tmp_path / "journal.jsonl")] == ["last words"]


def test_line_that_a_crash_cut_off_spoils_no_other(tmp_path):
    """The next start takes it away."""
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event":"whole"}\n{"event":"par')

    Journal(path, "me").event("next")

    assert [e["event"] for e in read(path)] == ["whole", "next"]


def test_closed_journal_refuses_events(tmp_path):
    """As a file does."""
    book = Journal(tmp_path / "journal.jsonl", "me")
    book.close()

    with pytest.raises(OSError, match="closed"):
        book.event("late")


@pytest.fixture
def new(tmp_path):
    """Where no journal is yet."""
    return tmp_path / "journal.jsonl"


def written(path: Path, number: int, **options: int) -> Journal:
    """A journal of so many events, whose files have room for some five."""
    made = Journal(path, "a", file_bytes=500, **options)
    for i in range(number):
        made.event("counted", number=i)
    return made


def numbers(path: Path) -> list[int]:
    """Of the events, as they are read."""
    return [e["number"] for e in journal.read(path, "counted")]


def test_journal_that_grows_long_begins_new_files_and_is_read_as_one(new):
    """Full files are compressed meanwhile, and kept from others as the first one is."""
    made = written(new, 100)
    until(lambda: not [f for f in new.parent.glob("*.jsonl") if f != new])

    full = sorted(new.parent.glob("*.gz"))
    assert len(full) > 10
    assert {file.stat().st_mode & 0o777 for file in full} == {0o600}
    assert numbers(new) == list(range(100))
    made.close()
    again = Journal(new, "a", file_bytes=500)
    again.event("counted", number=100)
    assert numbers(new) == list(range(101))
    again.close()


def test_oldest_events_go_when_there_are_too_many_and_the_journal_says_how_many(new):
    """So that a run of any length has its place, and an audit knows what it has not seen."""
    written(new, 100, most_files=3)

    until(lambda: "journal" not in {thread.name for thread in threading.enumerate()})

    kept = numbers(new)
    assert len(list(new.parent.glob("*.gz"))) <= 3
    assert 0 < kept[0] <= sum(e["number"] for e in journal.read(new, "events_lost"))
    assert kept == list(range(kept[0], 100))


def test_journal_is_read_while_it_begins_new_files(new):
    """No event twice, none left out, in the order in which they were written."""
    made = written(new, 1, most_files=1000)
    seen: list[list[int]] = []
    reader = threading.Thread(target=lambda: seen.extend(numbers(new) for _ in range(30)))
    reader.start()
    for i in range(1, 1500):
        made.event("counted", number=i)
    reader.join()
    made.close()

    assert len(seen) == 30
    assert all(found == list(range(len(found))) for found in seen)


def test_journal_goes_on_in_its_file_while_a_further_one_cannot_be_made(new, monkeypatch):
    """For want of room or descriptors; later one is begun, and nothing is missing."""
    made, opened = written(new, 0), journal._opened

    def refuse(path: Path) -> int:
        raise OSError(errno.ENOSPC, "no room", str(path))

    monkeypatch.setattr(journal, "_opened", refuse)
    for number in range(20):
        made.event("counted", number=number)
    assert numbers(new) == list(range(20))
    assert [file.name for file in new.parent.iterdir()] == [new.name]

    monkeypatch.setattr(journal, "_opened", opened)
    for number in range(20, 40):
        made.event("counted", number=number)
    made.close()
    assert numbers(new) == list(range(40))
