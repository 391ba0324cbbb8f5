"""A real device as QC: what a topology file may say of it, and what becomes of that for nodes, emulators and faults."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node import config as node_config
from scenario.quantum.qc_models import Blocks
from scenario.topology import load
from scenario.topology_description import TopologyError
from testbed import command
from testbed.errors import UserError
from testbed.network.faults import check
from testbed.options import usual_ttl_slots
from testbed.planning.documents import SharedDatabaseAt
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan
from testbed.quantum.devices import device_routes
from testbed.quantum.qc_keys import share_qc_key

QC = "north-south/1"
AT = SharedDatabaseAt("postgresql://", "qkd")
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with credentials of both ends, from the device's CA."""
    authority = Authority(tmp_path / "pki")
    for name in ("left", "right"):
        authority.issue(Identity(Role.SAE, name), addresses=[], stem=name)
    return tmp_path


def document() -> dict[str, Any]:
    """A network whose QC is a device; beside it one that is emulated."""
    ends = {
        node: {"url": f"https://127.0.0.1:{port}", "sae_id": name, "cert": f"pki/{name}.pem", "key": f"pki/{name}.key",
               "ca": "pki/ca.pem"}
        for node, name, port in (("north", "left", 9001), ("south", "right", 9003))
    }  # fmt: skip
    return {
        "name": "mine", "nodes": [{"name": "north"}, {"name": "south"}],
        "links": [{"a": "north", "b": "south", "length_km": 1, "qcs": [{"source": {"gs014": {"ends": ends}}}, {}]}],
        "saes": [{"name": "one", "node": "north"}, {"name": "other", "node": "south"}],
    }  # fmt: skip


def loaded(files: Path, change: Change = lambda _: None) -> Any:
    """The topology of a file in the folder, with a change of what it says of the device."""
    said = document()
    change(said["links"][0]["qcs"][0]["source"]["gs014"])
    path = files / "mine.yaml"
    path.write_text(yaml.safe_dump(said))
    return load(str(path), files)


@pytest.fixture
def plan(files: Path) -> Plan:
    """Of that network."""
    return make_plan(loaded(files))


def test_device_is_asked_for_what_the_file_says(files):
    """Eight keys of 256 bits a second are usual. Virtual time takes it that all that is asked for comes."""
    usual, slow = (
        loaded(files, lambda d, more=more: d.update(more)).links[0].qcs[0]
        for more in ({}, {"number": 100, "size_bits": 1024, "every_s": 60})
    )

    assert (usual.source.number, usual.source.size_bits, usual.source.every_s) == (8, 256, 1)
    assert usual.source.ends["north"].key == files / "pki/left.key"
    assert usual.mean_bytes_per_slot == 256
    assert slow.model == Blocks(12_800, 60)


def test_key_material_of_a_slow_device_lives_long_enough(files):
    """As that of blocks does."""
    assert usual_ttl_slots(loaded(files, lambda d: d.update(every_s=60))) == 120


