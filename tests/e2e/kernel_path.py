"""For a machine whose kernel has both: links are shaped by netem, switches forward in the kernel. See tests/uml."""

from __future__ import annotations

import subprocess

from tests.e2e.running import Running


def test_links_are_shaped_by_netem_and_switches_forward_in_the_kernel(poliqi: Running):
    """As the run says, as tc says, and as Open vSwitch says."""
    assert "(datapath kernel), 5 links (shaped by netem)" in poliqi.text
    shown = subprocess.run(poliqi.fabric("tc", "qdisc", "show"), capture_output=True, text=True, check=True).stdout
    assert shown.count("qdisc netem") == 10
    modules = subprocess.run(["lsmod"], capture_output=True, text=True, check=True).stdout
    assert "openvswitch" in modules
    database = f"--db=unix:{poliqi.directory}/ovs/db.sock"
    asked = poliqi.fabric("ovs-vsctl", database, "--columns=datapath_type", "--format=csv", "list", "bridge")
    types = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    assert types[0] == "datapath_type"
    assert len(types) == 6
    assert set(types[1:]) <= {'""', "system", ""}
