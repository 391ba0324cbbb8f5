"""The process that run.py starts on another machine, started here, and asked as home asks it."""

from __future__ import annotations

import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.machine.processes import ProcessFailed
from testbed.workers.connection import Connection
from testbed.workers.hello import sources
from testbed.workers.transport import round_trip_ms
from testbed.workers.worker import clocks_ahead
from tests.support.waiting import until

COMMAND = [sys.executable, "-P", "-m", "testbed.workers", "--reached", "192.0.2.1 1 192.0.2.2 22"]
LATER = {"monotonic_s": 1000.0, "boottime_s": 2000.5}


class Worker:
    """The process, a connection to it, and what it told unasked."""

    def __init__(self, *before: str) -> None:
        self.process = subprocess.Popen(
            [*before, *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.told: list[Any] = []
        self.connection = Connection(
            "west", self.process.stdin, self.process.stdout, told=self.told.append, ended=lambda _: None
        )

    def stop(self) -> None:
        """Have it end."""
        self.connection.close()
        self.process.wait(20)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """One as root."""
    found = Worker()
    yield found
    found.stop()


def test_worker_says_what_it_is_before_it_makes_anything(worker):
    """Its sources, what it lacks, and at which addresses SSH has reached it; its clocks are those of this machine."""
    said = worker.connection.hello.result(30)

    assert (said["sources"], said["lacks"], said["reached"].split()[2]) == (sources(), None, "192.0.2.2")
    assert all(abs(ahead_s) < 0.5 for ahead_s in clocks_ahead(worker.connection).values())


def test_worker_without_root_says_that_it_needs_it():
    """And is no worker."""
    nobody = pwd.getpwnam("nobody")
    found = Worker("setpriv", "--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups", "--")
    try:
        assert "needs root there" in found.connection.hello.result(30)["lacks"]
    finally:
        found.stop()


def test_processes_of_a_worker_go_by_the_clocks_of_home(worker):
    """Those that count from a machine's start: what parties on several machines write down can be put in order."""
    worker.connection.hello.result(30)

    worker.connection.ask("enter", **LATER)
    found = worker.connection.ask("clock")

    assert abs(found["monotonic"] - time.monotonic() - 1000) < 0.5
    assert abs(found["boottime"] - time.clock_gettime(time.CLOCK_BOOTTIME) - 2000.5) < 0.5
    assert abs(found["time"] - time.time()) < 0.5


def test_request_that_there_is_not_or_that_fails_is_answered_in_one_line(worker):
    """The worker goes on."""
    worker.connection.hello.result(30)
    worker.connection.ask("enter", **LATER)

    for what, arguments in (("_tell", {"message": {}}), ("carrier", {"ports": ["nothing"], "up": True})):
        with pytest.raises(ProcessFailed, match=r"^machine west: [^\n]+$"):
            worker.connection.ask(what, **arguments)
    assert worker.connection.ask("clock")


def test_worker_ends_with_its_standard_input(worker):
    """That is what is left of home when it is killed."""
    worker.connection.hello.result(30)
    worker.connection.ask("enter", **LATER)

    worker.connection.close()

    assert until(lambda: worker.process.poll() is not None)
    with pytest.raises(ProcessFailed, match="machine west: the connection to it has ended"):
        worker.connection.ask("clock")


def test_machine_that_does_not_answer_by_its_address_inside_is_given_up_in_time():
    """As where a firewall lets SSH pass, and nothing else."""
    with pytest.raises(ProcessFailed, match=r"240\.0\.0\.1 does not answer over WireGuard"):
        round_trip_ms("240.0.0.1", within_s=0.1)
