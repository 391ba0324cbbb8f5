"""The configuration file (JSON) of a gateway: an SAE's, and what it needs for tunnels. Checked whole, frozen."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from documents.checks import Malformed, mapping, text
from sae import config


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway's datacenter: its name, the address of its host, and the one that tunnels carry packets for."""

    name: str
    host: str
    protected: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a gateway must know before it starts. `sae`: of its one SAE, with all gateways as its peers."""

    sae: config.Config
    places: Mapping[str, Place]  # by SAE ID, of all gateways

    @property
    def here(self) -> Place:
        """This gateway's own."""
        return self.places[self.sae.saes[0].id]


def load(path: Path) -> Config:
    """The configuration in `path`. ValueError (one line) names the member and what was expected."""
    try:
        document = mapping(json.loads(path.read_text()), "configuration")
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from None
    sae = config.parse(document.get("sae"))
    if len(sae.saes) != 1:
        raise Malformed("sae.saes", "one SAE")
    places = {
        peer: _place(mapping(given, f"places.{peer}"), f"places.{peer}")
        for peer, given in mapping(document.get("places"), "places").items()
    }
    for peer in sae.peers:
        if peer not in places:
            raise Malformed("places", "all of sae.peers")
    return Config(sae, places)


def _place(given: Mapping[str, Any], where: str) -> Place:
    found = {}
    for member in ("host", "protected"):
        try:
            found[member] = str(ipaddress.IPv4Address(text(given.get(member), f"{where}.{member}")))
        except ipaddress.AddressValueError:
            raise Malformed(f"{where}.{member}", "an IPv4 address") from None
    return Place(text(given.get("name"), f"{where}.name"), **found)
