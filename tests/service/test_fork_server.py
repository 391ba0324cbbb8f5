"""Components that are forked by a process which has imported what they need: they are as if each were started alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from telemetry import bugs
from testbed.machine.fork_server import ForkFailed, ForkServer
from testbed.machine.processes import Process, Processes, ProcessFailed
from testbed.machine.rehearsal import rehearse
from tests.support.waiting import until

MODULE = "tests.support.component"
REHEARSAL = "testbed.machine.rehearsal"
ROOT = Path(__file__).parents[2]


class World:
    """Components of one fork server, and what each told of itself."""

    def __init__(self, directory: Path, modules: Sequence[str] = (MODULE,)) -> None:
        self.directory = directory
        self.processes = Processes(directory, modules)

    def start(self, name: str, *, inside: int | None = None, **wanted: Any) -> Process:
        """A component of that name."""
        config = self.directory / f"{name}.json"
        config.write_text(json.dumps({"tell": str(self.directory / f"{name}.told"), **wanted}))
        return self.processes.component(name, MODULE, config, inside=inside)

    def told(self, name: str) -> dict[str, Any]:
        """What it told."""
        return json.loads((self.directory / f"{name}.told").read_text())


@pytest.fixture
def world(tmp_path, monkeypatch) -> Iterator[World]:
    """The server finds the tests' own component."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = World(tmp_path)
    yield found
    found.processes.stop()


@pytest.fixture
def rehearsed(world) -> Iterator[World]:
    """Beside it one whose server does first what each component does first."""
    folder = world.directory / "rehearsed"
    folder.mkdir()
    found = World(folder, [MODULE, REHEARSAL])
    yield found
    found.processes.stop()


def test_component_is_a_child_that_leads_a_session_of_its_own(world):
    """So who started it can wait for it, and a terminal's Ctrl-C does not reach it."""
    one = world.start("one", wait=True)
    one.wait_ready()

    told = world.told("one")
    assert (told["parent"], told["session"], told["threads"]) == (os.getpid(), one.pid, 1)
    assert told["folder"] == str(Path.cwd())
    assert one.alive()


def test_components_have_no_randomness_and_no_descriptors_in_common(rehearsed):
    """What one may reach, no other one may; nor is anything of the rehearsal left, threads or descriptors."""
    for name in ("one", "two"):
        rehearsed.start(name, wait=True).wait_ready()

    one, two = rehearsed.told("one"), rehearsed.told("two")
    assert not set(one["random"]) & set(two["random"])
    for told in (one, two):
        others = [d for d in told["descriptors"] if not d.startswith(("/dev/null", str(rehearsed.directory), "/proc/"))]
        assert [d.partition(":")[0] for d in others] == ["pipe"]  # to say that it is ready
        assert told["threads"] == 1


def test_components_share_what_the_first_key_leaves_in_memory(world, rehearsed):
    """The server has made one, for nobody: so it costs no component what it costs where none was made before."""
    for each in (world, rehearsed):
        each.start("one", wait=True).wait_ready()

    assert rehearsed.told("one")["first_keys_kb"] < 0.6 * world.told("one")["first_keys_kb"]


def test_threads_of_a_component_share_two_arenas_of_memory(world):
    """What one thread gave back another one gets; sixteen would each keep what their threads needed at the most."""
    world.start("one", wait=True, at_work=20).wait_ready()

    assert world.told("one")["arenas"] == 2


