"""A bug of ours is in the log with its place and without its text; in a vital thread it ends the process."""

from __future__ import annotations

import logging
import subprocess
import sys

from telemetry import bugs


def test_report_names_type_and_place_and_quotes_no_data(caplog):
    """The text of an exception may be key material."""
    try:
        int("5ec2e7")
    except ValueError as error:
        bugs.report(logging.getLogger("test"), "counting", error)

    assert "counting: a bug of ours, ValueError" in caplog.text
    assert "test_bugs.py" in caplog.text
    assert "5ec2e7" not in caplog.text.replace('int("5ec2e7")', "")  # the line of the source is no data


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
