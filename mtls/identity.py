"""Who a certificate is: a role and a name, said in a URI subjectAltName `urn:qkd:ROLE:NAME`.

The same identity is also a DNS name (`NAME.ROLE.qkd.internal`), so that a client checks by TLS's ordinary host name
check that it reached not only somebody of the network but the very party it meant, at whatever address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_URI = re.compile(r"urn:qkd:([a-z]+):([a-z0-9-]+)")


class Role(StrEnum):
    """What a party is; every endpoint names the roles that may call it."""

    NODE = "node"
    SAE = "sae"
    CONTROLLER = "controller"
    OPERATOR = "operator"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Identity:
    """A party of the network. `name` is a DNS label: an SAE's UUID in lower case, else the name of the topology."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name: expected a DNS label in lower case")

    @property
    def uri(self) -> str:
        """The URI in the certificate's subjectAltName."""
        return f"urn:qkd:{self.role}:{self.name}"

    @property
    def dns(self) -> str:
        """The DNS name in the certificate's subjectAltName."""
        return f"{self.name}.{self.role}.qkd.internal"


class NotIdentified(ValueError):
    """A valid certificate does not say, or says in two ways, who its owner is."""


def identity_from_uris(uris: Iterable[str]) -> Identity:
    """The identity that a certificate's URI subjectAltNames state. Exactly one must be ours, or NotIdentified."""
    ours = [uri for uri in uris if uri.startswith("urn:qkd:")]
    if len(ours) != 1:
        raise NotIdentified(f"expected exactly one urn:qkd: URI in the certificate, found {len(ours)}")
    match = _URI.fullmatch(ours[0])
    if match is None or match[1] not in list(Role):
        raise NotIdentified("expected urn:qkd:ROLE:NAME in the certificate")
    return Identity(Role(match[1]), match[2])
