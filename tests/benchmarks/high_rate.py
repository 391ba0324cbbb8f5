"""`python -m tests.benchmarks.high_rate`: whether two nodes bear a QC of 10 Mbit/s for an hour. As root.

The network `pair`, and a key a second. With a TTL of 600 slots a node's stock grows until it is as large as it may be,
256 MiB of a QC, which takes three and a half minutes; from then on the oldest bytes expire for those that come. Printed
are, of each kind of process, its memory from when the stock is full to the end; the size of the run directory; and what
became of the bytes at each end. The exit status is 1 if a stock was ever larger than it may be, if bytes are not
accounted for, or if no key came.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping, Sequence

from decisions.parameters import TTL
from decisions.ranges import STOCK_BYTES
from scenario.topology import load as load_topology
from testbed.bench.bench_run import ROOT, bench, options, with_network
from testbed.evidence.summary import Progress
from testbed.network.emulation import Emulation
from testbed.operation.operator import Operator
from testbed.operation.tables import table
from testbed.options import parsed_by
from testbed.planning.make import make_plan
from tests.benchmarks.samples import sample, told

_BYTES_PER_SLOT = 10_000_000 // 8
_SAMPLES = 60
_SHORTEST_S, _LONGEST_S = 2.0, 30.0  # between two of them
_UNTOLD = 3 * _BYTES_PER_SLOT  # figures of a node are read one after the other, while blocks come
_MB = 1e6
Figures = Mapping[str, int]


def main() -> int:
    """All of it; the exit status."""
    parser = options("as many minutes as it is given")
    parser.add_argument("minutes", nargs="?", type=_minutes, default=60.0, metavar="MINUTES", help="default 60")
    parser.add_argument("--ttl", type=parsed_by(TTL.parse), default=600, metavar="SLOTS", help="default 600")
    given = parser.parse_args()
    topology = load_topology("pair", ROOT / "topologies").with_overrides(qc_rate=(_BYTES_PER_SLOT, _BYTES_PER_SLOT))
    plan = make_plan(topology)
    return bench("high-rate", lambda: with_network(plan, lambda net: _feed(net, 60 * given.minutes, given.ttl)))


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (minutes := float(text)) <= 10_000:
            return minutes
    raise argparse.ArgumentTypeError(f"expected minutes above 0 and up to 10000, got {text!r}")


def faults(seen: Sequence[Mapping[str, Figures]], keys: int) -> list[str]:
    """What is not as it must be of what nodes tell of a QC's bytes, time after time. PURE."""
    found = [] if keys else ["no key came"]
    for node in seen[-1]:
        most = max(each[node]["stored_bytes"] for each in seen)
        if most > STOCK_BYTES:
            found.append(f"node {node} stored {most} bytes, and {STOCK_BYTES} may be")
        told_of = seen[-1][node]
        gone = sum(told_of[f"{what}_bytes"] for what in ("stored", "used", "expired", "differing"))
        if abs(untold := told_of["generated_bytes"] - gone) > _UNTOLD:
            found.append(f"node {node} does not account for {untold} bytes")
    return found


def _feed(emulation: Emulation, lasts_s: float, ttl_slots: int) -> int:
    with contextlib.closing(Operator(emulation)) as operator:
        operator.do("set_parameters", values={TTL.name: ttl_slots})
        operator.do("open", master="alice-mail", slave="bob-mail", key_size_bits=256, interval_s=1.0)
        return _watched(emulation, operator, lasts_s, ttl_slots)


def _watched(emulation: Emulation, operator: Operator, lasts_s: float, ttl_slots: int) -> int:
    progress, samples = Progress(emulation.run.path, emulation.plan.nodes), [sample(emulation, 0.0)]
    seen, every_s = [_figures(emulation, operator)], min(max(lasts_s / _SAMPLES, _SHORTEST_S), _LONGEST_S)
    began = time.monotonic()
    while (left_s := began + lasts_s - time.monotonic()) > 0:
        time.sleep(min(left_s, every_s))
        samples.append(sample(emulation, time.monotonic() - began))
        seen.append(_figures(emulation, operator))
        print(f"{samples[-1].at_s:.0f} s: {progress.line()}", file=sys.stderr, flush=True)
    full_s = min(ttl_slots, STOCK_BYTES / _BYTES_PER_SLOT)
    print(told(samples, full_s + every_s, lambda s: f"{s / 60:.1f} min"))
    names = ("generated", "used", "expired", "differing", "stored")
    rows = [
        (node, *(figures[f"{name}_bytes"] / _MB for name in names), max(e[node]["stored_bytes"] for e in seen) / _MB)
        for node, figures in seen[-1].items()
    ]
    print(table(("node", *(f"MB {name}" for name in names), "most stored"), rows))
    print(progress.line())
    found = faults(seen, sum(s["keys"] for s in operator.do("sae", name="alice-mail")["sessions"]))
    print("\n".join(f"NOT SO: {text}" for text in found) or "bounded and accounted for")
    return 1 if found else 0


def _figures(emulation: Emulation, operator: Operator) -> dict[str, Figures]:
    """Of the one QC, by node."""
    return {node: operator.do("node", name=node)["qcs"][0] for node in emulation.plan.nodes}


if __name__ == "__main__":
    sys.exit(main())
