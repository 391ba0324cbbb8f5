"""Delay, jitter, loss and bandwidth of links: netem where the kernel has it, else the user-space delay line.

Which of the two is found out by trying, never assumed; a link that cannot be shaped is an error. Both shape each
direction of a link on its own.
"""

from __future__ import annotations

import subprocess
from typing import Any

from mininet.link import Link
from mininet.node import Node

from testbed.processes import ProcessFailed
from testbed.topology import Link as Fibre

NETEM = "netem"
DELAY_LINE = "user space"

# netem drops what exceeds its queue. Bandwidth times delay of a full 1 Gbit/s link of 100 ms is 8000 full frames.
_NETEM_QUEUE_FRAMES = 20_000


def find_shaper() -> str:
    """NETEM or DELAY_LINE, by trying the first on a pair of interfaces made for that."""
    _ip("link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
    try:
        done = subprocess.run(
            ["tc", "qdisc", "add", "dev", "probe0", "root", "netem", "delay", "1ms"], capture_output=True, check=False
        )
    finally:
        _ip("link", "del", "probe0")
    return NETEM if done.returncode == 0 else DELAY_LINE


def netem_arguments(fibre: Fibre) -> list[str]:
    """What to tell netem for one direction of `fibre`. PURE."""
    arguments = ["limit", str(_NETEM_QUEUE_FRAMES), "delay", f"{fibre.delay_ms * 1000:.0f}us"]
    if fibre.jitter_ms:
        arguments.append(f"{fibre.jitter_ms * 1000:.0f}us")
    if fibre.loss_percent:
        arguments += ["loss", f"{fibre.loss_percent:g}%"]
    if fibre.bandwidth_mbit is not None:
        arguments += ["rate", f"{fibre.bandwidth_mbit * 1_000_000:.0f}bit"]
    return arguments


def apply_netem(interface: str, fibre: Fibre) -> None:
    """Shape what leaves by `interface`; also changes an earlier shape."""
    command = ["tc", "qdisc", "replace", "dev", interface, "root", "netem", *netem_arguments(fibre)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"link {fibre.name}: {' '.join(command)} failed: {done.stderr.strip()}")


class DelayLineLink(Link):
    """A link between two switches by way of the delay line: to Mininet one link, in truth two veth pairs.

    The inner ends, `{line}a` and `{line}b`, lie in the namespace of `delay_node`, where the delay line runs.
    """

    def __init__(self, node1: Node, node2: Node, *, line: str, delay_node: Node, **options: Any) -> None:
        self._line = line
        self._delay_node = delay_node
        super().__init__(node1, node2, **options)

    def makeIntfPair(self, intfname1: str, intfname2: str, *_: object, **__: object) -> None:  # noqa: N802 - Mininet's
        for name, inner in ((intfname1, f"{self._line}a"), (intfname2, f"{self._line}b")):
            _ip("link", "add", name, "type", "veth", "peer", "name", inner, "netns", str(self._delay_node.pid))


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
