"""Work shared out to the cores of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.waiting import until

WAITS = """
import os, time
from testbed.experiments.workers import workers

def work(_):
    print(os.getpid(), flush=True)
    time.sleep(600)

with workers(None) as each:
    list(each(work, [1]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_process_that_waits_for_it(number):
    """However that ends."""
    waiting = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    worker = int(waiting.stdout.readline())
    try:
        waiting.send_signal(number)
        waiting.wait(60)

        until(lambda: not Path(f"/proc/{worker}/exe").exists())
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        waiting.stdout.close()
