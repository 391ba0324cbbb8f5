"""`python -m tests.benchmarks.day`: whether a run that lasts a day grows. As root.

PoliQI under the paper's load, again and again, with all times divided by ten and ten times the key material: HOURS (2)
of this are ten times as many of a run. Printed are, of each kind of process, how many there are and their resident
memory, from what stands for the first hour to the end; and the size of the run directory. Of PostgreSQL it is their own
memory: what its processes share, each of them would count.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from scenario.topology import load as load_topology
from scenario.workload import arrivals
from scenario.workload import load as load_workload
from testbed.bench.bench_run import ROOT, bench, options, with_network
from testbed.evidence.summary import Progress
from testbed.network.emulation import Emulation
from testbed.network.workload_player import OfferedLoad
from testbed.operation.operator import Operator
from testbed.planning.make import make_plan
from tests.benchmarks.samples import sample, told

_TIMES = 10
_RATE = (33 * _TIMES, 47 * _TIMES)
_SAMPLE_S = 60.0
_HOUR_S = 3600 / _TIMES
_CLOSING_S = 3.0  # a session that has ended is still known for a moment


def main() -> int:
    """All of it; the exit status."""
    parser = options("as many hours as it is given")
    parser.add_argument("hours", nargs="?", type=_hours, default=2.0, metavar="HOURS", help="above 0; default 2")
    hours = parser.parse_args().hours
    topology = load_topology("poliqi", ROOT / "topologies").with_overrides(qc_rate=_RATE)
    return bench("day", lambda: with_network(make_plan(topology), lambda emulation: _day(emulation, 3600 * hours)))


def _hours(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (hours := float(text)) <= 1000:
            return hours
    raise argparse.ArgumentTypeError(f"expected hours above 0 and up to 1000, got {text!r}")


def _day(emulation: Emulation, lasts_s: float) -> None:
    with contextlib.closing(Operator(emulation)) as operator:
        _offered(emulation, operator, lasts_s)


def _offered(emulation: Emulation, operator: Operator, lasts_s: float) -> None:
    workload = load_workload("paper", ROOT / "workloads").faster(_TIMES)
    progress, samples = Progress(emulation.run.path, emulation.plan.nodes), [sample(emulation, 0.0)]
    refused: list[str] = []
    busy_until: dict[tuple[str, str], float] = {}
    began, seed = time.monotonic(), 0
    while (now := time.monotonic() - began) < lasts_s:
        drawn = []
        for arrival in arrivals(workload, emulation.plan.saes, seed):
            pair, at_s = (arrival.master.id, arrival.slave.id), now + arrival.at_s
            if busy_until.get(pair, 0.0) < at_s:
                busy_until[pair] = at_s + (arrival.length_s or 0.0) + _CLOSING_S
                drawn.append(arrival)
        player = OfferedLoad(operator.do, drawn, refused.append)
        player.start()
        player.join()
        seed += 1
        if (at_s := time.monotonic() - began) - samples[-1].at_s >= _SAMPLE_S:
            samples.append(sample(emulation, at_s))
            print(f"{at_s:.0f} s: {progress.line()}; {len(refused)} sessions not opened", file=sys.stderr, flush=True)
    print(told(samples, _HOUR_S, lambda s: f"{s * _TIMES / 3600:.1f} h"))
    print(f"{progress.line()}; {len(refused)} sessions not opened, of them the last: {' '.join(refused[-1:])}")


if __name__ == "__main__":
    sys.exit(main())
