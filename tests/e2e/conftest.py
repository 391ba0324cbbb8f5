"""One PoliQI for all tests that look at a healthy network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed import Testbed
from tests.support.running import Running, free_ports
from tests.support.tunnels import ROW, joined

# The seed makes the QCs' output known to the tests, which look for it where it must not be.
SEED = 7


@pytest.fixture(scope="session")
def poliqi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """PoliQI, up, with ten key sessions and QCs of ten times the usual rate, so that no test waits for material."""
    directory = tmp_path_factory.mktemp("e2e") / "poliqi"
    running = Running(directory, "--sessions", 10, "--seed", SEED, "--qc-rate", "330-470", "--no-dashboard")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """PoliQI started as docs/client.md says, but for the ports, which are other ones (`expose.json` has them)."""
    running = Running(tmp_path_factory.mktemp("e2e") / "exposed", "--expose", free_ports(16), "--no-dashboard")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Three nodes for tests of tunnels."""
    folder = tmp_path_factory.mktemp("vpn")
    (folder / "row.yaml").write_text(ROW)
    running = Running(folder / "run", "--topology", folder / "row.yaml", "--no-dashboard")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


@pytest.fixture
def net(row: Running) -> Iterator[Testbed]:
    """The row, joined; as it was afterwards."""
    with joined(row) as net:
        yield net
