"""`run.py --vm`: the testbed for somebody who is not root."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guardian import NAME
from tests.support.running import RUN_PY
from tests.support.waiting import until

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of nobody's. Not one of pytest's, which keeps all of its own to root."""
    with tempfile.TemporaryDirectory(prefix="qkd-test-") as home:
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        yield Path(home)


def start(home: Path, *options: object) -> subprocess.Popen[str]:
    """run.py --vm as nobody, with the usual limit of open files, and before other tests: its one CPU is slow enough."""
    nobody = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups", "--"]
    command = ["nice", "-n", "-10", "prlimit", "--nofile=1024:", *nobody, "/usr/bin/python3", str(RUN_PY), "--vm"]
    with (home / "out").open("wb") as out:
        return subprocess.Popen(
            [*command, *map(str, options)], cwd=home, env={name: os.environ[name] for name in ("PATH", NAME)},
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.mark.timeout(600)
def test_run_without_root_leaves_its_run_directory_on_the_host(home: Path):
    """Commands typed at its command line, kill -TERM, a summary; netem and the kernel's switches, whatever is here."""
    run = home / "run"
    process = start(home, "--topology", "pair", "--run-dir", run)
    try:
        print("qkd status", file=process.stdin, flush=True)
        until(lambda: "all alive" in (home / "out").read_text() or process.poll() is not None, 240)
        shown = (home / "out").read_text()
        assert "all alive" in shown, shown
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM, (home / "out").read_text()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()

    assert shown.startswith("In user-mode Linux: one slow CPU")
    assert "cp: " not in (home / "out").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["shaper"], summary["datapath"]) == ("netem", "kernel")
    assert (run / "summary.json").stat().st_uid == NOBODY.pw_uid
    assert not list(run.rglob("*.key"))


def test_place_that_cannot_be_written_is_told_before_anything_starts(home: Path):
    """One line, at once, and status 2."""
    process = start(home, "--run-dir", "/root/run")

    assert process.wait(60) == 2
    assert (home / "out").read_text() == (
        "run.py: run directory /root/run: Permission denied (/root/run): choose another --run-dir\n"
    )
    process.stdin.close()
