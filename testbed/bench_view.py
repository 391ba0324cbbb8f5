"""`python -m testbed.bench_view`: what the live view costs: delivery times without it, with it, and looked at.

The same keys over one, two and four hops, in mode `basic`, over links without delay: first without the view, then
with its page served, then with the page open in a Chromium on this machine too, and without the view once more,
because a machine is not the same all the time.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from testbed.bench_client import PARTNERS, Client, row_of_five
from testbed.bench_run import bench, with_network
from testbed.chromium import PROGRAM, QUIET
from testbed.dashboard.server import Dashboard
from testbed.emulation import Emulation
from testbed.errors import UserError
from testbed.namespaces import call_in_network
from testbed.plan import SaePlan
from testbed.tables import table

# What it takes to load page and browser is not what they cost.
_SETTLE_S = 10.0


def main() -> int:
    """Print the table; the exit status."""
    print("delivery time of 128-bit keys with and without the live view, medians in ms", flush=True)
    return bench("bench-view", lambda: with_network(row_of_five(0.0), _measure))


def _measure(emulation: Emulation) -> None:
    client = Client(emulation)
    try:
        client.set_mode("basic")
        sessions = [client.open(partner)[0] for partner in PARTNERS]
        columns = [_medians(client, sessions)]
        page = Dashboard(emulation)
        page.start()
        try:
            time.sleep(_SETTLE_S)
            columns.append(_medians(client, sessions))
            with _browser(emulation, page.url):
                time.sleep(_SETTLE_S)
                columns.append(_medians(client, sessions))
        finally:
            page.stop()
        columns.append(_medians(client, sessions))
    finally:
        client.close()
    rows = [(hops, *(column[i] for column in columns)) for i, hops in enumerate((1, 2, 4))]
    print("\n" + table(("hops", "without", "page served", "page open", "without again"), rows), end="", flush=True)


def _medians(client: Client, sessions: list[SaePlan]) -> list[float]:
    return [statistics.median(ms for found in client.exchange(slave).values() for ms in found) for slave in sessions]


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
    sys.exit(main())
