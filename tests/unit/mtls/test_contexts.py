"""TLS contexts: what holds however they are used."""

from __future__ import annotations

import ssl

import pytest

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role

SERVER = Identity(Role.NODE, "a")


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """Those of a node."""
    return Authority(tmp_path_factory.mktemp("pki")).issue(SERVER)


def protocol_agreed(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """By a handshake in memory: what ALPN has both speak."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=SERVER.dns),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].selected_alpn_protocol()


def test_client_asks_for_http_1_1_whatever_a_library_sets_later(credentials):
    """urllib3 sets it with each connection, while other threads connect by the same context: memory that OpenSSL reads
    would be freed (python/cpython issue 141012), and a server be sent nonsense, or the process end."""
    client, server = credentials.client_context(), credentials.server_context()
    server.set_alpn_protocols(["h2", "http/1.1"])

    client.set_alpn_protocols(["h2"])

    assert protocol_agreed(client, server) == "http/1.1"
