"""Fixtures for real processes and real TLS on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.server import Server
from testbed.network.loopback import LOOPBACK, Stack


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of this test's network."""
    return Authority(tmp_path / "pki")


@pytest.fixture
def issue(authority: Authority) -> Callable[[str, str], Credentials]:
    """`issue("node", "alice")` gives that party's credentials, valid on loopback."""

    def _issue(role: str, name: str) -> Credentials:
        return authority.issue(Identity(Role(role), name), addresses=["127.0.0.1"])

    return _issue


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """`serve(app, credentials)` gives the base URL of a started server; all are stopped at the end."""
    servers: list[Server] = []

    def _serve(app, credentials: Credentials, **options) -> str:
        server = Server(app, "127.0.0.1", 0, credentials, **options)
        server.start()
        servers.append(server)
        return f"https://127.0.0.1:{server.port}"

    yield _serve
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A network of which only the shared database is made, and not started."""
    made = Stack(tmp_path_factory.mktemp("network"))
    made.cluster.initialise(listen=LOOPBACK, port=made.database_port)
    yield made
    made.processes.stop()
