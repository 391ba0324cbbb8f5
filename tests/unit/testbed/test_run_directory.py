"""Where a run keeps its state, who may use it, and what stays of a dead run."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.errors import UserError
from testbed.machine import run_directory
from testbed.machine.run_directory import RunDirectory, open_run_directory


def test_new_run_gets_a_folder_of_its_own_and_latest_points_to_it(tmp_path):
    """Two runs at once have two folders; `latest` is the younger."""
    first = open_run_directory(None, tmp_path / "runs")
    second = open_run_directory(None, tmp_path / "runs")

    assert first.path != second.path
    assert (tmp_path / "runs" / "latest").resolve() == second.path


def test_run_of_an_experiment_or_a_benchmark_is_not_the_latest(tmp_path):
    """Whoever operates a run from another terminal goes on with that one."""
    mine = open_run_directory(None, tmp_path / "runs")
    other = open_run_directory(None, tmp_path / "runs", latest=False)

    assert other.path.parent == mine.path.parent
    assert (tmp_path / "runs" / "latest").resolve() == mine.path


def test_requested_folder_is_used_and_latest_points_to_it(tmp_path):
    """Also when it is elsewhere."""
    run = open_run_directory(tmp_path / "mine", tmp_path / "runs")

    assert run.path == tmp_path / "mine"
    assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "mine"


def test_empty_folder_that_one_is_in_stays_the_same(tmp_path, monkeypatch):
    """`--run-dir .`: the shell that one comes back to shows the results; postgres, too, may go through it."""
    (tmp_path / "mine").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path / "mine")

    run = open_run_directory(Path(), tmp_path / "runs")

    assert run.path == tmp_path / "mine" == Path.cwd()
    assert [entry.name for entry in Path().iterdir()] == ["run.json"]
    assert run.path.stat().st_mode & 0o777 == 0o755


def test_of_starts_in_one_empty_folder_one_gets_it(tmp_path):
    """At the same moment; the others are told that they are too late."""
    (tmp_path / "mine").mkdir()
    together = threading.Barrier(8)

    def start(_: int) -> RunDirectory | None:
        together.wait()
        try:
            return open_run_directory(tmp_path / "mine", tmp_path / "runs")
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        (run,) = filter(None, pool.map(start, range(8)))

    assert json.loads((run.path / "run.json").read_text())["id"] == run.id


def test_folder_in_use_is_refused(tmp_path):
    """The other run goes on undisturbed."""
    run = open_run_directory(tmp_path / "mine", tmp_path / "runs")

    with pytest.raises(UserError, match="in use by another run"):
        open_run_directory(tmp_path / "mine", tmp_path / "runs")
    assert json.loads((run.path / "run.json").read_text())["id"] == run.id


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab", "no text \udcff"])
def test_name_that_is_no_printable_text_is_refused(tmp_path, name):
    """Shown so that one can read it."""
    with pytest.raises(UserError, match="expected printable characters") as error:
        open_run_directory(tmp_path / name, tmp_path / "runs")
    assert str(error.value).isprintable()


def test_folder_with_other_files_is_refused_and_untouched(tmp_path):
    """Somebody's home is no run directory."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")

    with pytest.raises(UserError, match="holds other files"):
        open_run_directory(tmp_path / "home", tmp_path / "runs")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_finished_run_is_moved_aside(tmp_path):
    """Its results are kept under another name."""
    old = open_run_directory(tmp_path / "mine", tmp_path / "runs")
    (old.path / "summary.json").write_text("{}")
    os.close(old.lock)

    new = open_run_directory(tmp_path / "mine", tmp_path / "runs")

    assert (tmp_path / "mine.1" / "summary.json").exists()
    assert not (new.path / "summary.json").exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_next_start_erases_the_keys_of_a_dead_run_and_keeps_its_logs(tmp_path, elsewhere):
    """After kill -9 nobody else can erase them. A live run keeps its own."""
    dead = open_run_directory(tmp_path / "mine" if elsewhere else None, tmp_path / "runs")
    live = open_run_directory(None, tmp_path / "runs")
    for run in (dead, live):
        (run.make("pki") / "ca.key").write_text("secret")
        (run.make("nodes/a") / "local.db").write_text("secret")
        (run.make("nodes/a") / "qc1.key").write_text("secret")
        (run.make("nodes/a") / "journal.jsonl").write_text("{}\n")
    os.close(dead.lock)

    open_run_directory(None, tmp_path / "runs")

    assert not (dead.path / "pki").exists()
    assert not (dead.path / "nodes/a/local.db").exists()
    assert not (dead.path / "nodes/a/qc1.key").exists()
    assert (dead.path / "nodes/a/journal.jsonl").exists()
    assert (live.path / "pki/ca.key").exists()


def test_files_of_a_run_are_private(tmp_path):
    """Configurations hold secrets."""
    run = open_run_directory(None, tmp_path / "runs")

    assert run.write("config/x.json", {}).stat().st_mode & 0o077 == 0
    assert run.make("pki").stat().st_mode & 0o077 == 0


def test_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    """Names the folder and the cure."""
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="choose another"):
        open_run_directory(tmp_path / "file" / "run", tmp_path / "runs")


def test_file_that_goes_while_it_is_erased_does_not_hold_up_a_start(tmp_path, monkeypatch):
    """A database of a dead run, which ends meanwhile, takes its postmaster.pid away."""
    (tmp_path / "file").touch()
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda *a, **k: (unlink(*a, **k), unlink(*a, **k)))

    shutil.rmtree(tmp_path, onerror=run_directory._unless_gone)

    assert not tmp_path.exists()


def test_dead_run_that_somebody_removes_does_not_hold_up_a_start(tmp_path, monkeypatch):
    """In the moment in which its keys are to be erased."""
    runs = tmp_path / "runs"
    os.close(open_run_directory(None, runs).lock)
    dead = next(entry for entry in runs.iterdir() if entry.name != "latest")
    (dead / "nodes").mkdir()
    glob = Path.glob

    def vanishing(path: Path, pattern: str) -> Iterator[Path]:
        shutil.rmtree(dead, ignore_errors=True)
        if path == dead:
            raise FileNotFoundError(2, "No such file or directory", str(dead / "nodes"))
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", vanishing)

    assert open_run_directory(None, runs).path.is_dir()
