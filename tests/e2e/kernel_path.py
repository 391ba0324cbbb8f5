"""For a machine whose kernel has both: links are shaped by netem, switches forward in the kernel. See tests/uml."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from tests.e2e.test_poliqi import cut_by_mininet, get_key_with_id, open_session
from tests.support.running import Running
from tests.support.waiting import until


def test_links_are_shaped_by_netem_and_switches_forward_in_the_kernel(poliqi: Running):
    """As the run says, as tc says, and as Open vSwitch says."""
    def shown(*command: str) -> str:
        return subprocess.run(poliqi.fabric(*command), capture_output=True, text=True, check=True).stdout

    assert "(datapath kernel), 5 links (shaped by netem)" in poliqi.text
    assert shown("tc", "qdisc", "show").count("qdisc netem") == 10
    datapaths = shown("ovs-appctl", "-t", f"{poliqi.directory}/ovs/ovs-vswitchd.ctl", "dpif/show")
    assert re.findall(r"^(\S+):", datapaths, re.M) == ["system@ovs-system"]
    assert re.findall(r"^  (s\d):", datapaths, re.M) == ["s1", "s2", "s3", "s4", "s5"]


def test_key_over_a_trusted_relay_is_the_same_at_both_ends(poliqi: Running):
    """A node that has to wait for the one slow CPU answers 503, or too late: then they ask for another key."""
    master, slave, hops = open_session(poliqi, "government", "telecom")
    url = f"{poliqi.config('sae-government')['kme_url']}/api/v1/keys/{slave}/enc_keys"
    call = "government", "POST", url, f"sae:{master}", "node:government", '{"size": 256}'

    answers: list[dict[str, Any]] = []

    def both() -> bool:
        answers[:] = [poliqi.call(*call)[0]]
        if answers[0]["status"] == 200:
            key_id = answers[0]["body"]["keys"][0]["key_ID"]
            answers.append(get_key_with_id(poliqi, "telecom", slave, master, key_id))
        return [answer["status"] for answer in answers] == [200, 200]

    until(both, else_tell=lambda: answers)
    assert hops == 2
    assert answers[0] == answers[1]


def test_traffic_takes_the_way_round_as_slow_as_netem_makes_it_while_a_fibre_is_cut(poliqi: Running):
    """Of 40 ms each way, as typed while the network runs; and the direct fibre again, once it is whole."""
    with cut_by_mininet(poliqi):
        pass