def in_end(**members: object) -> Change:
    """A change of what is said of the end at north."""
    return lambda device: device["ends"]["north"].update(members)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["ends"].pop("south"), "gs014.ends.south: missing, and it is required"),
        (lambda d: d["ends"].update(west={}), "gs014.ends: unknown member 'west'"),
        (lambda d: d["ends"]["north"].pop("ca"), "gs014.ends.north.ca: missing"),
        (in_end(url="http://127.0.0.1:1"), "gs014.ends.north.url: expected https://HOST:PORT of the device's KME"),
        (in_end(url="https://"), "gs014.ends.north.url: expected https://HOST:PORT"),
        (in_end(url="https://kme:99999"), "gs014.ends.north.url: expected https://HOST:PORT"),
        (in_end(url="https://me:secret@kme"), "gs014.ends.north.url: expected https://HOST:PORT"),
        (in_end(sae_id=""), "gs014.ends.north.sae_id: expected 1 to 128 printable characters"),
        (in_end(sae_id="right"), "gs014.ends: expected another sae_id at each end"),
        (in_end(cert="none.pem"), "gs014.ends.north.cert: expected a file that can be read"),
        (in_end(key="pki"), "gs014.ends.north.key: expected a file that can be read"),
        (in_end(key="pki/ca.pem"), "gs014.ends.north.key: expected a file that only its owner can read: chmod 600"),
        (lambda d: d.update(number=0), "gs014.number: expected a number above 0"),
        (lambda d: d.update(number=1025), "gs014.number: expected a whole number from 0 to 1024"),
        (lambda d: d.update(size_bits=100), "gs014.size_bits: expected a multiple of 8 above 0"),
        (lambda d: d.update(number=1000, size_bits=8192), "gs014.number: expected at most 4194304 bits at a time"),
        (lambda d: d.update(every_s=0.01), "gs014.every_s: expected 0.1 s or more"),
        (lambda d: d.update(every_s="1"), "gs014.every_s: expected a plain number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_device_that_is_described_wrongly_is_named_by_field(files, change, says):
    """With what was expected, in one line; no secret of an address is repeated."""
    with pytest.raises(TopologyError) as caught:
        loaded(files, change)

    assert f"links[0].qcs[0].source.{says}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nodes_reach_their_own_end_by_a_port_of_their_own_host(plan, files):
    """By a forwarder's route each; what they must know is a configuration that a node takes."""
    for pair in plan.qc_keys(files):
        share_qc_key(pair)
    own = Credentials(files / "pki/left.pem", files / "pki/left.key", files / "pki/ca.pem")
    found = {}
    for node in plan.nodes:
        parsed = node_config.parse(plan.node_config(node, files / node, own, database=AT))
        device, emulated = (qc.device for qc in parsed.qcs)
        assert emulated is None
        found[node] = device
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        routes = device_routes(plan.topology, inside="/of/{}".format, outside="/out", network=network)
    finally:
        os.close(network)

    assert [found[node].peer_sae for node in plan.nodes] == ["right", "left"]
    assert [route["listen"] for route in routes] == [[f"/of/{node}", *found[node].via] for node in plan.nodes]
    assert [route["connect"] for route in routes] == [["/out", "127.0.0.1", 9001], ["/out", "127.0.0.1", 9003]]


def test_device_is_not_emulated_and_keeps_its_rate(plan):
    """Neither by the QC emulators, nor by options that set the rate of all QCs."""
    topology = plan.topology.with_overrides(qc_rate=(1, 2))

    assert [qc["qc"] for qc in plan.qc_config(Path(), Path(), seed=1)["qcs"]] == ["north-south/2"]
    assert topology.links[0].qcs[0] == plan.topology.links[0].qcs[0]
    assert topology.links[0].qcs[1].high_bytes_per_slot == 2


@pytest.mark.parametrize("kind", ["qc", "device", "eve"])
def test_device_of_somebody_else_is_not_broken(files, kind):
    """Where the fibre has no other QC."""
    topology = loaded(files)
    (link,) = topology.links
    alone = make_plan(replace(topology, links=(replace(link, qcs=link.qcs[:1]),)))

    with pytest.raises(UserError, match="devices of yours, which nothing here breaks"):
        check(alone, kind, ("north", "south"))
    assert check(alone, "cut", ("north", "south")) == ("north", "south")


def test_virtual_machine_has_no_way_to_a_device(files, capsys):
    """It is said before one starts."""
    loaded(files)

    assert command.main(["--vm", "--topology", str(files / "mine.yaml")]) == 2

    said = capsys.readouterr().err
    assert said.startswith("run.py: --vm goes without devices of yours, of which north-south/1 is one")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("url", "http://x", r"qcs\[0\].device.url: expected https://HOST:PORT"),
        ("number", 0, r"qcs\[0\].device.number: expected an integer from 1"),
        ("size_bits", 12, r"qcs\[0\].device.size_bits: expected a multiple of 8"),
        ("every_s", 0, r"qcs\[0\].device.every_s: expected a number from 0.1"),
        ("via", ["127.0.0.1"], r"qcs\[0\].device.via\[1\]: expected an integer from 1"),
        ("peer_sae", 7, r"qcs\[0\].device.peer_sae: expected"),
        ("more", 1, r"qcs\[0\].device.more: expected exactly the members"),
    ],
)
def test_node_says_what_is_wrong_with_its_device(plan, files, member, value, says):
    """One line that names the member."""
    for pair in plan.qc_keys(files):
        share_qc_key(pair)
    own = Credentials(files / "pki/left.pem", files / "pki/left.key", files / "pki/ca.pem")
    said = plan.node_config("north", files / "north", own, database=AT)
    said["qcs"][0]["device"][member] = value

    with pytest.raises(ValueError, match=says):
        node_config.parse(said)


@pytest.mark.parametrize(
    ("mode", "content", "says"),
    [(0o644, None, "only its owner can read"), (0o600, "no key", "PEM files of a certificate, of its private key")],
)
def test_node_refuses_a_private_key_that_others_can_read_or_that_is_none(plan, files, mode, content, says):
    """Nothing of the file is repeated."""
    for pair in plan.qc_keys(files):
        share_qc_key(pair)
    own = Credentials(files / "pki/right.pem", files / "pki/right.key", files / "pki/ca.pem")
    said = plan.node_config("north", files / "north", own, database=AT)
    key = files / "pki/left.key"
    if content is not None:
        key.write_text(content)
    key.chmod(mode)

    with pytest.raises(ValueError, match=rf"qcs\[0\].device.credentials.*{says}") as caught:
        node_config.parse(said)

    assert content is None or content not in str(caught.value)
