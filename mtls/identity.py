"""Who a certificate is: a role and a name, said in a URI subjectAltName `urn:qkd:ROLE:NAME`, percent-encoded.

The same identity is also a DNS name (`NAME.ROLE.qkd.internal`), so that a client checks by TLS's ordinary host name
check that it reached not only somebody of the network but the very party it meant, at whatever address. In place of an
SAE's ID that could be no part of a DNS name stands a hash of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote

from etsi.sae_id import sae_id

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_URI = re.compile(r"urn:qkd:([a-z]+):([A-Za-z0-9._~%-]+)")
_HASH_DIGITS = 40


class Role(StrEnum):
    """What a party is; every endpoint names the roles that may call it."""

    NODE = "node"
    SAE = "sae"
    CONTROLLER = "controller"
    OPERATOR = "operator"
    DATABASE = "database"
    MACHINE = "machine"  # of several that share a network


@dataclass(frozen=True, slots=True)
class Identity:
    """A party of the network. `name` is an SAE's ID; of all others, a DNS label in lower case: that of the topology."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if self.role == Role.SAE:
            sae_id(self.name, "SAE ID")  # Malformed is a ValueError
        elif not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name: expected a DNS label in lower case")

    @property
    def uri(self) -> str:
        """The URI in the certificate's subjectAltName."""
        return f"urn:qkd:{self.role}:{quote(self.name, safe='')}"

    @property
    def dns(self) -> str:
        """The DNS name in the certificate's subjectAltName."""
        return f"{self.label}.{self.role}.qkd.internal"

    @property
    def label(self) -> str:
        """The name, or a hash of it, as a DNS label: good for names of files, too."""
        if _NAME.fullmatch(self.name):
            return self.name
        return f"x{hashlib.sha256(self.name.encode()).hexdigest()[:_HASH_DIGITS]}"


class NotIdentified(ValueError):
    """A valid certificate does not say, or says in two ways, who its owner is."""


def identity_from_uris(uris: Iterable[str]) -> Identity:
    """The identity that a certificate's URI subjectAltNames state. Exactly one must be ours, or NotIdentified."""
    ours = [uri for uri in uris if uri.startswith("urn:qkd:")]
    if len(ours) != 1:
        raise NotIdentified(f"expected exactly one urn:qkd: URI in the certificate, found {len(ours)}")
    match = _URI.fullmatch(ours[0])
    if match is not None and match[1] in list(Role):
        with contextlib.suppress(ValueError):
            found = Identity(Role(match[1]), unquote(match[2], errors="strict"))
            if found.uri == ours[0]:  # each party has one URI, so that nobody is refused in one and let in by another
                return found
    raise NotIdentified("expected urn:qkd:ROLE:NAME in the certificate")
