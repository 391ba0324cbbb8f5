"""`python -m tests.benchmarks.start`: how soon a network gives its first key, and its memory.

Each network is started by run.py as a user starts it, some times; the time is from that command to the first key that a
node hands to a master, the median. Memory is read while the network is up: what a datacenter's node and SAEs have for
themselves alone, and the proportional share (PSS) of all processes of the run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from telemetry import journal
from testbed.bench.bench_run import options
from testbed.operation.tables import table
from tests.support.memory import memory
from tests.support.running import Running
from tests.support.waiting import until

_REPEATS = 3
_PATIENCE_S = 1800.0
_NETWORKS = ("poliqi:1",)
_MB = 1 << 10  # in kB


@dataclass(frozen=True, slots=True)
class _Started:
    """One start of a network: seconds to its first key, and to its end; memory of its nodes and SAEs, and of all."""

    first_key_s: float
    end_s: float
    datacenters: int
    own: int
    pss: int


def main() -> int:
    """All networks, as one table; the exit status."""
    parser = options("half a minute for three starts of five datacenters, minutes for those of large networks,")
    parser.add_argument(
        "networks", nargs="*", default=_NETWORKS, metavar="NETWORK[:SESSIONS]",
        help="a name in topologies/ or a file, and how many key sessions it opens; default poliqi:1",
    )  # fmt: skip
    rows = []
    for what in parser.parse_args().networks:
        network, _, sessions = what.rpartition(":") if what.rpartition(":")[2].isdecimal() else (what, "", "1")
        found = [_start(network, int(sessions)) for _ in range(_REPEATS)]
        own, pss = (statistics.median(getattr(f, member) / _MB for f in found) for member in ("own", "pss"))
        datacenters = found[0].datacenters
        rows.append(
            (Path(network).stem, datacenters, sessions, statistics.median(f.first_key_s for f in found),
             statistics.median(f.end_s for f in found), own / datacenters, pss)
        )  # fmt: skip
        print(f"{what}: {', '.join(f'{f.first_key_s:.2f}' for f in found)} s", file=sys.stderr, flush=True)
    columns = ("network", "datacenters", "sessions", "first key, s", "to end, s", "own MB each", "PSS of all, MB")
    print(table(columns, rows))
    return 0


def _start(network: str, sessions: int) -> _Started:
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        options = ("--topology", network, "--sessions", sessions, "--no-cli", "--duration", 86400)
        run = Running(Path(folder) / "run", *options)
        try:
            first = until(lambda: _first_key(run), _PATIENCE_S, else_tell=lambda: run.text)
            run.wait_for("the network is up", _PATIENCE_S)
            found = list(memory(run.process.pid))
        finally:
            ending = time.monotonic()
            run.stop()
        return _Started(
            first - began, time.monotonic() - ending, len([m for m in found if m.name.startswith("node-")]),
            sum(m.own for m in found if m.name.startswith(("node-", "sae-"))), sum(m.pss for m in found),
        )  # fmt: skip


def _first_key(run: Running) -> float | None:
    """When a master got the first one, by the wall clock."""
    assert run.process.poll() is None, run.text
    times = [
        event["time"]
        for path in run.directory.glob("nodes/*/journal.jsonl")
        for event in journal.read(path, "key_delivered")
        if event["method"] == "enc_keys"
    ]
    return min(times, default=None)


if __name__ == "__main__":
    sys.exit(main())
