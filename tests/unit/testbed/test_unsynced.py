"""Commands that wait for no disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testbed.machine import unsynced

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sets a filter of system calls: needs root")
# A pipe cannot be synced: the kernel says so, unless the request never comes to it.
SYNC = "import os; os.{call}(0); print('synced', flush=True)"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """That command, with a pipe as its standard input."""
    return subprocess.run(command, input="", capture_output=True, text=True, check=False)


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_request_to_sync_succeeds_at_once(call):
    """For the command and what it starts, and for nobody else."""
    asks = [sys.executable, "-c", SYNC.format(call=call)]
    given = [sys.executable, "-I", "-S", unsynced.__file__]

    assert run(*given, "sh", "-c", '"$@"; true', "sh", *asks).stdout == "synced\n"
    assert "Invalid argument" in run(*asks).stderr


def test_all_other_calls_are_made():
    """The command runs, with its arguments and its status."""
    done = run(sys.executable, "-I", "-S", unsynced.__file__, "sh", "-c", "echo $1; exit 3", "sh", "said")

    assert (done.stdout, done.returncode) == ("said\n", 3)
