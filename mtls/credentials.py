"""The three files with which a party shows who it is and knows the others, and the TLS contexts made of them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.certificate, self.key)
        return context
