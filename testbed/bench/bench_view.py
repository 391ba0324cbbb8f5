"""`python -m testbed.bench.bench_view`: what the live view costs: delivery times without it, with it, and looked at.

The same keys over one, two and four hops, in mode `basic`, over links without delay: first without the view, then
with its page served, then with the page open in a Chromium on this machine too, and without the view once more,
because a machine is not the same all the time. Below that the CPU time of all processes of the run while nobody asks
for keys, a browser's left out; the share of a core that the view takes, beside the share that it may take; and the same
of a network of 40 nodes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scenario.shape import Shape
from scenario.topology_description import Link, Node, Qc, Sae, Topology
from testbed.bench.bench_client import PARTNERS, Client, row_of_five
from testbed.bench.bench_run import bench, options, with_network
from testbed.dashboard.server import Dashboard
from testbed.errors import UserError
from testbed.machine import output
from testbed.machine.namespaces import call_in_network
from testbed.network.emulation import Emulation
from testbed.operation.tables import table
from testbed.planning.make import make_plan

PROGRAM = "/usr/bin/chromium"
# Without these it calls home: for updates, for what its vendor thinks of a page, to see whether there is a network.
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider,Translate", "--metrics-recording-only",
    "--no-default-browser-check", "--disable-dev-shm-usage",
)  # fmt: skip


# What it takes to load page and browser is not what they cost.
_SETTLE_S = 8.0
_IDLE_S = 8.0


# Of a core, in percent: what an open page may take on PoliQI's size, and on a network of 40 nodes.
_MOST_PERCENT, _MOST_PERCENT_OF_LARGE = 5.0, 15.0
_COLUMNS, _ROWS = 8, 5


def main() -> int:
    """Print the tables; the exit status."""
    options("some five minutes").parse_args()
    return bench(
        "bench-view",
        lambda: with_network(row_of_five(0.0), _measure) or with_network(make_plan(_grid()), _measure_large),
    )


def _grid() -> Topology:
    """40 nodes and 67 fibres, with an application at each node."""
    places = list(itertools.product(range(_COLUMNS), range(_ROWS)))
    nodes = tuple(Node(f"n{x}-{y}", f"Node {x}.{y}", (x / (_COLUMNS - 1), y / (_ROWS - 1))) for x, y in places)
    pairs = [
        (f"n{x}-{y}", f"n{x + dx}-{y + dy}")
        for x, y in places
        for dx, dy in ((1, 0), (0, 1))
        if (x + dx, y + dy) in places
    ]
    links = tuple(Link(f"{a}-{b}", a, b, None, Shape(0.0), Shape(0.0), (Qc(f"{a}-{b}/1", 33, 47),)) for a, b in pairs)
    saes = tuple(Sae(f"at-{node.name}", node.name) for node in nodes)
    return Topology("grid", "", nodes, links, saes, "n0-0", "n0-0")


def _measure(emulation: Emulation) -> None:
    client = Client(emulation)
    try:
        client.set_mode("basic")
        sessions = [client.open(partner)[0] for partner in PARTNERS]

        def look() -> list[float]:
            busy = _busy_ms()
            return [
                *(statistics.median(ms for found in client.exchange(s).values() for ms in found) for s in sessions),
                busy,
            ]

        print("delivery time of 128-bit keys with and without the live view, medians", flush=True)
        names = ("over 1 hop, ms", "over 2 hops, ms", "over 4 hops, ms", "CPU, ms a second")
        _print(names, emulation, look, most_percent=_MOST_PERCENT)
    finally:
        client.close()


def _measure_large(emulation: Emulation) -> None:
    names = (f"{len(emulation.plan.nodes)} nodes: CPU, ms a second",)
    _print(names, emulation, lambda: [_busy_ms()], most_percent=_MOST_PERCENT_OF_LARGE)


def _print(
    names: Sequence[str], emulation: Emulation, look: Callable[[], list[float]], *, most_percent: float
) -> None:
    """What `look` finds without the page, with it served, with it open, and without it again. CPU time is the last."""
    columns = [look()]
    page = Dashboard(emulation)
    page.start()
    try:
        columns.append(look())
        with _browser(emulation, page.url):
            columns.append(look())
    finally:
        page.stop()
    columns.append(look())
    rows = [(name, *(column[i] for column in columns)) for i, name in enumerate(names)]
    print("\n" + table(("", "without", "page served", "page open", "without again"), rows), end="")
    print(shares([column[-1] for column in columns], most_percent), flush=True)


def shares(busy_ms: Sequence[float], most_percent: float) -> str:
    """Of a core, what the view takes: CPU ms a second without it, with the page served, open, and without it again.

    PURE.
    """
    before, served, opened, after = busy_ms
    alone = (before + after) / 2
    takes = [(percent, f"{percent:.1f} %") for percent in ((served - alone) / 10, (opened - alone) / 10)]
    verdict = "" if takes[1][0] <= most_percent else ", WHICH IS TOO MUCH"
    return (
        f"the view takes {takes[0][1]} of a core while its page is served, {takes[1][1]} while it is open"
        f" (at most {most_percent:g} %{verdict})"
    )


def _busy_ms() -> float:
    """What the run's processes take a second while no key is asked for."""
    time.sleep(_SETTLE_S)
    before = _cpu_ms()
    time.sleep(_IDLE_S)
    return (_cpu_ms() - before) / _IDLE_S


def _cpu_ms() -> float:
    """CPU time of all processes of the run so far, without a browser's."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"chromium" not in (path / "cmdline").read_bytes():
                # proc(5): after the name in brackets, which may hold anything, utime and stime are the 12th and 13th.
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
    return 1000 * total / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _browser(emulation: Emulation, url: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as profile:
        command = [PROGRAM, *QUIET, f"--user-data-dir={profile}/chromium", "--remote-debugging-port=0", url]
        try:
            browser = call_in_network(
                emulation.outside,
                lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
            )
        except OSError as error:
            raise UserError(f"cannot start {PROGRAM}: {error.strerror}") from None
        try:
            yield
        finally:
            browser.terminate()
            browser.wait()


if __name__ == "__main__":
    sys.exit(output.run(main))
