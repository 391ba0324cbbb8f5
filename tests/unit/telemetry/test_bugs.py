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


def ran(thread: str) -> subprocess.CompletedProcess[str]:
    """A process that starts this thread and says so at its own end, which comes once the thread has ended."""
    script = (
        "import asyncio, sys\nfrom telemetry import bugs\n"
        f"def fail(error):\n    raise error\nthread = bugs.{thread}\nthread.start()\nthread.join()\nprint('lives on')"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)


def test_vital_thread_that_fails_ends_the_process_loudly():
    """With the place on standard error, and a status that is not 0."""
    done = ran("vital_thread(lambda n: 1 // n, 0, name='clock')")

    assert (done.returncode, done.stdout) == (bugs.STATUS, "")
    assert "thread clock: a bug of ours, ZeroDivisionError" in done.stderr
    assert "<string>" in done.stderr


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt()", "asyncio.CancelledError()"])
def test_vital_thread_that_is_ended_by_what_is_no_exception_of_ours_ends_the_process_loudly(raised):
    """Python itself lets a thread end in silence that calls sys.exit()."""
    done = ran(f"vital_thread(fail, {raised}, name='clock')")

    assert (done.returncode, done.stdout) == (bugs.STATUS, "")
    assert f"thread clock: a bug of ours, {raised.partition('(')[0].rpartition('.')[2]}" in done.stderr


@pytest.mark.parametrize("asked", ["", ", stopped=lambda: False"])
def test_vital_thread_that_returns_though_nobody_stopped_it_ends_the_process_loudly(asked):
    """What it is for is done no more."""
    done = ran(f"vital_thread(lambda: None, name='clock'{asked})")

    assert (done.returncode, done.stdout) == (bugs.STATUS, "")
    assert "thread clock: a bug of ours: it has ended, and nobody had stopped it" in done.stderr


def test_vital_thread_that_was_stopped_returns_in_peace():
    """Who stops it says so before it returns."""
    done = ran("vital_thread(lambda: None, name='clock', stopped=lambda: True)")

    assert (done.returncode, done.stdout, done.stderr) == (0, "lives on\n", "")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("lambda: None", "thread page: a bug of ours: it has ended, and nobody had stopped it"),
        ("sys.exit", "thread page: a bug of ours, SystemExit"),
    ],
)
def test_watched_thread_that_ends_unasked_is_told_of_and_the_process_goes_on(target, told):
    """One that has more to do than this thread does, such as to take a network down."""
    done = ran(f"watched_thread({target}, name='page')")

    assert (done.returncode, done.stdout) == (0, "lives on\n")
    assert told in done.stderr


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        ("OSError(28, 'no')", 1, "clock: the machine refuses: No space left on device"),
        ("full()", 1, "clock: the machine refuses: the local database cannot be written"),
        ("RuntimeError(\"can't start new thread\")", 1, "clock: the machine refuses: no thread can be started"),
        ("ValueError(sys.argv[1])", bugs.STATUS, "clock: a bug of ours, ValueError"),
    ],
)
def test_process_that_fails_at_its_start_ends_whatever_threads_it_has_begun(raised, status, told):
    """A controller on a full disk had begun its framework, whose threads kept it for ever: neither ready nor gone."""
    script = (
        "import sqlite3, sys, threading, time\nfrom telemetry import bugs\n"
        "def full():\n    error = sqlite3.OperationalError('x')\n    error.sqlite_errorcode = 13\n    return error\n"
        f"def body():\n    threading.Thread(target=time.sleep, args=(600,)).start()\n    raise {raised}\n"
        "bugs.exit_with('clock', body)"
    )
    command = [sys.executable, "-c", script, VALUE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert done.returncode == status
    assert told in done.stderr
    assert VALUE not in done.stderr
