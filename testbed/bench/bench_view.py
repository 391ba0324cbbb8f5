"""`python -m testbed.bench.bench_view`: what the live view costs: delivery times without it, with it, and looked at.

The same keys over one, two and four hops, in mode `basic`, over links without delay: first without the view, then
with its page served, then with the page open in a Chromium on this machine too, and without the view once more,
because a machine is not the same all the time. Below that the CPU time of all processes of the run while nobody asks
for keys, a browser's left out.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from testbed.bench.bench_client import PARTNERS, Client, row_of_five
from testbed.bench.bench_run import bench, with_network
from testbed.dashboard.server import Dashboard
from testbed.errors import UserError
from testbed.machine import output
from testbed.machine.namespaces import call_in_network
from testbed.network.emulation import Emulation
from testbed.operation.tables import table
from testbed.planning.plan import SaePlan

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


def main() -> int:
    """Print the table; the exit status."""
    print("delivery time of 128-bit keys with and without the live view, medians", flush=True)
    return bench("bench-view", lambda: with_network(row_of_five(0.0), _measure))


def _measure(emulation: Emulation) -> None:
    client = Client(emulation)
    try:
        client.set_mode("basic")
        sessions = [client.open(partner)[0] for partner in PARTNERS]
        columns = [_column(client, sessions)]
        page = Dashboard(emulation)
        page.start()
        try:
            columns.append(_column(client, sessions))
            with _browser(emulation, page.url):
                columns.append(_column(client, sessions))
        finally:
            page.stop()
        columns.append(_column(client, sessions))
    finally:
        client.close()
    names = ("over 1 hop, ms", "over 2 hops, ms", "over 4 hops, ms", "CPU, ms a second")
    rows = [(name, *(column[i] for column in columns)) for i, name in enumerate(names)]
    print("\n" + table(("", "without", "page served", "page open", "without again"), rows), end="", flush=True)


def _column(client: Client, sessions: list[SaePlan]) -> list[float]:
    """Medians of delivery times by hops, and what the run's processes take while no key is asked for."""
    time.sleep(_SETTLE_S)
    before = _cpu_ms()
    time.sleep(_IDLE_S)
    busy = (_cpu_ms() - before) / _IDLE_S
    return [*(statistics.median(ms for found in client.exchange(s).values() for ms in found) for s in sessions), busy]


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
