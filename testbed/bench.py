"""`python -m testbed.bench`: how long a key takes, beside what the network alone costs, in the same run.

For each link delay PoliQI comes up afresh with QCs that are never the bottleneck. An application at `government` asks
its KME for keys shared with its neighbour `military` and, two hops away, with `telecom`. A delivery time is the
paper's: from the arrival of the request at the node until its answer, as the node's journal has it. The floor is the
sum of the round trips (by ping, medians) that the protocol cannot avoid:

    one hop    node to shared database: allocation
    two hops   the same, and first node to relay, relay to last node (the shared key), first to last node (the new key)
"""

from __future__ import annotations

import functools
import itertools
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtls.call import Caller
from mtls.identity import Identity, Role
from telemetry import journal
from testbed.cli import table
from testbed.emulation import Emulation
from testbed.errors import UserError
from testbed.isolation import run_isolated, undisturbed
from testbed.namespaces import network_of, threads_in_network
from testbed.plan import KME_PORT, Plan, SaePlan, make_plan
from testbed.run_directory import RunDirectory, open_run_directory
from testbed.tools import check_tools, complete_path
from testbed.topology import load

_ROOT = Path(__file__).resolve().parent.parent
_DELAYS_MS = (0.0, 5.0, 20.0)
_KEYS = 60
_WARM_UP = 10
_PINGS = 21
_QC_RATE = (4000, 4000)
_FIRST, _NEIGHBOUR, _FAR = "government", "military", "telecom"


@dataclass(frozen=True, slots=True)
class Result:
    """Delivery times of keys over `hops` links of `delay_ms`, and the floor under them, all in ms."""

    delay_ms: float
    hops: int
    times_ms: Sequence[float]
    floor_ms: float

    def row(self) -> tuple[object, ...]:
        """Delay, hops, number of keys, median, floor, their ratio, and what the median exceeds the floor by."""
        median = statistics.median(self.times_ms)
        return (
            f"{self.delay_ms:g}", str(self.hops), str(len(self.times_ms)), median, self.floor_ms,
            f"{median / self.floor_ms:.2f}", median - self.floor_ms,
        )  # fmt: skip


def main() -> int:
    """All delays; prints a table a delay. The exit status."""
    complete_path()
    print("delivery time of 128-bit keys in BASIC mode, medians in ms", flush=True)
    try:
        check_tools()
        for delay_ms in _DELAYS_MS:
            topology = load("poliqi", _ROOT / "topologies").with_overrides(delay_ms=delay_ms, qc_rate=_QC_RATE)
            plan = make_plan(topology)
            directory = open_run_directory(None, _ROOT / "runs")
            try:
                status = run_isolated(
                    functools.partial(_measure, plan, directory),
                    pid_file=directory.path / "init.pid",
                    crash_log=directory.path / "crash.log",
                )
            finally:
                directory.erase_secrets()
            if status != 0:
                return status
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(plan: Plan, directory: RunDirectory, outside: int) -> int:
    delay_ms = plan.topology.links[0].delay_ms
    emulation = Emulation(
        plan, directory, outside=outside, parameters={"mode": "basic"}, seed=None, user_database=None,
        say=lambda _: None,
    )  # fmt: skip
    try:
        emulation.start()
        results = []
        for far in (_NEIGHBOUR, _FAR):
            master, slave = (next(s for s in plan.saes if s.node == n) for n in (_FIRST, far))
            times_ms, path = _exchange(emulation, master, slave)
            results.append(Result(delay_ms, len(path) - 1, times_ms, _floor_ms(emulation, path)))
    finally:
        with undisturbed():
            emulation.stop()
    header = ("delay", "hops", "keys", "median", "floor", "ratio", "above floor")
    print(f"\nlinks of {delay_ms:g} ms ({emulation.shaper}, datapath {emulation.datapath})")
    print(table(header, [r.row() for r in results]), end="", flush=True)
    return 0


def _exchange(emulation: Emulation, master: SaePlan, slave: SaePlan) -> tuple[list[float], list[str]]:
    """Delivery times of keys at the master's node, and the session's path."""
    reply = emulation.open_session(master, slave).result()
    if not reply.ok:
        raise UserError(f"no key session of {master.name} with {slave.name}: {reply.message}")
    plan = emulation.plan
    network = network_of(emulation.network.pid(master.node))
    url = f"{plan.url(master.node, KME_PORT)}/api/v1/keys/{slave.id}/enc_keys"
    caller = Caller(emulation.credentials(Identity(Role.SAE, master.id)))
    asked = set()
    with threads_in_network(network, 1, "bench") as pool:
        for i in range(_WARM_UP + _KEYS):
            future = pool.submit(caller.request, "POST", url, to=Identity(Role.NODE, master.node), body={"size": 128})
            answer = future.result()
            if not answer.ok:
                raise UserError(f"no key for {master.name}: {answer.message}")
            if i >= _WARM_UP:
                asked.add(answer.body["keys"][0]["key_ID"])
            time.sleep(0.02)
    caller.close()
    events = journal.read(emulation.run.path / "nodes" / master.node / "journal.jsonl")
    times_ms = [
        float(e["duration_ms"]) for e in events
        if e["event"] == "key_delivered" and e["request"] == "enc_keys" and e["key_ids"][0] in asked
    ]  # fmt: skip
    return times_ms, list(reply.body["path"])


def _floor_ms(emulation: Emulation, path: list[str]) -> float:
    """The sum of the round trips that a key over `path` cannot do without, in ms."""
    trips = [(path[0], "db")]
    if len(path) > 2:
        trips += [*itertools.pairwise(path), (path[0], path[-1])]
    return sum(_rtt_ms(emulation, a, b) for a, b in trips)


def _rtt_ms(emulation: Emulation, source: str, target: str) -> float:
    address = emulation.plan.hosts[target].ip
    command = [*emulation.network.enter(source), "ping", "-n", "-c", str(_PINGS), "-i", "0.02", address]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    times = [float(t) for t in re.findall(r"time=([\d.]+) ms", shown)]
    if not times:
        raise UserError(f"no ping from {source} to {target} came back")
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
