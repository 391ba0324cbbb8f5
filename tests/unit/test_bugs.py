"""A bug of ours is in the log with its place and without its text; in a vital thread it ends the process."""

from __future__ import annotations

import errno
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry import bugs, journal
from telemetry.journal import Journal

LOG = logging.getLogger("test")
VALUE = "5ec2e7"


@pytest.fixture
def written(tmp_path: Path) -> Journal:
    """A journal."""
    return Journal(tmp_path / "journal.jsonl", "test")


def fail() -> None:
    """Raise what quotes data, because of what quotes data."""
    try:
        int(VALUE)
    except ValueError as error:
        raise KeyError(VALUE) from error


def test_report_names_type_and_place_and_quotes_no_data(caplog):
    """The text of an exception may be key material."""
    try:
        int("5ec2e7")
    except ValueError as error:
        bugs.report(logging.getLogger("test"), "counting", error)

    assert "counting: a bug of ours, ValueError" in caplog.text
    assert "test_bugs.py" in caplog.text
    assert "5ec2e7" not in caplog.text.replace('int("5ec2e7")', "")  # the line of the source is no data


def test_report_has_the_places_of_what_an_exception_was_raised_from_too(caplog):
    """Where it was caught is seldom where the bug is."""
    with pytest.raises(KeyError) as caught:
        fail()

    bugs.report(LOG, "keeping keys", caught.value)

    assert caplog.text.index("KeyError at") < caplog.text.index("ValueError at") < caplog.text.index("int(VALUE)")
    assert VALUE not in caplog.text


def test_report_is_an_event(written, tmp_path):
    """Of the same name everywhere, so that whoever sums a run up finds them all."""
    bugs.report(LOG, "keeping keys", KeyError(VALUE), written, node="a")

    (event,) = journal.read(tmp_path / "journal.jsonl", bugs.EVENT)
    assert (event["what"], event["error"], event["node"]) == ("keeping keys", "KeyError", "a")


def test_report_survives_a_journal_that_cannot_be_written(written, caplog):
    """A full disk must not end the thread that reports one."""
    written.close()
    bugs.report(LOG, "keeping keys", KeyError(VALUE), written)

    assert "KeyError" in caplog.text


def full_database(directory: Path) -> sqlite3.Error:
    """What SQLite raises when there is no room."""
    with sqlite3.connect(directory / "db") as db:
        db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.Error) as caught:
            db.execute("CREATE TABLE t (a)")
    return caught.value


@pytest.mark.parametrize("raised", [lambda _: OSError(errno.ENOSPC, VALUE), full_database], ids=["file", "database"])
def test_full_disk_is_no_bug_and_is_named(raised, written, tmp_path, caplog):
    """It passes, and no line of code is to be mended for it."""
    bugs.report(LOG, "keeping keys", raised(tmp_path), written)

    assert bugs.MARK not in caplog.text
    assert VALUE not in caplog.text
    assert [e["event"] for e in journal.read(tmp_path / "journal.jsonl")] == [bugs.REFUSED]


def test_vital_thread_that_fails_ends_the_process_loudly():
    """With the place on standard error, and a status that is not 0."""
    script = (
        "import threading\nfrom telemetry import bugs\n"
        "bugs.vital_thread(lambda n: 1 // n, 0, name='clock').start()\nthreading.Event().wait(30)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)

    assert done.returncode == bugs.STATUS
    assert "thread clock: a bug of ours, ZeroDivisionError" in done.stderr
    assert "<string>" in done.stderr
