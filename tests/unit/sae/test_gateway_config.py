"""The configuration of a gateway: what it says, and how a wrong one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtls.authority import Authority
from mtls.identity import Identity, Role
from sae.vpn import config
from scenario.topology import load
from testbed.planning.make import make_plan

PLAN = make_plan(load("pair", Path("topologies")))


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """As a run writes it for alice."""
    issued = Authority(tmp_path / "pki").issue(Identity(Role.SAE, PLAN.gateways["alice"].id))
    return PLAN.gateway_config("alice", tmp_path / "alice", issued, audit_secret="00" * 32)


def loaded(folder: Path, document: object) -> config.Config:
    path = folder / "config.json"
    path.write_text(json.dumps(document))
    return config.load(path)


def test_gateway_knows_all_others_and_the_addresses_that_tunnels_are_for(tmp_path, document):
    """Itself among them."""
    found = loaded(tmp_path, document)

    assert (found.here.name, found.here.host, found.here.protected) == ("alice", "10.0.0.1", "172.30.0.1")
    assert {place.protected for place in found.places.values()} == {"172.30.0.1", "172.30.0.2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("sae"), "configuration"),
        (lambda d: d["sae"].update(saes=[]), "sae.saes: expected one SAE"),
        (lambda d: d.pop("places"), "places: expected an object"),
        (lambda d: d["places"].clear(), "places: expected all of sae.peers"),
        (lambda d: next(iter(d["places"].values())).update(host="alice"), "host: expected an IPv4 address"),
        (lambda d: next(iter(d["places"].values())).update(protected=7), "protected: expected a printable string"),
    ],
)
def test_wrong_configuration_is_refused_by_the_name_of_the_member(tmp_path, document, change, said):
    """In one line."""
    change(document)

    with pytest.raises(ValueError, match=said):
        loaded(tmp_path, document)
