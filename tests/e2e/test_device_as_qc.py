"""A network whose QC has its key material from a device: a second testbed, whose KMEs are behind `--expose`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from telemetry import journal
from testbed.evidence.replay import replay
from tests.support.running import Running, finished, free_ports
from tests.support.waiting import until

DEVICE = {
    "name": "device",
    "nodes": [{"name": "x"}, {"name": "y"}],
    "links": [{"a": "x", "b": "y", "length_km": 1, "qcs": [{"low_bytes_per_slot": 400, "high_bytes_per_slot": 400}]}],
    "saes": [{"name": "left", "node": "x", "external": True}, {"name": "right", "node": "y", "external": True}],
}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It runs, and publishes its KMEs."""
    folder = tmp_path_factory.mktemp("device")
    topology = folder / "device.yaml"
    topology.write_text(yaml.safe_dump(DEVICE))
    running = Running(folder / "run", "--topology", topology, "--expose", free_ports(7), "--no-dashboard")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


def network(directory: Path, device: Running) -> Path:
    """The topology file of a network that has this device."""
    exposed = json.loads((device.directory / "expose.json").read_text())
    ends = {}
    for node, sae, kme in (("north", "left", "x"), ("south", "right", "y")):
        files = {name: exposed["saes"][sae][name] for name in ("cert", "key")}
        ends[node] = {"url": exposed["kmes"][kme], "sae_id": exposed["saes"][sae]["id"], "ca": exposed["ca"], **files}
    source = {"gs014": {"ends": ends, "number": 8, "size_bits": 256}}
    path = directory / "network.yaml"
    path.write_text(yaml.safe_dump({
        "name": "with-a-device", "nodes": [{"name": "north"}, {"name": "south"}],
        "links": [{"a": "north", "b": "south", "length_km": 20, "qcs": [{"source": source}]}],
        "saes": [{"name": "mail", "node": "north"}, {"name": "backup", "node": "south"}],
    }))  # fmt: skip
    return path


def test_device_whose_host_has_no_address_is_one_line(device, tmp_path):
    """With the field."""
    path = network(tmp_path, device)
    path.write_text(path.read_text().replace("127.0.0.1", "no-such-device.invalid"))

    done = finished("--topology", path, "--duration", 1, "--no-cli", "--run-dir", tmp_path / "run")

    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert len(said) == 1
    assert "QC north-south/1, source.gs014.ends.north.url: cannot resolve 'no-such-device.invalid'" in said[0]


def test_keys_of_another_testbed_become_keys_here(device, tmp_path):
    """Over the emulated network and out of it; both runs' audits are clean, and an operator sees how the device is.

    The last test here: the device ends.
    """
    run = Running(
        tmp_path / "run", "--topology", network(tmp_path, device), "--sessions", 1, "--seed", 1, "--no-dashboard"
    )
    try:
        run.wait_up()
        run.say("qkd status", r"devices +all answer")
        until(lambda: (found := list(journal.read(run.directory / "saes/south/journal.jsonl", "key"))) and found)
        run.say("qkd set rate north-south/1 1-2", "its key material comes from a device of yours")
        run.say("qkd fault qc north south", "are devices of yours, which nothing here breaks")
        assert device.exit() == 0, device.text
        until(lambda: "does not answer" in run.say("qkd status", r"(?s)devices .*\nprocesses"))
        assert run.exit() == 0, run.text
    finally:
        run.stop()

    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    assert summary["audit"]["verdict"] == "clean"
    assert summary["audit"]["checked"]["bytes_generated"] > 0
    found = replay(run.directory)
    assert found.compared > 0
    # Of two or three decisions the first may have come together with the block that it needed.
    assert found.agreeing >= 0.5, [str(d) for d in found.differences]
    assert [str(d) for d in found.differences if d.reason == "unknown"] == []
