"""`python -m testbed.bench.bench`: how long a key takes, beside what the network alone costs, in the same run.

For each link delay PoliQI comes up afresh, cut open to a row of five nodes, with QCs that are never the bottleneck. An
application at `government` asks its KME for keys shared over one, two and four hops, in every mode. A delivery time is
the paper's: from the arrival of the request at the node until its answer, as the node's journal has it. The floor is
the sum of the round trips (by the fastest ping) that the protocol cannot avoid:

    every key that is made   node to shared database: allocation
    several hops             each node to the next one: what is relayed
    basic, qkp               first to last node: the new keys under the shared one
    qkp, from the pool       nothing
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from decisions.modes import MODES
from scenario.scenario import carried_modes
from testbed.bench.bench_client import PARTNERS, Client, ring_of_five, row_of_five
from testbed.bench.bench_run import bench, options, with_network
from testbed.bench.round_trip_floor import RoundTrips, delivery_ms
from testbed.machine import output
from testbed.network.emulation import Emulation
from testbed.operation.tables import table

_DELAYS_MS = (0.0, 5.0, 20.0)


@dataclass(frozen=True, slots=True)
class Result:
    """Delivery times of keys in a mode, from a source, over a number of hops, and the floor under them, all in ms."""

    mode: str
    source: str
    hops: int
    times_ms: Sequence[float]
    floor_ms: float

    def row(self) -> tuple[object, ...]:
        """Mode, source, hops, number of keys, median, floor, their ratio, and what the median exceeds the floor by."""
        median = statistics.median(self.times_ms)
        ratio = f"{median / self.floor_ms:.2f}" if self.floor_ms else "-"
        source = "" if self.source == "direct" else self.source
        return self.mode, source, self.hops, len(self.times_ms), median, self.floor_ms, ratio, median - self.floor_ms


def main() -> int:
    """All delays; prints a table a delay. The exit status."""
    options("five to ten minutes").parse_args()
    print("delivery time of 128-bit keys, medians in ms", flush=True)
    return bench("bench", _all)


def _all() -> int:
    for delay_ms in _DELAYS_MS:
        for plan in (row_of_five(delay_ms), ring_of_five(delay_ms)):
            status = with_network(plan, _measure)
            if status != 0:
                return status
    return 0


def _measure(emulation: Emulation) -> None:
    delay_ms = emulation.plan.topology.links[0].a_to_b.delay_ms
    client, trips = Client(emulation), RoundTrips(emulation)
    try:
        carried = carried_modes(emulation.plan.topology)
        # On the row all modes that go over one path, on the ring those that go over several.
        most = max(MODES[mode].paths for mode in carried)
        modes, results = [mode for mode in carried if MODES[mode].paths == most], []
        client.set_mode(modes[0])
        sessions = [client.open(partner) for partner in PARTNERS]
        for mode in modes:
            client.set_mode(mode)
            for slave, paths in sessions:
                for source, times_ms in client.exchange(slave).items():
                    floor_ms = delivery_ms(trips.ms, mode, source, *paths)
                    results.append(Result(mode, source, max(map(len, paths)) - 1, times_ms, floor_ms))
        bare = client.bare() if delay_ms == 0 and most == 1 else None
    finally:
        client.close()
    header = ("mode", "from", "hops", "keys", "median", "floor", "ratio", "above floor")
    print(f"\nlinks of {delay_ms:g} ms ({emulation.shaper}, datapath {emulation.datapath})")
    print(table(header, [r.row() for r in results]), end="", flush=True)
    if bare is not None:
        key, request, insert = bare
        print(f"\none hop, seen by the application: {key:.2f} ms a key. A bare request takes {request:.2f} ms, a bare")
        print(f"durable insert {insert:.2f} ms: ratio to their sum {key / (request + insert):.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(output.run(main))
