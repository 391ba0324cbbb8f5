"""What befalls a run from outside and is no bug: it lives on where that is possible, and says what it was."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from telemetry.journal import read
from tests.e2e.test_user_database import server  # noqa: F401 - a fixture
from tests.support.running import PYTHON, Running, command, finished
from tests.support.waiting import until

FULL_S = 8


class OnSmallDisk(Running):
    """A run whose directory lies in a small memory disk, which is there for this run alone."""

    def __init__(self, folder: Path, *options: object) -> None:
        disk = folder / "disk"
        disk.mkdir()
        self.output = folder / "out"
        mount = 'mount -t tmpfs -o size=128m tmpfs "$1" && shift && exec "$@"'
        run = command("--run-dir", disk / "run", *options)
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", mount, "sh", str(disk), *run],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.disk = Path(f"/proc/{self.process.pid}/root{disk}")
        self.directory = self.disk / "run"

    def fill(self, lasting_s: float) -> None:
        """Have no room on the disk for so long: what others free is taken at once."""
        ends = time.monotonic() + lasting_s
        self._fill(lambda: time.monotonic() > ends)

    def _fill(self, enough: Callable[[], bool]) -> None:
        filler = self.disk / "filler"
        with filler.open("wb", buffering=0) as file:
            while not enough():
                try:
                    file.write(bytes(4096))
                except OSError:
                    time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):  # the run has ended, and its disk is gone
            filler.unlink()

    def full(self, stop: threading.Event) -> threading.Thread:
        """A thread that keeps the disk full until `stop`."""
        thread = threading.Thread(target=self._fill, args=(stop.is_set,))
        thread.start()
        assert until(lambda: os.statvfs(self.disk).f_bfree == 0)
        return thread

    def keys(self, since: float) -> set[str]:
        """Key sessions that had a key since a moment of the wall clock."""
        events = [e for p in self.directory.glob("saes/*/journal.jsonl") for e in read(p, "key")]
        return {e["ksid"] for e in events if e["side"] == "master" and e["time"] > since}


def test_full_disk_is_survived_and_named(tmp_path):
    """Every process lives on, every session has keys again, no record of a key is missing, and pairs are equal."""
    run = OnSmallDisk(tmp_path, "--sessions", 4, "--no-dashboard")
    try:
        run.wait_up()
        assert until(lambda: len(run.keys(0)) == 4)

        run.fill(FULL_S)

        freed = time.time()
        until(lambda: len(run.keys(freed)) == 4, else_tell=lambda: run.text)
        run.cli("qkd status")
        run.wait_for("processes +all alive")
        assert run.exit() == 0, run.text
        run.wait_for("Audit +clean")
        compared, identical = map(int, re.search(r"Key pairs +(\d+) compared, (\d+) identical", run.text).groups())
        assert compared == identical > 4
        assert "BUGS" not in run.text
    finally:
        run.stop()


def test_run_that_ends_on_a_full_disk_says_so_and_erases_its_keys(tmp_path):
    """No traceback, whatever cannot be written; status 1, because there is no summary."""
    run = OnSmallDisk(tmp_path, "--topology", "pair", "--no-dashboard")
    try:
        run.wait_up()
        root = os.open(run.disk, os.O_PATH | os.O_DIRECTORY)  # as long as we hold that, the disk is there
        held = Path(f"/proc/self/fd/{root}/run")
        enough = threading.Event()
        filler = run.full(enough)
        try:
            assert run.exit() == 1
            assert not list(held.rglob("*.key")) + list(held.rglob("local.db*"))
        finally:
            enough.set()
            filler.join()
            os.close(root)
        assert "summary.json cannot be written: No space left on device" in run.text
        assert "Traceback" not in run.text
    finally:
        run.stop()


def test_run_without_a_single_key_has_status_1_and_says_why(tmp_path):
    """Here the QC makes a byte a second."""
    options = ("--topology", "pair", "--qc-rate", "1-1", "--sessions", 1, "--duration", 2, "--no-cli")

    done = finished(*options, "--run-dir", tmp_path / "run")

    assert done.returncode == 1, done.stdout
    assert re.search(r"NO KEYS +the last key error: .*alice-bob/1.*\(short_of_material\)", done.stdout), done.stdout
    assert re.search(r"Key errors +\d+ short_of_material: .*alice-bob/1", done.stdout)
    assert "short_of_material" in json.loads((tmp_path / "run" / "summary.json").read_text())["why_no_keys"]


def test_run_starts_with_more_descriptors_than_select_knows(tmp_path, many_files):
    """As in networks of 135 nodes and more: here run.py finds so many open that its own begin beyond 1023."""
    options = ("--topology", "pair", "--sessions", 1, "--duration", 1, "--no-cli", "--run-dir", tmp_path / "run")

    done = finished(*options, pass_fds=many_files)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def many_files() -> Iterator[list[int]]:
    """Descriptors up to one beyond 1023."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield files
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_nodes_that_do_not_reach_the_database_are_named_at_the_start(tmp_path, server):  # noqa: F811
    """With the reason that the database gives: here it lets the role of the URL in only once."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("CREATE ROLE miser LOGIN PASSWORD 'sesame' CONNECTION LIMIT 1")
        admin.execute("GRANT CREATE ON DATABASE postgres TO miser")
    url = server.replace("postgres:sesame", "miser:sesame")
    run = str(tmp_path / "run")
    options = ["--topology", "pair", "--shared-db", url, "--duration", "1", "--no-cli", "--run-dir", run]
    script = (
        "import testbed.network.readiness as e; e._REGISTRATION_S = 8.0\n"
        f"from testbed.__main__ import main; raise SystemExit(main({options!r}))"
    )

    done = subprocess.run([PYTHON, "-P", "-c", script], capture_output=True, text=True, check=False, env=os.environ)
    if "cannot be used" in done.stderr:  # the server gives a place free a moment after its owner has left
        done = subprocess.run([PYTHON, "-P", "-c", script], capture_output=True, text=True, check=False, env=os.environ)

    assert done.returncode == 2, done.stdout
    assert re.search(r"nodes .* do not reach the shared database; .*too many connections for role", done.stderr)
