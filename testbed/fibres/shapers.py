"""Delay, jitter, loss and bandwidth of links: netem where the kernel has it, else the user-space delay line.

Which of the two is found out by trying, never assumed; a link that cannot be shaped is an error. Both shape each
direction of a link on its own, mean the same by `scenario.shape`, and take another shape while frames are under way,
of which none is lost and none overtaken.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from scenario.shape import Shape
from testbed.machine.processes import Process, ProcessFailed, run_tool
from testbed.planning.plan import LinkPlan

NETEM = "netem"
DELAY_LINE = "user space"

# netem drops what exceeds its queue, which it counts in frames and which holds those on the fibre, too. So: netem's
# usual 1000 frames that wait for a busy line, and what the fibre holds if all its frames are as short as frames can be.
_WAITING_FRAMES = 1000
_SHORTEST_FRAME_BITS = 64 * 8
_MOST_FRAMES = 1_000_000
# Without a bandwidth: what a full 1 Gbit/s link of 100 ms holds is 8000 full frames.
_UNLIMITED_QUEUE_FRAMES = 20_000
# As good as no limit, and a rate all the same: only with one does netem keep frames in order (sch_netem.c,
# netem_enqueue), and a change that names no rate keeps the old one.
_UNLIMITED_RATE = "1000gbit"
_ANSWER_S = 20.0


class Shaper(Protocol):
    """What shapes the links of a running network."""

    def apply(self, plan: LinkPlan, *, before: tuple[Shape, Shape], after: tuple[Shape, Shape]) -> None:
        """Give a link's two directions (a to b, b to a) another shape. ProcessFailed: it has the one from before."""


def find_shaper() -> str:
    """NETEM or DELAY_LINE, by trying the first on a pair of interfaces made for that."""
    run_tool("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
    try:
        done = subprocess.run(
            ["tc", "qdisc", "add", "dev", "probe0", "root", "netem", "delay", "1ms"], capture_output=True, check=False
        )
    finally:
        run_tool("ip", "link", "del", "probe0")
    return NETEM if done.returncode == 0 else DELAY_LINE


def netem_arguments(shape: Shape) -> list[str]:
    """What to tell netem for one direction of a link: all of it, for what is left out of a change stays. PURE."""
    jitter = [f"{shape.jitter_ms * 1000:.0f}us"] if shape.jitter_ms else []
    rate = _UNLIMITED_RATE if shape.bandwidth_mbit is None else f"{shape.bandwidth_mbit * 1_000_000:.0f}bit"
    return [
        "limit", str(_queue_frames(shape)), "delay", f"{shape.delay_ms * 1000:.0f}us", *jitter,
        "loss", f"{shape.loss_percent:.9g}%", "rate", rate,
    ]  # fmt: skip


def _queue_frames(shape: Shape) -> int:
    if shape.bandwidth_mbit is None:
        return _UNLIMITED_QUEUE_FRAMES
    on_the_fibre = (shape.delay_ms + shape.jitter_ms) * 1000 * shape.bandwidth_mbit / _SHORTEST_FRAME_BITS
    return min(_WAITING_FRAMES + math.ceil(on_the_fibre), _MOST_FRAMES)


class Netem:
    """Shapes by the kernel's netem: each direction where it begins, at the port that frames leave by."""

    def apply(self, plan: LinkPlan, *, before: tuple[Shape, Shape], after: tuple[Shape, Shape]) -> None:
        """As Shaper has it; also for a link that has no shape yet."""
        self.shape_port(plan.port_a, after[0])
        try:
            self.shape_port(plan.port_b, after[1])
        except ProcessFailed:
            self.shape_port(plan.port_a, before[0])
            raise

    def shape_port(self, port: str, shape: Shape) -> None:
        """Shape what leaves by a port. ProcessFailed."""
        # Of the same kind, netem is changed, not replaced: frames that it holds stay.
        run_tool("tc", "qdisc", "replace", "dev", port, "root", "netem", *netem_arguments(shape))


class DelayLineControl:
    """Has the running delay line take other shapes: by its configuration, which it reads again and answers to.

    `write` replaces the configuration file in one step; `document` is what it says now, with the file of the answer.
    """

    def __init__(self, process: Process, write: Callable[[object], object], document: Mapping[str, Any]) -> None:
        self._process = process
        self._write = write
        self._document = document
        self._answer = Path(document["answer"])

    def apply(self, plan: LinkPlan, *, before: tuple[Shape, Shape], after: tuple[Shape, Shape]) -> None:  # noqa: ARG002 - a Shaper
        """As Shaper has it."""
        shapes = {"a_to_b": after[0].to_json(), "b_to_a": after[1].to_json()}
        lines = [line | shapes if line["name"] == plan.link.name else line for line in self._document["lines"]]
        wanted = {**self._document, "lines": lines}
        error = self._have_read(wanted)
        if error is not None:
            self._write(self._document)
            self._process.signal(signal.SIGHUP)  # should it read only now, it finds the old shape
            raise ProcessFailed(f"the delay line keeps the old shape: {error}")
        self._document = wanted

    def _have_read(self, document: Mapping[str, Any]) -> str | None:
        """Why the delay line does not take that configuration; None if it does."""
        self._answer.unlink(missing_ok=True)
        self._write(document)
        self._process.signal(signal.SIGHUP)
        deadline = time.monotonic() + _ANSWER_S
        while not self._answer.exists():
            if not self._process.alive():
                return "it has ended"
            if time.monotonic() > deadline:
                return f"it does not answer within {_ANSWER_S:g} s"
            time.sleep(0.002)
        error: str | None = json.loads(self._answer.read_text())["error"]
        return error
