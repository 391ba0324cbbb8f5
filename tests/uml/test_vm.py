"""`run.py --vm`: the testbed for somebody who is not root."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.guardian import NAME
from tests.support.running import RUN_PY
from tests.support.waiting import until

NOBODY = pwd.getpwnam("nobody")


@contextmanager
def folder_of_nobody() -> Iterator[Path]:
    """Not one of pytest's, which keeps all of its own to root."""
    with tempfile.TemporaryDirectory(prefix="qkd-test-") as home:
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        yield Path(home)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of nobody's."""
    with folder_of_nobody() as home:
        yield home


def start(home: Path, *options: object) -> subprocess.Popen[str]:
    """run.py --vm as nobody, with the usual limit of open files, and before other tests: its one CPU is slow enough."""
    nobody = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups", "--"]
    command = ["nice", "-n", "-10", "prlimit", "--nofile=1024:", *nobody, "/usr/bin/python3", str(RUN_PY), "--vm"]
    with (home / "out").open("wb") as out:
        return subprocess.Popen(
            [*command, *map(str, options)], cwd=home, env={name: os.environ[name] for name in ("PATH", NAME)},
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def ran() -> Iterator[Path]:
    """The folder with `out` and `run` of a run without root: commands typed at its command line, then kill -TERM."""
    with folder_of_nobody() as home:
        process = start(home, "--topology", "pair", "--run-dir", home / "run")
        try:
            for command in ("status", "vpn alice bob --ipsec", "vpn", "help vpn"):
                print(f"qkd {command}", file=process.stdin, flush=True)
            until(lambda: "end it" in (home / "out").read_text() or process.poll() is not None, 300)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 128 + signal.SIGTERM, (home / "out").read_text()
            yield home
        finally:
            process.kill()
            process.wait()
            process.stdin.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_run_without_root_leaves_its_run_directory_on_the_host(ran: Path):
    """Its summary tells of netem and the kernel's switches, whatever is here; what was typed was answered."""
    shown, run = (ran / "out").read_text(), ran / "run"
    summary = json.loads((run / "summary.json").read_text())

    assert shown.startswith("In user-mode Linux: one slow CPU")
    assert "all alive" in shown
    assert "cp: " not in shown
    assert (summary["shaper"], summary["datapath"]) == ("netem", "kernel")
    assert (run / "summary.json").stat().st_uid == NOBODY.pw_uid
    assert not list(run.rglob("*.key"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tunnel_of_a_run_without_root_goes_by_the_kernels_esp(ran: Path):
    """At both ends, as `qkd vpn` tells."""
    shown = (ran / "out").read_text()

    assert re.findall(r"(?:state +(\w+)|by +(kernel ESP))$", shown, re.M) == 2 * [("up", ""), ("", "kernel ESP")], shown


def test_place_that_cannot_be_written_is_told_before_anything_starts(home: Path):
    """One line, at once, and status 2."""
    process = start(home, "--run-dir", "/root/run")

    assert process.wait(60) == 2
    assert (home / "out").read_text() == (
        "run.py: run directory /root/run: Permission denied (/root/run): choose another --run-dir\n"
    )
    process.stdin.close()
