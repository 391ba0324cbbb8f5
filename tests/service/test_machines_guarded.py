"""A suite that is stopped while it has machines leaves nothing on them."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from tests.support.guardian import named
from tests.support.inner_suite import suite
from tests.support.machines import network_of
from tests.support.waiting import until

# What an SSH server starts has an environment of its own, and a session's end is no news to it.
TESTS = """
import os, subprocess, time
from tests.support.machines import Machines, network_of

def test_that_hangs(tmp_path, capsys):
    with Machines(tmp_path / "lab", ["west"]) as machines:
        ssh = machines.at_home(["ssh", "-F", str(machines.folder / "ssh_config"), "west", "echo here; sleep 600"])
        session = subprocess.Popen(ssh, stdout=subprocess.PIPE, text=True)
        assert session.stdout.readline() == "here\\n"
        with capsys.disabled():
            print("started", os.environ["QKD_TEST_SUITE"], network_of(machines.pids["west"]), flush=True)
        time.sleep(600)
"""


def inside(network: str) -> set[int]:
    """The processes in that network namespace."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(network_of(int(folder.name))) == network:
                found.add(int(folder.name))
    return found


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_suite_that_is_stopped_by_a_signal_leaves_no_session_on_a_machine(tmp_path, signum):
    """Neither the SSH server nor what came by it."""
    with suite(tmp_path, TESTS) as (running, (name, network)):
        assert len(inside(network)) >= 3
        running.send_signal(signum)
        running.wait(60)

    until(lambda: not named(name))
    assert until(lambda: not inside(network))
