"""A node's configuration file (JSON): read once, checked whole, frozen. Its parameters change while the node runs."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decisions import user_policies
from decisions.modes import MODES, Mode
from decisions.parameters import FOR_NODES, IMPLICIT_IDLE, KEYS_AHEAD, MODE, TTL
from documents.checks import Malformed, integer, mapping, number, sequence, text
from documents.secret import Secret
from etsi.gs014 import MOST_ANSWER_BITS, MOST_KEYS, Limits
from etsi.gs014 import limits as parse_limits
from etsi.sae_id import sae_id
from mtls.credentials import Credentials
from node.material.blocks import AUTHENTICATION_KEY_BYTES


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each is stands in `decisions.parameters`."""

    mode: str = MODE.default
    ttl_slots: int = TTL.default
    keys_ahead: int = KEYS_AHEAD.default
    implicit_idle_s: int = IMPLICIT_IDLE.default

    @property
    def strategy(self) -> Mode:
        """The mode itself."""
        return MODES[self.mode]

    def to_json(self) -> dict[str, Any]:
        """The document that `parse` reads."""
        return asdict(self)


class Current:
    """The parameters in force. Read without a lock: they are replaced whole."""

    def __init__(self, value: Parameters) -> None:
        self.value = value

    def __call__(self) -> Parameters:
        """The parameters now."""
        return self.value


def parse_parameters(document: Mapping[str, Any], default: Parameters) -> Parameters:
    """The parameters in `document`; members left out are as in `default`. Malformed names the wrong member."""
    checked: dict[str, Any] = {p.name: p.check(document[p.name]) for p in FOR_NODES if p.name in document}
    return replace(default, **checked)


@dataclass(frozen=True, slots=True)
class DeviceKme:
    """The KME of a QKD device (GS QKD 014) that a QC has its key material from, as this end calls it.

    `url` is https://HOST:PORT; the KME's certificate must be HOST's. `via`: address and port to connect to instead.
    `credentials`: with which this node shows itself as an SAE of the device; `peer_sae` is the other end's there.
    `number` keys of `size_bits` are asked for every `every_s` seconds.
    """

    url: str
    credentials: Credentials
    peer_sae: str
    number: int
    size_bits: int
    every_s: float
    via: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A QC of this node, the node at its other end, and the number of the interface there.

    A `dark` one is used by no link until a controller configures one on its interface.

    `authentication_key` is what the two ends of the QC share, to compare what they hold. `device`: which the node asks
    for key material itself; without one, blocks of the QC come to its socket.
    """

    qc: str
    peer: str
    remote_interface: int
    authentication_key: Secret
    dark: bool = False
    device: DeviceKme | None = None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything a node must know before it starts."""

    name: str  # of this node, as in its certificate
    host: str  # address to listen on
    kme_port: int  # GS QKD 014 and sessions, for SAEs
    agent_port: int  # for the controller and other nodes
    directory: Path  # local database, key, socket, journal; nobody else's
    credentials: Credentials
    shared_db_url: str  # may hold a password: the file is private
    shared_db_schema: str
    nodes: Mapping[str, str]  # name -> agent URL of every node of the network
    saes: Mapping[str, str]  # SAE ID -> node, of the whole network
    qcs: tuple[Neighbour, ...]
    parameters: Parameters = field(default_factory=Parameters)  # until the controller says otherwise
    limits: Limits = field(default_factory=Limits)
    stream_port: int | None = None  # GS QKD 004, for SAEs; None: it is not served
    slot_s: float = 1.0  # in which the TTL counts, by the node's own clock
    round_trip_s: float = 0.0  # the longest one between two parties of the network, as far as is known beforehand


_REQUIRED = (
    "name", "host", "kme_port", "agent_port", "directory", "credentials",
    "shared_db_url", "shared_db_schema", "nodes", "saes", "qcs",
)  # fmt: skip
_PARAMETERS = tuple(parameter.name for parameter in FOR_NODES)
_OPTIONAL = (*_PARAMETERS, "stream_port", "limits", "slot_s", "round_trip_s", "policies")


def _authentication_key(path: Any, field: str) -> Secret:
    """The key in the file that the configuration names."""
    try:
        key = Secret(Path(text(path, field, longest=4096)).read_bytes())
    except OSError as error:
        raise Malformed(field, f"a file that can be read ({error.strerror}: {error.filename})") from None
    if len(key) != AUTHENTICATION_KEY_BYTES:
        raise Malformed(field, f"a file of {AUTHENTICATION_KEY_BYTES} bytes")
    return key


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(field, "true or false")
    return value


_DEVICE = ("url", "credentials", "peer_sae", "number", "size_bits", "every_s")


