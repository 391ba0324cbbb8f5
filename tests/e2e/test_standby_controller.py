"""Two controllers on Mininet: the one that leads is killed, put to sleep or cut off, and the other one goes on."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from telemetry import journal
from testbed import Testbed
from testbed.errors import UserError
from tests.support.running import Running
from tests.support.waiting import until

PAIRS = [("tax-office", "stock-exchange"), ("command-post", "library"), ("land-registry", "supply-depot")]


@contextmanager
def two_controllers(directory: Path, **options: Any) -> Iterator[Testbed]:
    """PoliQI with a controller on stand-by and plenty of key material."""
    with Testbed(
        "poliqi", controller="ha", run_dir=directory, qc_rate="900-1000", sessions=4, seed=5, no_dashboard=True,
        **options,
    ) as net:  # fmt: skip
        yield net


def leader(net: Testbed) -> dict[str, Any]:
    """What the controller that leads says of itself, once one does."""
    return until(lambda: (net.status()["controller"] or {}).get("leader"))


def leads(net: Testbed, name: str) -> bool:
    """Whether that controller does, for certain."""
    found = (net.status()["controller"] or {}).get("leader") or {}
    return (found.get("name"), found.get("standing")) == (name, "leader")


def which(net: Testbed) -> tuple[str, str]:
    """The controller that leads, and the other one: the first one unless it has come late, on a busy machine."""
    first = str(leader(net)["name"])
    (other,) = {"ctl", "ctl2"} - {first}
    return first, other


def sessions(net: Testbed) -> dict[str, list[str]]:
    """The paths of those that are open, by KSID."""
    return {s["ksid"]: s["path"] for s in net._do("sessions") if s["state"] == "open"}


def opened(net: Testbed, master: str, slave: str) -> str:
    """The KSID of a new session of that pair, once one opens."""

    def tried() -> str | None:
        try:
            return net.open(master, slave).ksid
        except UserError:
            return None

    return until(tried)


def same_key(net: Testbed, master: str, slave: str) -> bool:
    """Whether both SAEs get the same key."""
    try:
        keys = net.get_key(master, slave)
        return [k.value for k in net.get_key_with_ids(master, slave, [keys[0].key_id])] == [keys[0].value]
    except UserError:
        return False


def sound(directory: Path) -> dict[str, Any]:
    """The summary of a run in which nothing was wrong."""
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["audit"]["verdict"] == "clean", summary["audit"]
    assert (summary["bugs"], summary["died"]) == ([], [])
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    return summary


def test_leader_is_killed_under_load_and_the_other_one_goes_on(tmp_path):
    """Open sessions stay, those that ask meanwhile open once each, fibres that are cut afterwards are gone around."""
    with two_controllers(tmp_path / "run") as net:
        first, other = which(net)
        before = sessions(net)
        over = threading.Event()
        found: dict[tuple[str, str], str] = {}

        def load(pair: tuple[str, str]) -> None:
            with Testbed.attach(net.run_dir) as own:
                for n in itertools.count():
                    ksid = opened(own, *pair)
                    if over.is_set():
                        found[pair] = ksid
                        return
                    if n % 2:
                        until(lambda ksid=ksid: ended(own, ksid))

        def ended(own: Testbed, ksid: str) -> bool:
            try:
                own.end(ksid)
            except UserError as error:
                return "no open key session" in str(error)
            return True

        threads = [threading.Thread(target=load, args=(pair,)) for pair in PAIRS]
        for thread in threads:
            thread.start()

        net.fault("controller", "primary")

        until(lambda: leads(net, other))
        over.set()
        for thread in threads:
            thread.join()
        assert found.keys() == set(PAIRS)
        wanted = before.keys() | set(found.values())
        now = until(lambda: {ksid: path for ksid, path in sessions(net).items() if wanted <= sessions(net).keys()})
        assert {ksid: now[ksid] for ksid in before} == before
        assert all(same_key(net, *pair) for pair in PAIRS)

        run = Running.__new__(Running)
        run.directory = net.run_dir
        assert ping(run, "finance", other)
        net.fault("cut", "telecom", "finance")
        until(lambda: ping(run, "finance", "telecom"))
        until(lambda: not [p for p in sessions(net).values() if {"telecom", "finance"} <= set(p) and len(p) == 2])
        net.heal()
        until(lambda: net.status()["away"] == {})
        assert leads(net, other)

    summary = sound(tmp_path / "run")
    assert [each["controller"] for each in summary["leaders"]][-2:] == [first, other]
    assert [each["term"] for each in summary["leaders"]] == sorted({each["term"] for each in summary["leaders"]})
    assigned = [
        event["ksid"]
        for folder in ("controller", "controller-ctl2")
        for event in journal.read(tmp_path / "run" / folder / "journal.jsonl", "ksid_assigned")
    ]
    assert len(assigned) == len(set(assigned))


@pytest.mark.slow
@pytest.mark.ryu
def test_stand_by_on_ryu_takes_over_too(tmp_path):
    """With roles at the switches, whose links are cut afterwards."""
    with two_controllers(tmp_path / "run", framework="ryu") as net:
        first, other = which(net)
        net.fault("controller")
        until(lambda: leads(net, other))
        net.fault("cut", "telecom", "finance")
        opened(net, "billing", "stock-exchange")
        net.heal()
        until(lambda: len((net.status()["controller"] or {"switches": ()})["switches"]) == 5)
        until(lambda: all(same_key(net, *pair) for pair in PAIRS))

    assert [each["controller"] for each in sound(tmp_path / "run")["leaders"]][-2:] == [first, other]


def ping(run: Running, a: str, b: str) -> bool:
    """Whether host `a` reaches `b`."""
    address = {"ctl": "10.1.0.1", "ctl2": "10.1.0.9", "telecom": "10.0.0.3"}[b]
    return subprocess.run(run.on(a, "ping", "-c1", "-W1", address), capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_leader_that_sleeps_stands_by_afterwards(tmp_path):
    """Past its lease, and then awake again; keys go on, and the other one leads on."""
    with two_controllers(tmp_path / "run") as net:
        first, other = which(net)
        before = sessions(net)
        net.fault("pause", first)
        until(lambda: leads(net, other))
        net.heal()
        until(lambda: net.status()["away"] == {})
        assert leads(net, other)
        opened(net, *PAIRS[0])
        until(lambda: before.keys() <= sessions(net).keys())
        until(lambda: all(same_key(net, *pair) for pair in PAIRS))

    names = [each["controller"] for each in sound(tmp_path / "run")["leaders"]]
    assert names[-2:] == [first, other]


@pytest.mark.slow
def test_leader_that_is_cut_off_stands_by_afterwards(tmp_path):
    """With both fibres of its datacenter cut; the rest goes on, and the other one still leads when all is healed."""
    with two_controllers(tmp_path / "run") as net:
        before = sessions(net)
        if leader(net)["name"] == "ctl":  # whose datacenter has the database: nobody leads while that is cut off
            net.fault("controller", "ctl")
            until(lambda: leads(net, "ctl2"))
            net.heal()
            until(lambda: net.status()["away"] == {})
        net.fault("cut", "government", "military")
        net.fault("cut", "university", "government")
        until(lambda: leads(net, "ctl"))
        opened(net, "command-post", "library")
        net.heal()
        until(lambda: leads(net, "ctl"))
        until(lambda: before.keys() <= sessions(net).keys())
        until(lambda: all(same_key(net, *pair) for pair in PAIRS))
        opened(net, *PAIRS[2])

    names = [each["controller"] for each in sound(tmp_path / "run")["leaders"]]
    assert names[-2:] == ["ctl2", "ctl"]


@pytest.mark.slow
def test_stand_by_finds_its_way_to_the_database_when_that_is_cut_with_the_leader_dead(tmp_path):
    """Nobody else has switches forward then."""
    with two_controllers(tmp_path / "run") as net:
        _, other = which(net)
        net.fault("controller", "primary")
        for a, b in (("government", "military"), ("military", "telecom")):
            net.fault("cut", a, b)
        until(lambda: leads(net, other))
        opened(net, "stock-exchange", "library")
        net.heal()
        until(lambda: all(same_key(net, *pair) for pair in PAIRS))

    sound(tmp_path / "run")
