"""The front for TeraFlowSDN, asked as its QKD driver asks and told of links as its service handler does."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
import requests

from mtls.identity import Role
from testbed.teraflow import Front
from tests.service.gs015.conftest import Network

NODE = "/restconf/data/etsi-qkd-sdn-node:qkd_node"
TOKEN = "a-token"  # noqa: S105 - of this test


@pytest.fixture
def fronts(network: Network) -> Iterator[dict[str, str]]:
    """The URL of each node's front."""
    caller = network.caller(Role.OPERATOR, "op")
    made = {n: Front(("127.0.0.1", 0), caller, n, network.agent(n), TOKEN) for n in "abc"}
    for front in made.values():
        threading.Thread(target=front.serve_forever, daemon=True).start()
    yield {name: f"http://127.0.0.1:{front.server_port}" for name, front in made.items()}
    for front in made.values():
        front.shutdown()
        front.server_close()
    caller.close()


def get(url: str, path: str = "", token: str = TOKEN) -> requests.Response:
    """As the driver asks."""
    return requests.get(url + NODE + path, headers={"Authorization": f"Bearer {token}"}, timeout=10)


def test_driver_finds_what_it_reads_under_the_names_that_it_knows(fronts):
    """Interfaces with attachment points, links, applications, capabilities, the node."""
    url = fronts["b"]

    points = [i["qkdi_att_point"] for i in get(url, "/qkd_interfaces/").json()["qkd_interfaces"]["qkd_interface"]]
    assert [f"{p['device']}:{p['port']}" for p in points] == ["a-b/1:2", "b-c/1:1"]
    assert len(get(url, "/qkd_links/").json()["qkd_links"]["qkd_link"]) == 2
    assert "qkd_app" in get(url, "/qkd_applications/").json()["qkd_applications"]
    assert get(url, "/qkdn_capabilities/").json()["qkdn_capabilities"]["key_relay_mode_enable"] is True
    assert get(url).json()["qkd_node"]["qkdn_location_id"] == "b"


def test_virtual_link_is_configured_as_its_handler_tells_the_nodes_of_it(fronts, network):
    """The first node and those between, with all hops that are left, no previous one at the first, no bandwidth."""
    ids = [get(fronts[n], "/qkdn_id").json()["qkdn_id"] for n in "abc"]
    key = str(uuid.uuid4())
    for at, name in enumerate("ab"):
        link = {
            "qkdl_id": key, "qkdl_type": "etsi-qkd-node-types:VIRT",
            "qkdl_local": {"qkdn_id": ids[0], "qkdi_id": 1}, "qkdl_remote": {"qkdn_id": ids[2], "qkdi_id": 1},
            "virt_prev_hop": ids[at - 1] if at else None, "virt_next_hop": ids[at + 1 :], "virt_bandwidth": 0,
        }  # fmt: skip
        answer = requests.post(
            f"{fronts[name]}{NODE}/qkd_links/", json={"qkd_links": {"qkd_link": [link]}}, timeout=10,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text

    assert [network.foreign[n].link(key)["virt_next_hop"] for n in "ab"] == [[ids[1]], [ids[2]]]
    for name in "ab":
        way = f"{fronts[name]}{NODE}/qkd_links/qkd_link={key}"
        assert requests.delete(way, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10).status_code == 204


@pytest.mark.parametrize("token", ["", "another", "ä"])
def test_who_does_not_know_the_token_is_refused(fronts, token):
    """401, and the agent hears nothing of it."""
    assert get(fronts["a"], token=token.encode().decode("latin-1")).status_code == 401


def test_errors_come_through_and_nonsense_is_refused(fronts):
    """The agent's errors with their status; bodies that are no JSON or have no length by the front itself."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    way = f"{fronts['a']}{NODE}/qkd_links/"

    assert get(fronts["a"], "/colour").json()["errors"]["error"][0]["error-tag"] == "invalid-value"
    assert requests.post(way, data=b"{", headers=headers, timeout=10).status_code == 400
    assert requests.post(way, data=iter([b"{}"]), headers=headers, timeout=10).status_code == 413
    assert requests.post(way, json=[1], headers=headers, timeout=10).status_code == 400
