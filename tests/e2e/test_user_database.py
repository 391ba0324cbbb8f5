"""A PostgreSQL of the user's, outside of the emulated network, in place of the private one."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scenario.topology import load
from testbed.database.postgres import find_binaries
from testbed.database.shared_database import members, open_user_database
from testbed.errors import UserError
from testbed.machine.leftovers import Machine
from testbed.network.loopback import free_port
from testbed.planning.make import make_plan
from tests.support.processes import commands
from tests.support.running import ROOT, Running, finished
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server on the machine's own loopback, as a user might have it: with a password, without TLS."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own folders are closed to other users
        yield from serve(Path(directory))


def serve(directory: Path) -> Iterator[str]:
    """The same, with its files in `directory`."""
    directory.chmod(0o755)
    data, port = directory / "data", free_port()
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    (directory / "password").write_text("sesame")
    user = {"user": "postgres", "group": "postgres", "cwd": data}
    binaries = find_binaries()
    command = [binaries / "initdb", "-D", data, "--auth=scram-sha-256", "--no-sync", f"--pwfile={directory}/password"]
    subprocess.run(command, check=True, capture_output=True, **user)
    settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "dynamic_shared_memory_type=mmap"]
    arguments = ["-D", data, "-p", str(port), *(word for setting in settings for word in ("-c", setting))]
    process = subprocess.Popen([binaries / "postgres", *arguments], stderr=subprocess.DEVNULL, **user)
    url = f"postgresql://postgres:sesame@127.0.0.1:{port}/postgres"

    def up() -> bool:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            return False
        return True

    assert until(up)
    yield url
    process.terminate()
    process.wait(20)


def schemas(url: str) -> set[str]:
    """Schemas that are there."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT nspname FROM pg_namespace").fetchall()}


@pytest.mark.parametrize("controller", [pytest.param("single", marks=pytest.mark.slow), "ha"])
def test_keys_are_exchanged_by_way_of_a_server_of_the_users(server, tmp_path, controller):
    """Over the emulated network to `db` and out from there; the schemas of the run are gone afterwards.

    With two controllers, these have theirs there, too.
    """
    machine, before = Machine(), schemas(server)
    run = tmp_path / "run"

    done = finished("--shared-db", server, "--duration", 8, "--sessions", 6, "--seed", 3, "--no-cli", "--run-dir", run,
                    "--controller", controller)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    assert summary["keys"]["single_hop"] > 0
    assert summary["keys"]["multi_hop"] > 0
    assert schemas(server) == before
    assert not machine.left_behind(run)
    leaks = [p for p in Path(run).rglob("*") if p.is_file() and b"sesame" in p.read_bytes()]
    assert not leaks
    assert "sesame" not in done.stdout + done.stderr


def test_applications_and_qcs_do_not_have_the_password_in_their_memory(server, tmp_path):
    """Only who speaks to the server has: components are forks of a process that knows no secret."""
    run = Running(tmp_path / "run", "--shared-db", server, "--no-cli", "--duration", 600)
    try:
        run.wait_for("opening")
        titles = {process: " ".join(words) for process, words in commands().items()}
        ours = {process: title for process, title in titles.items() if str(run.directory) in title}
        others = [process for process, title in ours.items() if title.startswith(("sae-", "qcs:"))]
        password = b"postgres:sesame@"

        assert len(others) == 6
        assert not [process for process in others if remembers(process, password)]
        assert remembers(Path(f"/proc/{run.process.pid}"), password)  # who was told it
    finally:
        run.stop()


def remembers(process: Path, what: bytes) -> bool:
    """Whether that is in the process's memory, wherever it may write."""
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            place, rights = line.split()[:2]
            begin, end = (int(number, 16) for number in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                if what in memory.read(end - begin):
                    return True
    return False


def test_server_with_too_few_connections_is_refused_before_anything_starts(server):
    """With the number that it has and the one that is needed; our schema is not made."""
    plan, before = make_plan(load("poliqi", ROOT / "topologies")), schemas(server)

    with pytest.raises(UserError, match=r"has \d+ connections to give, this network takes 5000: raise its max_"):
        open_user_database(server, "qkd_test", members(plan), connections=5000)

    assert schemas(server) == before


def test_wrong_password_is_one_line_without_it(server):
    """Names server and reason, and does not repeat the password."""
    done = finished("--shared-db", server.replace("sesame", "hunter2"), "--duration", 1, "--no-cli")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "password authentication failed" in done.stderr
    assert "hunter2" not in done.stderr
