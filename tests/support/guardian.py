"""Ends what a suite has started when the suite itself is ended, and be it by SIGKILL.

A process of its own, which waits until the suite's end of a pipe is closed. What the suite has started bears a name in
its environment, which it passes on to all that it starts in turn. Components that are forked may have overwritten
theirs; they die with who asked for them (testbed.machine.fork_server).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

NAME = "QKD_TEST_SUITE"
_GRACE_S = 5.0


class Guardian:
    """Guards this process; to be made before it starts any other one."""

    def __init__(self) -> None:
        name = os.environ[NAME] = uuid.uuid4().hex
        unnamed = {key: value for key, value in os.environ.items() if key != NAME}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.guardian", name], stdin=subprocess.PIPE, env=unnamed,
            cwd=Path(__file__).resolve().parents[2], start_new_session=True,
        )  # fmt: skip

    def end(self) -> None:
        """End what is left; returns when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def named(name: str) -> set[int]:
    """The processes that bear that name."""
    found, wanted = set(), f"{NAME}={name}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def main(name: str) -> int:
    """Wait for the suite's end, then end what bears its name: gently at first, so that runs clean up."""
    sys.stdin.buffer.read()
    for signum, within_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        deadline = time.monotonic() + within_s
        for pid in named(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        while (left := named(name)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not left:
            break
    return 0


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they are meant for the suite
        signal.signal(signum, signal.SIG_IGN)
    sys.exit(main(sys.argv[1]))
