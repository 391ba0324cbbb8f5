"""A run on Mininet, offered again in virtual time: the outcome of each session and request, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from testbed.evidence.replay import Comparison, replay
from tests.support.running import finished

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
# Twice as fast as the paper's load, so that it is over in half a minute. It is heavy by the size of its keys, not by
# their number: a slow machine can play it in time, too.
FAST = """
name: fast
applications: 52
gap_s: {exponential: 0.4}
length_s: {exponential: 15, at_most: 30}
interval_s: {constant: 2.5}
key_size_bits: {constant: 256}
on_key_failure: go_on
"""


def replayed(directory: Path, mode: str, admission: str, *options: object, load: str = FAST) -> Comparison:
    """Of a load that is too much for the network."""
    workload = directory / "fast.yaml"
    workload.write_text(load)
    done = finished(
        "--workload", workload, "--mode", mode, "--admission", admission, "--seed", 12, "--no-cli",
        "--run-dir", directory / "run", *(options or ("--qc-rate", "45-55")),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = replay(directory / "run")
    assert found.compared > 150
    assert found.failing > 15, "a load that the network carries shows nothing"
    return found


def test_virtual_time_decides_as_nodes_and_controller_did(tmp_path):
    """What was refused, what was short, and on which QC; as far as a busy machine lets one know what came first."""
    found = replayed(tmp_path, "basic", "eq1")

    assert found.agreeing >= 0.9, [str(d) for d in found.differences]


@pytest.mark.slow
def test_virtual_time_knows_which_qcs_generate_as_nodes_and_controller_did(tmp_path):
    """Blocks come every 30 s under a TTL of 15: sessions find no path for half of the time, leave theirs, and wait."""
    network = yaml.safe_load((TOPOLOGIES / "poliqi.yaml").read_text())
    for link in network["links"]:
        link["qcs"] = [{"model": "blocks", "block_bytes": 1500, "every_s": 30, "jitter_s": 2}]
    topology = tmp_path / "blocks.yaml"
    topology.write_text(yaml.safe_dump(network))
    slower = FAST.replace("0.4}", "0.8}").replace("256", "128")

    found = replayed(tmp_path, "basic", "none", "--topology", topology, "--ttl", 15, load=slower)

    assert found.agreeing >= 0.9, [str(d) for d in found.differences]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "admission"), [("basic", "eq1"), ("qkp", "none")])
def test_virtual_time_decides_so_in_98_of_100_cases_and_the_rest_has_a_reason(tmp_path, mode, admission):
    """On a machine that does nothing else."""
    found = replayed(tmp_path, mode, admission)

    assert found.agreeing >= 0.98, [str(d) for d in found.differences]
    assert not [d for d in found.differences if d.reason == "unknown"]
