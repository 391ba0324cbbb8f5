"""For a machine whose kernel has both: links are shaped by netem, switches forward in the kernel. See tests/uml."""

from __future__ import annotations

import re
import subprocess

from tests.e2e.running import Running


def test_links_are_shaped_by_netem_and_switches_forward_in_the_kernel(poliqi: Running):
    """As the run says, as tc says, and as Open vSwitch says."""
    def shown(*command: str) -> str:
        return subprocess.run(poliqi.fabric(*command), capture_output=True, text=True, check=True).stdout

    assert "(datapath kernel), 5 links (shaped by netem)" in poliqi.text
    assert shown("tc", "qdisc", "show").count("qdisc netem") == 10
    datapaths = shown("ovs-appctl", "-t", f"{poliqi.directory}/ovs/ovs-vswitchd.ctl", "dpif/show")
    assert re.findall(r"^(\S+):", datapaths, re.M) == ["system@ovs-system"]
    assert re.findall(r"^  (s\d):", datapaths, re.M) == ["s1", "s2", "s3", "s4", "s5"]
