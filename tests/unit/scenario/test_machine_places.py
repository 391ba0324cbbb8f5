"""Where datacenters are placed: what a file may say, and the line that refuses what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenario.machines import HOME, Machine, places
from scenario.topology import TopologyError, load, load_machines

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"


def placed(tmp_path: Path, *rows: str):
    """PoliQI on the machines of these rows."""
    path = tmp_path / "machines.yaml"
    path.write_text("machines:\n" + "".join(f"  - {row}\n" for row in rows))
    return load_machines(path, load("poliqi", TOPOLOGIES))


def test_whatever_no_machine_holds_is_at_home(tmp_path):
    """A machine has a name, an SSH destination and datacenters; where the testbed is, and its address, if need be."""
    found = placed(
        tmp_path, "{name: west, ssh: admin@west.example.net, datacenters: [finance, university]}",
        "{name: east, ssh: east, datacenters: [military], root: /opt/qkd, address: 192.0.2.7}",
    )  # fmt: skip

    assert found.machines == (
        Machine("west", "admin@west.example.net", ("finance", "university")),
        Machine("east", "east", ("military",), "/opt/qkd", "192.0.2.7"),
    )
    assert places(found.machines, [node.name for node in found.nodes]) == {
        "government": HOME, "military": "east", "telecom": HOME, "finance": "west", "university": "west",
    }  # fmt: skip


def test_topology_may_place_its_datacenters_itself(tmp_path):
    """By the same member; `--machines` is for one that does not."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        (TOPOLOGIES / "pair.yaml").read_text() + "\nmachines: [{name: west, ssh: west, datacenters: [bob]}]\n"
    )

    assert load(str(path), TOPOLOGIES).machines == (Machine("west", "west", ("bob",)),)


def test_datacenter_of_the_second_controller_stays_at_home(tmp_path):
    """As that of the first one; the line says so."""
    path = tmp_path / "mine.yaml"
    elsewhere = "\ncontroller2: bob\nmachines: [{name: west, ssh: west, datacenters: [bob]}]\n"
    path.write_text((TOPOLOGIES / "pair.yaml").read_text() + elsewhere)

    with pytest.raises(TopologyError, match="'bob' has the second controller, and so it stays at home"):
        load(str(path), TOPOLOGIES)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{name: w, ssh: w, datacenters: [milan]}", r"machines\[0\].datacenters\[0\]: unknown node 'milan'"),
        ("{name: w, ssh: w, datacenters: []}", r"machines\[0\].datacenters: expected at least one datacenter"),
        ("{name: w, ssh: w, datacenters: [finance, finance]}", r"datacenters\[1\]: duplicate 'finance', already used"),
        ("{name: w, ssh: w, datacenters: [telecom]}", "'telecom' has the shared database, and so it stays at home"),
        ("{name: home, ssh: w, datacenters: [finance]}", "'home' is the machine where run.py is started"),
        ("{name: w, ssh: -oProxyCommand=evil, datacenters: [finance]}", r"machines\[0\].ssh: expected what ssh takes"),
        ("{name: w, ssh: 'a b', datacenters: [finance]}", r"machines\[0\].ssh: expected what ssh takes"),
        ("{name: w, ssh: w, datacenters: [finance], root: opt}", r"machines\[0\].root: expected the absolute path"),
        ("{name: w, ssh: w, datacenters: [finance], address: w}", r"machines\[0\].address: expected an IP address"),
        ("{name: w, datacenters: [finance]}", r"machines\[0\].ssh: missing"),
    ],
)
def test_line_names_what_is_wrong_with_a_placement(tmp_path, row, said):
    """File, field and what was expected."""
    with pytest.raises(TopologyError, match=f"machines.yaml: .*{said}"):
        placed(tmp_path, row)


def test_datacenter_on_two_machines_is_refused(tmp_path):
    """The line names the place that has it already."""
    rows = [f"{{name: {name}, ssh: {name}, datacenters: [finance]}}" for name in ("west", "east")]

    with pytest.raises(TopologyError, match=r"machines\[1\]\.datacenters\[0\]: duplicate 'finance'"):
        placed(tmp_path, *rows)


def test_file_that_is_not_there_is_one_line():
    """It names the file."""
    with pytest.raises(TopologyError, match=r"nowhere\.yaml: No such file"):
        load_machines(Path("nowhere.yaml"), load("pair", TOPOLOGIES))
