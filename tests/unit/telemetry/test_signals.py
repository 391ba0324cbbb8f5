"""How a process waits for signals."""

from __future__ import annotations

import signal
import subprocess
import sys

from telemetry.signals import Signals

_COUNT = """
import signal
from telemetry.signals import Signals

signals = Signals(signal.SIGTERM, signal.SIGHUP)
print("ready", flush=True)
while signals.next(0.0001) != signal.SIGTERM:
    pass
"""


def test_signal_that_comes_at_the_worst_moment_of_a_wait_does_not_hang_it():
    """Thousands, at any instruction of it; an event, set by its handler, hangs after a few hundred."""
    with subprocess.Popen([sys.executable, "-c", _COUNT], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            for _ in range(20_000):
                process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)

            assert process.wait(60) == 0
        finally:
            process.kill()


def test_nothing_comes_when_no_signal_does():
    """Whoever has more to do looks again."""
    assert Signals(signal.SIGUSR2).next(0) is None
