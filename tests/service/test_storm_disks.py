"""Disks that a storm fills: real file systems, in a mount namespace of the test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scenario.topology import load
from testbed.machine.namespaces import NEW_MOUNT, unshare
from testbed.machine.run_directory import RunDirectory
from testbed.planning.make import make_plan
from testbed.storm.disks import Disks

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


@pytest.fixture
def apart() -> Iterator[ThreadPoolExecutor]:
    """A thread whose mounts nobody else sees."""
    with ThreadPoolExecutor(1, initializer=leave) as thread:
        yield thread


def leave() -> None:
    """Have mounts of this thread's own from here on."""
    unshare(NEW_MOUNT)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def made(path: Path) -> Disks:
    """Those of PoliQI in a run directory."""
    return Disks(make_plan(load("poliqi", TOPOLOGIES)), RunDirectory(path, "run", -1))


def test_full_disk_takes_no_byte_more_until_it_has_room_again(apart, tmp_path):
    """Those of a datacenter's node and applications both; others go on."""
    journal = tmp_path / "nodes" / "finance" / "journal.jsonl"

    def fill_and_empty() -> None:
        disks = made(tmp_path)
        journal.write_bytes(bytes(10_000))
        disks.fill("finance")
        for folder in ("nodes", "saes"):
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / folder / "finance" / "more").write_bytes(bytes(5000))
        (tmp_path / "nodes" / "telecom" / "more").write_bytes(bytes(5000))
        disks.empty("finance")
        (tmp_path / "nodes" / "finance" / "more").write_bytes(bytes(5_000_000))
        assert journal.read_bytes() == bytes(10_000)

    apart.submit(fill_and_empty).result()


def test_what_was_on_the_disks_is_kept(apart, tmp_path):
    """In the run directory itself, where all can see it."""
    journal = tmp_path / "controller" / "journal.jsonl"

    def write_and_keep() -> None:
        disks = made(tmp_path)
        journal.write_text("{}\n")
        disks.keep()

    apart.submit(write_and_keep).result()

    assert journal.read_text() == "{}\n"
