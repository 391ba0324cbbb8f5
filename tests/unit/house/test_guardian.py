"""A suite that is stopped leaves no process behind."""

from __future__ import annotations

import signal

import pytest

from tests.support.guardian import named
from tests.support.inner_suite import suite
from tests.support.waiting import until

# What outlives its parent: in a session of its own, and a child of a child that is gone.
TESTS = """
import os, subprocess, time

def test_that_hangs(capsys):
    orphan = ["sh", "-c", "sleep 600 & exit 0"]
    subprocess.run(orphan, start_new_session=True, stdout=subprocess.DEVNULL, check=True)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    with capsys.disabled():
        print("started", os.environ["QKD_TEST_SUITE"], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name)
def test_suite_that_is_stopped_by_a_signal_leaves_no_process_behind(tmp_path, signum):
    """Whichever it is."""
    with suite(tmp_path, TESTS) as (running, (name,)):
        until(lambda: len(named(name)) >= 2)  # a process that is just being begun has no environment to read
        running.send_signal(signum)
        running.wait(60)

    assert until(lambda: not named(name))
