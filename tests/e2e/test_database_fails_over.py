"""PoliQI with a shared database that fails over: hosts of it die and are cut off while keys are asked for.

Each run's summary compares all keys and audits all records.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from telemetry import journal
from testbed.machine import tools
from testbed.machine.tools import DATABASE_TOOLS
from tests.e2e.test_fault_commands import exchanged
from tests.e2e.test_poliqi import open_session
from tests.support.running import Running, finished
from tests.support.waiting import until

NODES = "finance", "university"


@contextmanager
def network(directory: Path, database: str) -> Iterator[Running]:
    """It, with key sessions that run all along."""
    options = ("--sessions", 6, "--seed", 11, "--qc-rate", "900-1000", "--no-dashboard", "--database", database)
    running = Running(directory / "run", *options)
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


@contextmanager
def asked_all_along(run: Running, pair: tuple[str, str]) -> Iterator[None]:
    """Somebody asks for keys, one after the other, as long as the block lasts."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            exchanged(run, NODES, pair)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def switches(run: Running) -> list[tuple[str, str]]:
    """From which host to which one the database has failed over so far."""
    found = journal.events(run.directory / "faults" / "journal.jsonl", "database_switch")
    return [(event["before"], event["host"]) for event in found]


def has_spare(run: Running) -> bool:
    """Whether Patroni says of one of the servers that it may take over."""
    folder = run.directory / "pki" / "database"
    url = "https://{10.1.0.2,10.1.0.3}:8008/synchronous"  # those of db and db2
    shown = ["--cacert", folder / "ca.pem", "--cert", folder / "database-db3.pem", "--key", folder / "database-db3.key"]
    done = subprocess.run(
        run.on("db3", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} ", *map(str, shown), url),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "200" in done.stdout.split()


def ends_well(run: Running) -> dict[str, Any]:
    """End it; its summary, of a clean run."""
    assert run.exit() == 0, run.text[-3000:]
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["audit"]["verdict"] == "clean", summary["audit"]
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    return dict(summary)


def test_killed_database_is_followed_by_its_standby_and_nobody_does_anything(tmp_path):
    """Under load; the journal and a key's story tell which host takes writes now. The host that died may stay so."""
    with network(tmp_path, "ha") as run:
        pair = open_session(run, *NODES)[:2]
        assert until(lambda: exchanged(run, NODES, pair))
        with asked_all_along(run, pair):
            run.say("qkd fault database", "broken: database db\n")
            assert until(lambda: switches(run) == [("db", "db2")])
        assert until(lambda: exchanged(run, NODES, pair))
        run.say("qkd fault standby", "fault standby: the database has a standby")
        run.say(f"qkd story {pair[0]} {pair[1]}", "The shared database failed over from db to db2")
        run.say("qkd status", "broken +database db\n")

        ends_well(run)


@pytest.mark.slow
def test_hosts_of_the_database_die_and_are_cut_off_in_turn(tmp_path):
    """Both servers, healed each time: each is followed by the other one, and follows it when it is back."""
    with network(tmp_path, "ha") as run:
        pair = open_session(run, *NODES)[:2]
        assert until(lambda: exchanged(run, NODES, pair))
        with asked_all_along(run, pair):
            for number, (fault, now) in enumerate(
                [("database db", "db2"), ("partition db2", "db"), ("partition db", "db2"), ("database db2", "db")], 1
            ):
                run.say(f"qkd fault {fault}", f"broken: {fault}\n")
                assert until(lambda n=number, host=now: [host for _, host in switches(run)][n - 1 :] == [host])
                assert until(lambda: exchanged(run, NODES, pair))
                run.say("qkd fault heal", f"healed: {fault}\n")
                run.say("qkd status", "processes +all alive")
                assert until(lambda: has_spare(run)), "the host that is back follows"
        assert len(switches(run)) == 4
        ends_well(run)


@pytest.mark.slow
def test_commits_that_did_not_wait_may_be_lost_and_no_byte_is_used_twice(tmp_path):
    """The standby is away while keys are made, and takes over without them when the other server has died."""
    with network(tmp_path, "ha-async") as run:
        pair = open_session(run, *NODES)[:2]
        assert until(lambda: exchanged(run, NODES, pair))
        run.say("qkd fault partition db2", "broken: partition db2\n")
        before = {key["key_ids"][0] for key in delivered(run)}
        assert until(lambda: exchanged(run, NODES, pair) and len(delivered(run)) > len(before) + 10)
        run.say("qkd fault database db", "broken: database db\n")
        run.say("qkd fault heal partition db2", "healed: partition db2\n")
        assert until(lambda: switches(run) == [("db", "db2")])
        assert until(lambda: exchanged(run, NODES, pair))
        run.say("qkd fault heal", "healed: database db\n")

        ends_well(run)

    records = json.loads((run.directory / "audit.json").read_text())
    known = {key_id for key_id, *_ in records["keys"]}
    assert {key["key_ids"][0] for key in delivered(run)} - known, "the server that took over has never heard of them"


def delivered(run: Running) -> list[dict[str, Any]]:
    """Keys that masters got from the KME at the first of NODES, as it tells."""
    found = journal.events(run.directory / "nodes" / NODES[0] / "journal.jsonl", "key_delivered")
    return [dict(event) for event in found if event["method"] == "enc_keys"]


def test_database_of_yours_and_one_that_fails_over_exclude_each_other(tmp_path):
    """One line, before anything is built."""
    done = finished("--database", "ha", "--shared-db", "postgresql://me@127.0.0.1/x", "--run-dir", tmp_path / "run")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("run.py: --database and --shared-db: choose one")
    assert not (tmp_path / "run").exists()


def test_missing_tools_of_such_a_database_are_named(monkeypatch):
    """With what to do."""
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)

    with pytest.raises(tools.UserError, match="cannot find etcd, patroni: run 'make setup'"):
        tools.check_tools(DATABASE_TOOLS)
