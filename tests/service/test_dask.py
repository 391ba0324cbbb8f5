"""Virtual time on a Dask cluster: a real scheduler and two real workers on loopback."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import UserError
from testbed.experiments.workers import workers
from tests.support.fatal import squared
from tests.support.running import PYTHON, ROOT, finished
from tests.support.waiting import PATIENCE, until

DASK = PYTHON.with_name("dask")


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        until(file.is_file, else_tell=self.told)
        self.address: str = json.loads(file.read_text())["address"]

    def add_worker(self) -> None:
        """One more, of one thread."""
        local = ("--local-directory", str(self._folder), "--host", "127.0.0.1")
        self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", *local)

    def told(self) -> str:
        """What they wrote."""
        return (self._folder / "log").read_text(errors="replace")

    def end(self) -> None:
        """All of them."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _start(self, *command: str) -> None:
        with (self._folder / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [str(DASK), *command], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log,
                    stderr=subprocess.STDOUT, cwd=self._folder,
                )
            )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        made.add_worker()
        made.add_worker()
        yield made
    finally:
        made.end()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "folder", "files"),
    [
        (("sweep", "--virtual", "--quick", "--seed", 3, "--over", "admission=eq1,calendar"), "sweep-virtual",
         ("results.csv", "events.csv", "figure.svg")),
        (("policies", "--quick", "--networks", "pair"), "policies", ("table.txt", "outcomes.csv", "figure.svg")),
    ],
    ids=("sweep", "policies"),
)  # fmt: skip
def test_series_on_a_cluster_is_the_same_as_on_this_machine_to_the_byte(cluster, tmp_path, options, folder, files):
    """Table, events and figure; planners and their prices, too."""
    for name, more in (("here", ()), ("there", ("--dask", cluster.address))):
        done = finished("experiment", *options, "--out", tmp_path / name, *more)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr + cluster.told()

    for name in files:
        here, there = (tmp_path / place / folder / name for place in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()


@pytest.mark.slow
def test_load_search_on_a_cluster_is_the_same_as_on_this_machine_to_the_byte(cluster):
    """Both rounds of it, as a user starts it: there, too, its tasks are of the module that is the program itself."""
    search = [str(PYTHON), "-P", "-m", "testbed.experiments.search", "--quick"]
    here, there = (
        subprocess.run(
            [*search, *more], cwd=ROOT, capture_output=True, timeout=120 * PATIENCE, check=False,
            stdin=subprocess.DEVNULL,
        )
        for more in ((), ("--dask", cluster.address))
    )  # fmt: skip

    assert (there.returncode, there.stderr) == (0, b""), there.stderr.decode() + cluster.told()
    assert len(here.stdout.splitlines()) > 10
    assert there.stdout == here.stdout


def test_lost_worker_costs_a_repeat_and_no_result(cluster, tmp_path):
    """It dies in the middle of the third task, by a signal that nobody can catch."""
    died = tmp_path / "died"

    with workers(cluster.address) as each:
        found = list(each(functools.partial(squared, fatal=3, died=died), range(8)))

    cluster.add_worker()
    assert found == [n * n for n in range(8)]
    assert died.is_file()


def test_error_of_a_task_is_that_of_the_whole_and_the_cluster_lives_on(cluster, tmp_path):
    """As on this machine."""
    for address in (None, cluster.address):
        with pytest.raises(TypeError), workers(address) as each:
            list(each(functools.partial(squared, fatal=-1, died=tmp_path), ["no number"]))

    with workers(cluster.address) as each:
        assert list(each(functools.partial(squared, fatal=-1, died=tmp_path), [4])) == [16]


def test_address_at_which_nobody_answers_is_one_line():
    said = r"^--dask tcp://127\.0\.0\.1:1: no Dask scheduler answers there: .*"
    with pytest.raises(UserError, match=said), workers("tcp://127.0.0.1:1"):
        pass
