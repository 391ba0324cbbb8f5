"""A suite that is stopped leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.guardian import NAME, named
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]
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
    (tmp_path / "test_one.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["--confcutdir", str(ROOT), "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    command += [str(tmp_path / "test_one.py")]
    unnamed = {key: value for key, value in os.environ.items() if key != NAME}
    with subprocess.Popen(command, cwd=ROOT, env=unnamed, stdout=subprocess.PIPE, text=True) as suite:
        try:
            name = next(line.split()[1] for line in suite.stdout if line.startswith("started"))
            until(lambda: len(named(name)) >= 2)  # a process that is just being begun has no environment to read
            suite.send_signal(signum)
            suite.wait(60)
        finally:
            suite.kill()

    assert until(lambda: not named(name))
