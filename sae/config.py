"""The configuration file (JSON) of a datacenter's applications: read once, checked whole, frozen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decisions.rekey import END, PACES, POLICIES, SESSION
from documents.checks import Malformed, integer, mapping, number, sequence, text
from documents.secret import Secret
from etsi.sae_id import sae_id
from mtls.credentials import Credentials
from mtls.identity import Identity, Role

_MAX_SAES = 4096
_AUDIT_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class SaeConfig:
    """One application: its ID (as in its certificate), its name for people, its port."""

    id: str
    name: str
    port: int
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Peer:
    """Where another application is reached."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the applications of one datacenter must know before they start."""

    name: str  # of the datacenter
    host: str  # address to listen on
    directory: Path  # the journal; nobody else's
    audit_secret: Secret  # 32 bytes under which keys are fingerprinted, the same in the whole network
    kme_url: str
    kme_name: str  # as in its certificate
    saes: tuple[SaeConfig, ...]
    peers: Mapping[str, Peer]  # by SAE ID, all applications of the network: only they may be masters here
    on_key_failure: str = END  # or "go_on": what a session does when a key does not come
    pace: str = SESSION  # or "application": what keeps the interval between two requests for keys
    round_trip_s: float = 0.0  # the longest one between two parties of the network, as far as is known beforehand


_REQUIRED = ("name", "host", "directory", "audit_secret", "kme_url", "kme_name", "saes", "peers")


def load(path: Path) -> Config:
    """The configuration in `path`. ValueError (one line) names the member and what was expected."""
    try:
        return parse(json.loads(path.read_text()))
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from None


def parse(document: Any) -> Config:
    """The configuration in `document`. ValueError (one line) names the member and what was expected."""
    given = _members(document, "", _REQUIRED, ("on_key_failure", "pace", "round_trip_s"))
    policy, pace = given.get("on_key_failure", END), given.get("pace", SESSION)
    for member, value, allowed in (("on_key_failure", policy, POLICIES), ("pace", pace, PACES)):
        if value not in allowed:
            raise Malformed(member, f"one of {', '.join(allowed)}")
    peers = dict(_peer(k, v) for k, v in mapping(given["peers"], "peers").items())
    return Config(
        name=text(given["name"], "name"),
        host=text(given["host"], "host"),
        directory=Path(text(given["directory"], "directory", longest=4096)),
        audit_secret=_secret(given["audit_secret"]),
        kme_url=_url(given["kme_url"], "kme_url"),
        kme_name=_kme_name(given["kme_name"]),
        saes=_saes(given["saes"], peers),
        peers=peers,
        on_key_failure=policy,
        pace=pace,
        round_trip_s=number(given.get("round_trip_s", 0), "round_trip_s", low=0, high=3600),
    )


def _saes(value: Any, peers: Mapping[str, Peer]) -> tuple[SaeConfig, ...]:
    saes = tuple(_sae(entry, f"saes[{i}]") for i, entry in enumerate(sequence(value, "saes", longest=_MAX_SAES)))
    for member, values in (("id", [s.id for s in saes]), ("port", [s.port for s in saes])):
        if len(set(values)) != len(values):
            raise Malformed("saes", f"each {member} once")
    for i, sae in enumerate(saes):
        if sae.id not in peers:
            raise Malformed(f"saes[{i}].id", "one of peers, which lists all SAEs of the network")
    return saes


def _sae(value: Any, where: str) -> SaeConfig:
    given = _members(value, where, ("id", "name", "port", "credentials"))
    return SaeConfig(
        sae_id(given["id"], f"{where}.id"),
        text(given["name"], f"{where}.name"),
        integer(given["port"], f"{where}.port", low=1, high=65535),  # 0 would be one that no peer knows
        Credentials.from_config(given["credentials"], f"{where}.credentials"),
    )


def _peer(given_id: Any, value: Any) -> tuple[str, Peer]:
    where = f"peers.{sae_id(given_id, 'peers')}"
    given = _members(value, where, ("name", "url"))
    return given_id, Peer(text(given["name"], f"{where}.name"), _url(given["url"], f"{where}.url"))


def _members(value: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> Mapping[str, Any]:
    """`value`, found at `where` ("" for the whole file), as an object of all `required` and some `optional` members."""
    given = mapping(value, where or "configuration")
    prefix = f"{where}." if where else ""
    for member in required:
        if member not in given:
            raise Malformed(prefix + member, "to be given")
    known = (*required, *optional)
    for member in given:
        if member not in known:
            shown = member if member.isprintable() else repr(member)  # the message is one line
            raise Malformed(prefix + shown, f"one of {', '.join(known)}")
    return given


def _url(value: Any, field: str) -> str:
    """A base URL: what is asked for is appended to it."""
    url = text(value, field)
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and parts.hostname and parts.port and url.endswith(f":{parts.port}")
    except ValueError:  # a port that is no number
        good = False
    if not good:
        raise Malformed(field, "https://HOST:PORT")
    return url


def _kme_name(value: Any) -> str:
    name = text(value, "kme_name")
    try:
        return Identity(Role.NODE, name).name
    except ValueError:
        raise Malformed("kme_name", "a DNS label in lower case, as in the KME's certificate") from None


def _secret(value: Any) -> Secret:
    try:
        secret = Secret(bytes.fromhex(value if isinstance(value, str) else ""))
    except ValueError:
        secret = Secret(b"")
    if len(secret) != _AUDIT_SECRET_BYTES:
        raise Malformed("audit_secret", f"{2 * _AUDIT_SECRET_BYTES} hexadecimal digits")
    return secret
