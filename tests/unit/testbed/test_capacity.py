"""What is too large for the machine is refused before anything starts, and limits that can be raised are."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from scenario.topology import load
from testbed.errors import UserError
from testbed.machine.processes import Process, execute
from testbed.planning import capacity
from testbed.planning.make import make_plan

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"


@pytest.fixture
def plan():
    """Of PoliQI."""
    return make_plan(load("poliqi", TOPOLOGIES))


@pytest.fixture
def files():
    """Sets the soft limit of open files; it is put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_larger_networks_need_more(plan):
    """Of everything that is counted."""
    node, *others = plan.topology.nodes
    smaller = make_plan(replace(plan.topology, nodes=(node,), links=(), saes=(), controller_at=node.name,
                                database_at=node.name))  # fmt: skip

    less, more = capacity.needs(smaller), capacity.needs(plan)

    assert others
    for of_what in ("memory_mb", "files", "processes", "connections", "fewest_connections"):
        assert getattr(less, of_what) < getattr(more, of_what)


@pytest.mark.parametrize(
    ("file", "says", "of_what"),
    [
        ("_MEMINFO", "MemTotal: 9\nMemAvailable:  102400 kB\n", "MB of memory, and 100 are free"),
        ("_PID_MAX", "10", "processes and threads, and -[0-9]+ are free"),
    ],
    ids=["memory", "processes"],
)
def test_network_that_the_machine_cannot_hold_is_refused(file, says, of_what, plan, monkeypatch, tmp_path):  # noqa: PLR0917
    """With what it takes and what there is."""
    (tmp_path / "kernel").write_text(says)
    monkeypatch.setattr(capacity, file, tmp_path / "kernel")

    with pytest.raises(UserError, match=rf"a network of 5 nodes takes about \d+ {of_what}"):
        capacity.reserve(plan)


def test_network_for_which_processors_are_few_is_told_of(plan, monkeypatch):
    """The process may be allowed fewer of them than the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    assert not capacity.doubt(plan)

    monkeypatch.setattr(capacity, "_NODES_A_PROCESSOR", 2)
    assert capacity.doubt(plan).startswith("5 nodes may be too many for this machine (processors: 2), on which 4 are")


def test_limit_of_a_container_counts(plan, monkeypatch, tmp_path):
    """Where it leaves less than the machine has."""
    (tmp_path / "memory.max").write_text(str(300 << 20))
    (tmp_path / "memory.current").write_text(str(100 << 20))
    monkeypatch.setattr(capacity, "_CGROUP", tmp_path)

    with pytest.raises(UserError, match="and 200 are free"):
        capacity.reserve(plan)


RAISE = """
import resource
from pathlib import Path
from testbed.planning import capacity
from testbed.planning.make import make_plan
from scenario.topology import load
plan = make_plan(load("poliqi", Path("topologies")))
capacity.reserve(plan)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= capacity.needs(plan).files > 90)
"""


def test_soft_limit_of_open_files_is_raised():
    """As far as the hard one allows."""
    command = ["prlimit", "--nofile=90:", sys.executable, "-c", RAISE]  # a process that has few files open yet
    done = subprocess.run(command, cwd=TOPOLOGIES.parent, capture_output=True, text=True, check=False)

    assert done.stdout == "True\n", done.stderr


def test_process_is_awaited_by_a_descriptor_beyond_1023(tmp_path, files):
    """Which select() does not know."""
    files(2000)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        launch = partial(execute, [sys.executable, "-c", "print('ready')"])
        process = Process("one", launch, tmp_path / "log")
        process.wait_ready()
        process.stop()
    finally:
        for file in held:
            os.close(file)
