"""`python -m tests.benchmarks.database`: how long no keys come when the shared database fails over. As root.

PoliQI with `--database ha`. Five times the host that takes writes is killed, and five times it is cut off, while key
sessions run; each time it is healed, and may take over again, before the next time. What counts is from the fault to
the first key that a master gets from a node once another host takes writes, and to the first one of a client that asks
for one key after the other, and waits for each answer, be it that there is none.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from telemetry import journal
from testbed.bench import bench_run
from tests.e2e.test_database_fails_over import NODES, has_spare
from tests.e2e.test_fault_commands import exchanged
from tests.e2e.test_poliqi import open_session
from tests.support.running import Running
from tests.support.waiting import until

UNTIL = "another host takes writes", "a key", "the waiting client's key"


def main() -> int:
    """Measure, and print a table; 1 if a median of a fault is above ten seconds."""
    parser = bench_run.options("some five minutes")
    parser.add_argument("times", nargs="?", type=int, default=5, help="how often each fault happens (default: 5)")
    times = parser.parse_args().times
    medians = []
    with tempfile.TemporaryDirectory() as folder:
        options = ("--sessions", 6, "--seed", 11, "--qc-rate", "900-1000", "--no-dashboard", "--database", "ha")
        run = Running(Path(folder) / "run", *options)
        try:
            run.wait_up()
            pair = open_session(run, *NODES)[:2]
            until(lambda: exchanged(run, NODES, pair))
            print("fault      seconds to                         each time                        median", flush=True)
            for kind in ("database", "partition"):
                found = zip(*(measured(run, kind, pair) for _ in range(times)), strict=True)
                for what, each_s in zip(UNTIL, found, strict=True):
                    row = " ".join(f"{s:5.1f}" for s in each_s)
                    medians.append(statistics.median(each_s))
                    print(f"{kind:<10} {what:<26} {row:<36} {medians[-1]:6.1f}", flush=True)
            run.exit()
        finally:
            run.stop()
    return int(max(medians) > 10.0)


def measured(run: Running, kind: str, pair: tuple[str, str]) -> tuple[float, float, float]:
    """Seconds from the fault until another host takes writes, to the first key, and to that of the client who waits."""
    until(lambda: has_spare(run))
    path = run.directory / "faults" / "journal.jsonl"
    switches = list(journal.events(path, "database_switch"))
    where = f"{kind} {switches[-1]['host'] if switches else 'db'}"
    run.say(f"qkd fault {where}", f"broken: {where}\n")
    until(lambda: exchanged(run, NODES, pair) and len(list(journal.events(path, "database_switch"))) > len(switches))
    began = list(journal.events(path, "fault"))[-1]["time"]
    switched = list(journal.events(path, "database_switch"))[len(switches)]["time"]
    delivered = [
        (event["time"], (event["master_sae"], event["slave_sae"]))
        for node in (run.directory / "nodes").iterdir()
        for event in journal.events(node / "journal.jsonl", "key_delivered")
        if event["method"] == "enc_keys" and event["time"] > switched
    ]
    first, waited = min(delivered)[0], min(time for time, between in delivered if between == pair)
    run.say("qkd fault heal", f"healed: {where}\n")
    return switched - began, first - began, waited - began


if __name__ == "__main__":
    sys.exit(main())
