"""`python -m testbed.bench.bench_links`: how far what a link really does is off from what was configured.

One fibre, in the running network of topologies/pair.yaml, takes one shape after another, as `qkd fibre` changes it;
each is measured as `qkd fibre A B measure` does, in one direction. What is not configured is shown for the first shape
alone.
"""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

from scenario.shape import Shape
from scenario.topology import load
from testbed.bench.bench_run import ROOT, bench, options, with_network
from testbed.machine import output
from testbed.network.emulation import Emulation
from testbed.operation.fibre_commands import figures
from testbed.operation.operator import Operator
from testbed.planning.make import make_plan

SHAPES = (
    Shape(0.05),
    Shape(1),
    Shape(20),
    Shape(5, jitter_ms=1),
    Shape(20, jitter_ms=5),
    Shape(5, loss_percent=0.1),
    Shape(5, loss_percent=1),
    Shape(5, loss_percent=10),
    Shape(5, bandwidth_mbit=1),
    Shape(5, bandwidth_mbit=10),
    Shape(5, bandwidth_mbit=100),
    Shape(5, bandwidth_mbit=1000),
    Shape(20, jitter_ms=2, loss_percent=1, bandwidth_mbit=10),
)


def main() -> int:
    """Print the table; the exit status."""
    options("some two minutes").parse_args()
    plan = make_plan(load("pair", ROOT / "topologies"))
    return bench("bench-links", lambda: with_network(plan, _measure))


def _measure(emulation: Emulation) -> None:
    print(f"links shaped by {emulation.shaper}, datapath {emulation.datapath}, kernel {platform.release()}", flush=True)
    rows: list[tuple[tuple[str], dict[str, Any]]] = []
    with contextlib.closing(Operator(emulation)) as operator:
        (fibre,) = operator.do("fibres")
        where = {"fibre": fibre["name"], "towards": fibre["b"]}
        for shape in SHAPES:
            operator.do("change_fibre", **where, shape=shape.to_json(), measure=False)
            (direction,) = operator.do("measure_fibre", **where)
            shown = direction["figures"] if not rows else filter(_is_told, direction["figures"])
            rows += [((_describe(shape),), figure) for figure in shown]
    print("\n" + figures(rows, ("shape",)), end="", flush=True)


def _describe(shape: Shape) -> str:
    jitter = f" +- {shape.jitter_ms:g}" if shape.jitter_ms else ""
    loss = f", {shape.loss_percent:g} %" if shape.loss_percent else ""
    bandwidth = "" if shape.bandwidth_mbit is None else f", {shape.bandwidth_mbit:g} Mbit/s"
    return f"{shape.delay_ms:g}{jitter} ms{loss}{bandwidth}"


def _is_told(figure: Mapping[str, Any]) -> bool:
    return figure["quantity"] == "delay" or bool(figure["configured"])


if __name__ == "__main__":
    sys.exit(output.run(main))
