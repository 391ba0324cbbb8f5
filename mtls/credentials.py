"""The three files with which a party shows who it is and knows the others, and the TLS contexts made of them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _ClientContext(ssl.SSLContext):
    """One by which threads connect at the same time: what it asks servers for is set once.

    urllib3 sets it with each connection. OpenSSL frees what was set before, while another thread may be reading it
    (https://github.com/python/cpython/issues/141012): its server is sent nonsense, or the process ends.
    """

    def __init__(self, _protocol: ssl._SSLMethod) -> None:  # which `__new__` has taken
        super().set_alpn_protocols(["http/1.1"])

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Nothing: HTTP/1.1 it is."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths of a PEM certificate, its PEM private key (mode 0600), and the CA's PEM certificate."""

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def from_config(cls, value: object, where: str) -> Credentials:
        """From a JSON object with exactly these three members. ValueError names the member and what was expected."""
        if not isinstance(value, Mapping) or set(value) != {"certificate", "key", "ca"}:
            raise ValueError(f"{where}: expected an object with certificate, key and ca (paths)")
        paths = {}
        for member, path in value.items():
            if not isinstance(path, str) or not Path(path).is_file():
                raise ValueError(f"{where}.{member}: expected the path of an existing file")
            paths[member] = Path(path)
        return cls(**paths)

    def to_config(self) -> dict[str, Any]:
        """The JSON object that `from_config` reads."""
        return {"certificate": str(self.certificate), "key": str(self.key), "ca": str(self.ca)}

    def server_context(self) -> ssl.SSLContext:
        """For a server: TLS 1.2 and 1.3, a client certificate of our CA required."""
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def client_context(self) -> ssl.SSLContext:
        """For a client: TLS 1.2 and 1.3, the server's certificate of our CA and for the wanted host name."""
        return self._load(_ClientContext(ssl.PROTOCOL_TLS_CLIENT))

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.certificate, self.key)
        return context