def _device(value: Any, field: str) -> DeviceKme:
    given = mapping(value, field)
    for member in (*_DEVICE, *given):
        if member not in given or member not in (*_DEVICE, "via"):
            raise Malformed(f"{field}.{member}", f"exactly the members {', '.join(_DEVICE)}, and via if it is needed")
    number_of_keys = integer(given["number"], f"{field}.number", low=1, high=MOST_KEYS)
    size = integer(given["size_bits"], f"{field}.size_bits", low=8, high=MOST_ANSWER_BITS // number_of_keys)
    if size % 8:
        raise Malformed(f"{field}.size_bits", "a multiple of 8")
    via = None
    if "via" in given:
        address, port = (*sequence(given["via"], f"{field}.via", longest=2), None, None)[:2]
        via = text(address, f"{field}.via[0]"), integer(port, f"{field}.via[1]", low=1, high=65535)
    url = text(given["url"], f"{field}.url", longest=4096)
    if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        raise Malformed(f"{field}.url", "https://HOST:PORT")
    return DeviceKme(
        url, _private(Credentials.from_config(given["credentials"], f"{field}.credentials"), f"{field}.credentials"),
        sae_id(given["peer_sae"], f"{field}.peer_sae"), number_of_keys, size,
        number(given["every_s"], f"{field}.every_s", low=0.1, high=86_400), via,
    )  # fmt: skip


def _private(credentials: Credentials, field: str) -> Credentials:
    """The same, if they are of use and nobody but the key's owner can read it."""
    if credentials.key.stat().st_mode & 0o077:
        raise Malformed(f"{field}.key", "a file that only its owner can read (chmod 600)")
    try:
        credentials.client_context()
    except (ssl.SSLError, OSError):  # whose text says no more, and may quote the file
        raise Malformed(field, "PEM files of a certificate, of its private key and of a CA") from None
    return credentials


def _port_or_none(value: Any, field: str) -> int | None:
    return None if value is None else integer(value, field, low=0, high=65535)


def load(path: Path) -> NodeConfig:
    """The configuration in `path`. ValueError (one line) names the member and what was expected."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return parse(document)


def parse(document: Any) -> NodeConfig:
    """The configuration in `document`. ValueError (one line) names the member and what was expected."""
    given = mapping(document, "configuration")
    for member in _REQUIRED:
        if member not in given:
            raise Malformed(member, "to be given")
    for member in given:
        if member not in _REQUIRED + _OPTIONAL:
            raise Malformed(member, f"one of {', '.join(_REQUIRED + _OPTIONAL)}")
    qcs = [mapping(entry, f"qcs[{i}]") for i, entry in enumerate(sequence(given["qcs"], "qcs", longest=256))]
    # Modes of the user's, FILE.py:NAME by parameter; a parameter may then have the name of one.
    policies = mapping(given.get("policies", {}), "policies")
    user_policies.use({name: text(own, f"policies.{name}", longest=4096) for name, own in policies.items()})
    parameters = parse_parameters({m: given[m] for m in _PARAMETERS if m in given}, Parameters())
    return NodeConfig(
        name=text(given["name"], "name"),
        host=text(given["host"], "host"),
        kme_port=integer(given["kme_port"], "kme_port", low=0, high=65535),
        agent_port=integer(given["agent_port"], "agent_port", low=0, high=65535),
        stream_port=_port_or_none(given.get("stream_port"), "stream_port"),
        directory=Path(text(given["directory"], "directory", longest=4096)),
        credentials=Credentials.from_config(given["credentials"], "credentials"),
        shared_db_url=text(given["shared_db_url"], "shared_db_url", longest=4096),
        shared_db_schema=text(given["shared_db_schema"], "shared_db_schema"),
        nodes={text(k, "nodes"): text(v, f"nodes.{k}") for k, v in mapping(given["nodes"], "nodes").items()},
        saes={sae_id(k, "saes"): text(v, f"saes.{k}") for k, v in mapping(given["saes"], "saes").items()},
        qcs=tuple(
            Neighbour(
                text(q.get("qc"), f"qcs[{i}].qc"),
                text(q.get("peer"), f"qcs[{i}].peer"),
                integer(q.get("remote_interface", 1), f"qcs[{i}].remote_interface", low=1, high=1 << 16),
                _authentication_key(q.get("authentication_key"), f"qcs[{i}].authentication_key"),
                _flag(q.get("dark", False), f"qcs[{i}].dark"),
                None if q.get("device") is None else _device(q["device"], f"qcs[{i}].device"),
            )
            for i, q in enumerate(qcs)
        ),
        parameters=parameters,
        limits=parse_limits(mapping(given.get("limits", {}), "limits")),
        slot_s=number(given.get("slot_s", 1.0), "slot_s", low=0.001, high=3600),
        round_trip_s=number(given.get("round_trip_s", 0), "round_trip_s", low=0, high=3600),
    )
