"""What every component does first, done once before any is forked, so that all share what it leaves in memory.

The first key and the first handshake have OpenSSL look up its algorithms, which changes 5 MB of what modules loaded.
Done after the fork, each component has its own copy of them. Here bytes are sealed, two ends shake hands, and an
application refuses a request: with keys that nobody uses again, without a thread and without a port.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.serve import new_app

_TURNS = 3  # of both ends, until a handshake of TLS 1.3 is over


def rehearse() -> None:
    """Once, in the process that components are forks of. Where certificates cannot be written, without a handshake."""
    try:
        with tempfile.TemporaryDirectory() as name:
            one = Identity(Role.NODE, "rehearsal")
            _shake_hands(Authority(Path(name)).issue(one), one)
    except OSError as error:
        print(f"components will share less memory: {error}", file=sys.stderr)
    AESGCM(AESGCM.generate_key(256)).encrypt(bytes(12), b"rehearsal", None)
    new_app("rehearsal").test_client().get("/")


def _shake_hands(credentials: Credentials, one: Identity) -> None:
    """Both ends are `one`."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = credentials.client_context().wrap_bio(back, there, server_hostname=one.dns)
    server = credentials.server_context().wrap_bio(there, back, server_side=True)
    for _ in range(_TURNS):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert server.version()  # noqa: S101 - else there was no handshake
