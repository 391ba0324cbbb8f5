"""The controller's configuration file (JSON): read once, checked whole, frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.network.nodes import SwitchedQc
from controller.network.settings import Parameters, changed
from controller.openflow.forwarding import Fabric, parse_fabric
from decisions import user_policies
from decisions.choice import OnDemand
from decisions.parameters import MOST_RATE
from documents.checks import Malformed, integer, mapping, number, sequence, text, uuid_text
from etsi.sae_id import sae_id
from mtls.credentials import Credentials


@dataclass(frozen=True, slots=True)
class OpenFlowConfig:
    """Where to await switches, and what the fabric of switches looks like."""

    host: str
    port: int
    fabric: Fabric


@dataclass(frozen=True, slots=True)
class SharedStoreConfig:
    """The store that the controllers of a network share in a PostgreSQL, and who they are.

    `url`: libpq's words or URL. `controllers`: URLs for operators by name; the first one leads at the beginning.
    """

    url: str
    schema: str
    controllers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """Everything the controller must know before it starts."""

    name: str  # of this controller, as in its certificate
    host: str  # address to listen on
    port: int  # for operators
    directory: Path  # its journal; nobody else's
    credentials: Credentials
    openflow: OpenFlowConfig | None  # None: somebody else forwards the classical traffic
    parameters: Parameters = field(default_factory=Parameters)  # at the start
    agents: Mapping[str, str] = field(default_factory=dict)  # node -> URL; others can be added while it runs
    node_ids: Mapping[str, str] = field(default_factory=dict)  # node -> qkdn_id, as far as known: no other shows it
    saes: Mapping[str, str] = field(default_factory=dict)  # SAE ID -> node, as far as known: no other registers it
    half_open_timeout_s: float = 30.0  # a session that only one side has registered is dropped after this
    grace_s: float = 2.0  # a node or QC that has been down for so long is down for the sessions over it: they move
    steady_s: float = 5.0  # and they come back to a shorter path when it has been up for so long
    round_trip_s: float = 0.0  # the longest one between two parties of the network, as far as is known beforehand
    switched: Sequence[SwitchedQc] = ()  # the QCs that can be lit on demand
    spare: Mapping[str, int] = field(default_factory=dict)  # how many there are of what they take, by name
    shared_store: SharedStoreConfig | None = None  # None: there is no other controller


_REQUIRED = ("name", "host", "port", "directory", "credentials", "openflow")
_OPTIONAL = ("parameters", "agents", "node_ids", "saes", "half_open_timeout_s", "grace_s", "steady_s", "round_trip_s",
             "policies", "switched", "spare", "shared_store")  # fmt: skip


_MOST_SWITCHED = 10_000


def load(path: Path) -> ControllerConfig:
    """The configuration in `path`. ValueError (one line) names the member and what was expected."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(str(error)) from None
    return parse(document)


def parse(document: Any) -> ControllerConfig:
    """The configuration in `document`. ValueError (one line) names the member and what was expected."""
    given = mapping(document, "configuration")
    for member in _REQUIRED:
        if member not in given:
            raise Malformed(member, "to be given")
    for member in given:
        if member not in _REQUIRED + _OPTIONAL:
            raise Malformed(member, f"one of {', '.join(_REQUIRED + _OPTIONAL)}")
    # Policies of the user's, FILE.py:NAME by parameter; a parameter may then have the name of one.
    policies = mapping(given.get("policies", {}), "policies")
    user_policies.use({name: text(own, f"policies.{name}", longest=4096) for name, own in policies.items()})
    return ControllerConfig(
        name=text(given["name"], "name"),
        host=text(given["host"], "host"),
        port=integer(given["port"], "port", low=0, high=65535),
        directory=Path(text(given["directory"], "directory", longest=4096)),
        credentials=Credentials.from_config(given["credentials"], "credentials"),
        openflow=_openflow(given["openflow"]),
        parameters=changed(Parameters(), mapping(given.get("parameters", {}), "parameters")),
        agents={
            text(k, "agents"): text(v, f"agents.{k}", longest=2048)
            for k, v in mapping(given.get("agents", {}), "agents").items()
        },
        node_ids={
            text(k, "node_ids"): uuid_text(v, f"node_ids.{k}")
            for k, v in mapping(given.get("node_ids", {}), "node_ids").items()
        },
        saes={sae_id(k, "saes"): text(v, f"saes.{k}") for k, v in mapping(given.get("saes", {}), "saes").items()},
        half_open_timeout_s=number(given.get("half_open_timeout_s", 30.0), "half_open_timeout_s", low=0.1, high=3600),
        grace_s=number(given.get("grace_s", 2.0), "grace_s", low=0.0, high=3600),
        steady_s=number(given.get("steady_s", 5.0), "steady_s", low=0.1, high=3600),
        round_trip_s=number(given.get("round_trip_s", 0), "round_trip_s", low=0, high=3600),
        switched=[
            _switched(mapping(entry, f"switched[{i}]"), f"switched[{i}]")
            for i, entry in enumerate(sequence(given.get("switched", []), "switched", longest=_MOST_SWITCHED))
        ],
        spare={
            text(k, "spare"): integer(v, f"spare.{k}", low=0, high=1 << 16)
            for k, v in mapping(given.get("spare", {}), "spare").items()
        },
        shared_store=_shared_store(given.get("shared_store"), given["name"]),
    )


def _shared_store(value: Any, name: str) -> SharedStoreConfig | None:
    if value is None:
        return None
    given = mapping(value, "shared_store")
    controllers = {
        text(k, "shared_store.controllers"): text(v, f"shared_store.controllers.{k}", longest=2048).rstrip("/")
        for k, v in mapping(given.get("controllers"), "shared_store.controllers").items()
    }
    if name not in controllers:
        raise Malformed("shared_store.controllers", f"{name} among them")
    return SharedStoreConfig(
        text(given.get("url"), "shared_store.url", longest=4096), text(given.get("schema"), "shared_store.schema"),
        controllers,
    )  # fmt: skip


def _switched(given: Mapping[str, Any], field: str) -> SwitchedQc:
    names = {member: text(given.get(member), f"{field}.{member}") for member in ("qc", "a", "b")}
    ends = sequence(given.get("interfaces"), f"{field}.interfaces", longest=2)
    takes = sequence(given.get("takes"), f"{field}.takes", longest=1000)
    past = sequence(given.get("past"), f"{field}.past", longest=1000)
    if len(ends) != 2:
        raise Malformed(field, "interfaces of both ends")
    return SwitchedQc(
        OnDemand(
            **names, past=tuple(text(node, f"{field}.past") for node in past),
            takes=tuple(text(what, f"{field}.takes") for what in takes),
        ),
        link_id=uuid_text(given.get("link_id"), f"{field}.link_id"),
        interfaces=(
            integer(ends[0], f"{field}.interfaces", low=1, high=1 << 16),
            integer(ends[1], f"{field}.interfaces", low=1, high=1 << 16),
        ),
        bytes_per_slot=number(given.get("bytes_per_slot"), f"{field}.bytes_per_slot", low=0, high=MOST_RATE),
        ready_s=number(given.get("ready_s"), f"{field}.ready_s", low=0, high=3600),
    )


def _openflow(value: Any) -> OpenFlowConfig | None:
    if value is None:
        return None
    given = mapping(value, "openflow")
    return OpenFlowConfig(
        text(given.get("host"), "openflow.host"),
        integer(given.get("port"), "openflow.port", low=1, high=65535),
        parse_fabric(given.get("fabric"), "openflow.fabric"),
    )
