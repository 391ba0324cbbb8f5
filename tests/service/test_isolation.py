"""A run's own world, and the one process outside that waits for its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 0.3
# A world that does not end when it is asked to.
STUBBORN = f"""
import signal, sys, time
from pathlib import Path
from testbed.machine import isolation

def body(_outside):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)

isolation._GRACE_S = {GRACE_S}
sys.exit(isolation.run_isolated(body, pid_file=Path(sys.argv[1]), crash_log=Path(sys.argv[2])))
"""


def test_world_that_does_not_end_is_ended_also_where_its_end_was_slept_through(tmp_path):
    """As with Ctrl-Z and `fg`: to wait for a signal brings one that nobody sent then."""
    command = [sys.executable, "-c", STUBBORN, str(tmp_path / "pid"), str(tmp_path / "crash")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as outer:
        assert outer.stdout.readline() == "ready\n"
        outer.send_signal(signal.SIGTERM)
        time.sleep(GRACE_S / 3)

        outer.send_signal(signal.SIGSTOP)
        time.sleep(2 * GRACE_S)
        outer.send_signal(signal.SIGCONT)

        assert outer.wait(20) == 128 + signal.SIGKILL
        assert outer.stderr.read() == ""


# A world that is asked to end while an object's life ends, where Python lets no exception out.
UNLUCKY = """
import os, signal, sys, time
from pathlib import Path
from testbed.machine import isolation

class Mortal:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
        time.sleep(0.1)

def body(_outside):
    mortal = Mortal()
    del mortal
    print("it went on", flush=True)
    time.sleep(600)

sys.exit(isolation.run_isolated(body, pid_file=Path(sys.argv[1]), crash_log=Path(sys.argv[2])))
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signal_that_comes_where_python_lets_no_exception_out_ends_the_world_all_the_same(tmp_path, name, status):
    """Else nobody would hear of it, and the run would go on until it was killed."""
    command = [sys.executable, "-c", UNLUCKY, str(tmp_path / "pid"), str(tmp_path / "crash"), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (status, "it went on\n", "")
