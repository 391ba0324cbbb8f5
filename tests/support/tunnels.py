"""Tunnels of a network that runs, as tests look at them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from testbed import Testbed
from tests.support.running import Running
from tests.support.waiting import PATIENCE, until

# a - b - c, controller and database at a.
ROW = """
name: row
nodes: [{name: a}, {name: b}, {name: c}]
links:
  - {a: a, b: b, delay_ms: 0, qcs: [{low_bytes_per_slot: 900, high_bytes_per_slot: 1000}]}
  - {a: b, b: c, delay_ms: 0, qcs: [{low_bytes_per_slot: 900, high_bytes_per_slot: 1000}]}
saes: [{name: one, node: a}, {name: two, node: c}]
"""
KINDS = ("wireguard", "ipsec")
EVERY_S = 1.0
_GAP_S = 0.05


@contextmanager
def joined(run: Running) -> Iterator[Testbed]:
    """The network, joined; its tunnels are ended, its fibres and QCs are as they were afterwards."""
    with Testbed.attach(run.directory) as net:
        yield net
        net.heal()
        for fibre in net.fibres()["fibre"].unique():
            net.reset_fibre(fibre)
        for qc in net.qcs().index:
            net.set_generation(qc, enabled=True)
        for pair in {frozenset((end["node"], end["peer"])) for end in ends(net)}:
            net.end_tunnel(*sorted(pair))


def ends(net: Testbed) -> list[dict]:
    """Both ends of all tunnels."""
    return net.tunnels().reset_index().to_dict("records")


def states(net: Testbed) -> set[str]:
    """Those of all ends."""
    return {end["state"] for end in ends(net)}


def lost(run: Running, host: str, to: str, pings: int) -> int:
    """How many of so many pings had no answer."""
    ping = run.on(host, "ping", "-n", "-c", str(pings), "-i", str(_GAP_S), "-W", "2", to)
    done = subprocess.run(ping, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
    if "No route to host" in done.stderr:  # before the first one was sent
        return pings
    found = re.search(r"(\d+) packets transmitted, (\d+) received", done.stdout)
    assert found, done
    return int(found[1]) - int(found[2])


def reaches(run: Running, host: str, to: str) -> None:
    """Return once a ping has an answer."""
    until(lambda: lost(run, host, to, 3) < 3)
