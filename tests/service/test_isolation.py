"""A run's own world, and the one process outside that waits for its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

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