def test_machine_without_a_folder_for_certificates_of_the_rehearsal_has_components_all_the_same(
    tmp_path, monkeypatch, capsys
):  # fmt: skip
    """They share less memory, and a line says why."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    rehearse()

    assert re.fullmatch("components will share less memory: .*none.*\n", capsys.readouterr().err)


def test_status_and_last_words_are_the_components(world):
    """Whether it ends by itself or by a signal."""
    one = world.start("one", status=3)
    one.wait_ready()
    until(lambda: not one.alive())
    assert (one.status, one.end_of_log()) == (3, "a last word")

    two = world.start("two", wait=True)
    two.wait_ready()
    two.kill()
    assert two.status == -signal.SIGKILL


def test_bug_of_a_component_is_told_with_its_place_and_status(world):
    """As in a process that was started alone."""
    one = world.start("one", bug="wrong")
    with pytest.raises(ProcessFailed, match="one ended at once: exit status 70"):
        one.wait_ready()

    assert one.status == bugs.STATUS
    assert f"{bugs.MARK}, ValueError" in one.log.read_text()
    assert "component.py" in one.log.read_text()


def test_killed_component_is_forked_anew(world):
    """With the same configuration."""
    one = world.start("one", wait=True)
    one.wait_ready()
    one.kill()

    again = world.processes.restart("one")
    again.wait_ready()

    assert again.pid != one.pid
    assert again.alive()


def test_component_enters_the_namespaces_of_a_host(world):
    """And works in the folder in which it would have been started."""
    with subprocess.Popen(["unshare", "--net", "--mount", "sleep", "600"]) as host:
        try:
            ours = Path("/proc/self/ns/net").readlink()
            until(lambda: Path(f"/proc/{host.pid}/ns/net").readlink() != ours)
            world.start("one", inside=host.pid, wait=True).wait_ready()

            told = world.told("one")
            assert told["network"] == str(Path(f"/proc/{host.pid}/ns/net").readlink())
            assert told["folder"] == str(Path.cwd())
        finally:
            host.kill()


def test_ps_names_each_component(world):
    """By its own name and configuration."""
    one = world.start("one", wait=True)
    one.wait_ready()

    line = Path(f"/proc/{one.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert line == f"one: python -m {MODULE} {world.directory / 'one.json'}"


def test_components_outlive_the_server_and_whoever_asks_is_told_that_it_is_gone(world):
    """Its death harms nobody who runs."""
    one = world.start("one", wait=True)
    one.wait_ready()
    server = world.processes.prepare()._process
    server.kill()
    server.wait()

    with pytest.raises(ProcessFailed, match="the process that forks components"):
        world.start("two")
    assert one.alive()


@contextlib.contextmanager
def somebody(directory: Path, *, forked: bool) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process with something to hide, that started component "one"; the IDs of that and of the server, too."""
    config = {"tell": str(directory / "one.told"), "wait": True, "at_work": 20}
    (directory / "one.json").write_text(json.dumps(config))
    script = (
        "import pathlib, sys, signal\nfrom testbed.machine.processes import Processes\n"
        "here = pathlib.Path(sys.argv[1])\nhidden = (here.parent / 'hidden').open('w')\nhidden.write('something')\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        f"print('once')\nfound = Processes(here, ['{MODULE}'])\nserver = found.prepare(forked={forked})._process.pid\n"
        f"one = found.component('one', '{MODULE}', here / 'one.json')\n"
        "one.wait_ready()\nprint(one.pid, server, flush=True)\nsignal.pause()"
    )
    command, found = [sys.executable, "-c", script, str(directory)], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=found) as who:
        assert who.stdout is not None
        assert who.stdout.readline() == "once\n"
        one, server = (int(pid) for pid in who.stdout.readline().split())
        try:
            yield who, one, server
        finally:
            who.kill()
            assert who.stdout.read() == ""


@pytest.mark.parametrize("forked", [False, True])
def test_components_end_with_who_started_them(tmp_path, forked):
    """However that ends; and so does the server."""
    with somebody(tmp_path, forked=forked) as (_, *pids):
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)

    for pid in pids:
        until(lambda pid=pid: not Path(f"/proc/{pid}/exe").exists())


def test_server_that_is_a_fork_keeps_nothing_of_who_forked_it(tmp_path):
    """Neither files nor what to do at signals; and its components share two arenas of memory all the same."""
    directory = tmp_path / "run"
    directory.mkdir()
    with somebody(directory, forked=True) as (who, one, server):
        told = json.loads((directory / "one.told").read_text())
        files = [str(p.readlink()) for p in Path(f"/proc/{server}/fd").iterdir()]

        assert (told["parent"], told["session"]) == (who.pid, one)
        assert (told["handlers"], told["arenas"]) == ([], 2)
        assert not [f for f in [*files, *told["descriptors"]] if "hidden" in f]
        assert len([f for f in files if f.startswith("socket:")]) == 1
        assert os.getsid(server) == server


def test_module_that_cannot_be_imported_is_told_of(tmp_path):
    """By the log that the message names."""
    forks = ForkServer(["no_such_module"], tmp_path / "log")
    with pytest.raises(ForkFailed, match=r"has ended; see .*log"), (tmp_path / "out").open("w") as out:
        forks.start("one", "no_such_module", tmp_path / "x", inside=None, out=out.fileno(), err=out.fileno())
    forks.close()

    assert "no_such_module" in (tmp_path / "log").read_text()
