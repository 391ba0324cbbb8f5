"""What an agent shows: everything valid by ETSI's modules, and true."""

from __future__ import annotations

import json
import uuid

import pytest

from mtls.identity import Role
from tests.service.gs015.client import YANG_JSON, N
from tests.service.gs015.conftest import BYTES_PER_SLOT, SLOT_S, wait_until
from tests.validation import resources, url, validate, validate_part


def test_node_is_valid_and_has_its_identity(agent):
    """With all that GETs of it select."""
    for query in ("", "?content=config", "?content=all", "?depth=unbounded", "?depth=4", "?depth=6&content=all"):
        document = agent.get(N + query)
        validate(document)

    node = document["etsi-qkd-sdn-node:qkd_node"]
    assert node["qkdn_location_id"] == "b"
    assert node["qkdn_status"] == "etsi-qkd-node-types:OPERATING"
    assert node["qkdn_capabilities"] == {
        "link_stats_support": True, "application_stats_support": True, "key_relay_mode_enable": True,
    }  # fmt: skip


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    "name", ["qkdn_id", "qkdn_status", "qkdn_version", "qkdn_location_id", "qkdn_capabilities", "qkd_interfaces",
             "qkd_links", "qkd_applications"],
)  # fmt: skip
def test_resource_below_the_node_is_valid(agent, name, slash):
    """With a slash at its end, too, as a widely used controller asks."""
    document = agent.get(f"{N}/{name}{slash}")

    assert list(document) == [f"etsi-qkd-sdn-node:{name}"]
    validate_part(document, [])


def test_everything_in_the_node_is_a_valid_resource_of_its_own(agent):
    """Containers, entries and leaves down to the last figure; with a virtual link and an application, too."""
    link = {"qkdl_id": str(uuid.uuid4()), "qkdl_type": "etsi-qkd-node-types:VIRT", "virt_bandwidth": 7,
            "virt_prev_hop": agent.get(f"{N}/qkdn_id")["etsi-qkd-sdn-node:qkdn_id"]}  # fmt: skip
    assert agent.call("POST", f"{N}/qkd_links", {"etsi-qkd-sdn-node:qkd_link": [link]}).status == 201
    try:
        found = list(resources(agent.get()["etsi-qkd-sdn-node:qkd_node"]))
        assert {segments[-1].partition("=")[0] for segments in found} >= {
            "skr", "value", "virt_prev_hop", "phys_qkd_role", "max_bandwidth", "qkdi_status", "creation_time",
        }  # fmt: skip
        for segments in found:
            validate_part(agent.get(f"{N}/{url(segments)}"), segments[:-1])
    finally:
        agent.call("DELETE", f"{N}/qkd_links/qkd_link={link['qkdl_id']}")


def test_configuration_and_state_together_are_the_node(agent):
    """What content=config leaves out content=nonconfig has, and nothing else but keys and the mandatory ID."""
    def paths(query: str) -> set[str]:
        document = agent.get(f"{N}?content={query}")["etsi-qkd-sdn-node:qkd_node"]
        return {url(segments) for segments in resources(document)}

    config, state = paths("config"), paths("nonconfig")
    leaves = {path for path in config & state if path.rpartition("/")[2] in ("app_id", "qkdl_id", "qkdi_id")}
    above = {path for path in config & state if any(other.startswith(f"{path}/") for other in state)}
    lists = {path for path in config & state if any(other.startswith(f"{path}=") for other in state)}

    assert config | state == paths("all")
    assert config & state == leaves | above | lists


def test_each_qc_is_a_physical_link_that_both_ends_show(network):
    """The same qkdl_id, local and remote swapped, one transmits and one receives."""
    here, there = network.physical("a", "b"), network.physical("b", "a")

    assert here["qkdl_id"] == there["qkdl_id"]
    assert (here["qkdl_local"], here["qkdl_remote"]) == (there["qkdl_remote"], there["qkdl_local"])
    roles = {here["phys_qkd_role"], there["phys_qkd_role"]}
    assert roles == {"etsi-qkd-node-types:TRANSMITTER", "etsi-qkd-node-types:RECEIVER"}


def test_performance_is_what_the_qc_does(network):
    """skr in bit/s within a tenth, QBER near the emulator's 2 %."""
    rate = pytest.approx(8 * BYTES_PER_SLOT / SLOT_S, rel=0.1)
    wait_until(lambda: network.physical("a", "b")["qkdl_performance"]["skr"] == rate)

    performance = network.physical("a", "b")["qkdl_performance"]
    assert performance["eskr"] <= performance["skr"]
    (qber,) = performance["phys_perf"]
    assert qber["perf_type"] == "etsi-qkd-node-types:QBER"
    assert 1.8 <= float(qber["value"]) <= 2.2


def test_interface_names_technology_vendor_and_model(agent):
    """A duty of the node (5.1)."""
    first = agent.get(f"{N}/qkd_interfaces/qkd_interface=1")["etsi-qkd-sdn-node:qkd_interface"][0]

    assert first["qkdi_type"] == "etsi-qkd-node-types:DV-QKD"
    assert "/" in first["qkdi_model"]
    assert first["qkdi_status"] == "etsi-qkd-node-types:ENABLED"
    assert first["qkdi_att_point"]["device"] == "a-b/1"


def test_our_own_data_is_valid_by_our_own_module(agent):
    """It stands beside the standard's node, not in it."""
    document = agent.get("/restconf/data/qkd-testbed:node")
    both = agent.get("/restconf/data")["ietf-restconf:data"]

    validate(document | agent.get(N), extended=True)
    assert set(both) == {"etsi-qkd-sdn-node:qkd_node", "qkd-testbed:node"}
    assert [qc["name"] for qc in document["qkd-testbed:node"]["qcs"]["qc"]] == ["a-b/1", "b-c/1"]


def test_entry_points_of_rfc_8040(agent):
    """host-meta, the API resource, the YANG library with all modules, streams."""
    assert '<Link rel="restconf" href="/restconf"' in agent.call("GET", "/.well-known/host-meta").text
    assert agent.get("/restconf")["ietf-restconf:restconf"]["yang-library-version"] == "2016-06-21"
    assert agent.get("/restconf/yang-library-version") == {"ietf-restconf:yang-library-version": "2016-06-21"}
    assert "qkd-testbed:application_answer" in agent.get("/restconf/operations")["ietf-restconf:operations"]
    modules = agent.get("/restconf/data/ietf-yang-library:modules-state")["ietf-yang-library:modules-state"]["module"]
    assert {(m["name"], m["revision"]) for m in modules} >= {
        ("etsi-qkd-sdn-node", "2022-01-30"), ("etsi-qkd-node-types", "2022-01-30"),
    }  # fmt: skip
    state = agent.get("/restconf/data/ietf-restconf-monitoring:restconf-state")
    state = state["ietf-restconf-monitoring:restconf-state"]
    assert {s["name"] for s in state["streams"]["stream"]} == {"NETCONF", "qkd-testbed"}
    assert any("depth" in c for c in state["capabilities"]["capability"])


def test_media_types(agent):
    """application/yang-data+json; plain JSON for those who accept nothing else; 406 for XML."""
    assert agent.call("GET", N).headers["Content-Type"] == YANG_JSON
    assert agent.call("GET", N, Accept="application/json").headers["Content-Type"] == "application/json"
    assert agent.call("GET", N, Accept="application/yang-data+xml, */*;q=0.1").headers["Content-Type"] == YANG_JSON
    refused = agent.call("GET", N, Accept="application/yang-data+xml")
    assert (refused.status, refused.tag) == (406, "invalid-value")
    assert agent.call("GET", "/restconf/streams/NETCONF/json", Accept="application/json").status == 406


def test_head_and_options(agent):
    """HEAD is GET without a body; OPTIONS says what can be done (4.1, 4.2)."""
    head = agent.call("HEAD", N)
    assert (head.status, head.text, head.headers["ETag"]) == (200, "", agent.call("GET", N).headers["ETag"])
    assert agent.call("OPTIONS", f"{N}/qkdn_status").headers["Allow"] == "GET, HEAD, OPTIONS"
    writable = agent.call("OPTIONS", f"{N}/qkd_links").headers
    assert "DELETE" in writable["Allow"]
    assert writable["Accept-Patch"] == YANG_JSON


@pytest.mark.parametrize(
    ("path", "status"),
    [("/restconf/data/x:y", 404), (f"{N}/colour", 404), ("/restconf/nothing", 404), (f"{N}?depth=0", 400),
     (f"{N}?colour=1", 400), ("/restconf/streams/other/json", 404), ("/restconf/streams/NETCONF/json?filter=x", 400),
     (f"{N}/qkd_links/qkd_link=1", 400)],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error_of_rfc_8040(agent, path, status):
    """Status and body."""
    answer = agent.call("GET", path)

    assert (answer.status, answer.tag) == (status, "invalid-value")


@pytest.mark.parametrize("role", [Role.SAE, Role.NODE])
def test_other_roles_are_refused(network, role):
    """401 with the error body, for reading, writing and listening."""
    stranger = network.restconf("b", role, "a")
    try:
        stream = "/restconf/streams/NETCONF/json"
        for method, path in (("GET", N), ("DELETE", f"{N}/qkd_links"), ("GET", stream), ("GET", "/restconf/x")):
            answer = stranger.call(method, path)
            assert (answer.status, answer.tag) == (401, "access-denied")
    finally:
        stranger.close()
    assert json.dumps(network.links("b"))


def test_operator_reads_and_writes_as_a_controller_does(network):
    """It is the operator's network."""
    operator = network.restconf("b", Role.OPERATOR, "op")
    try:
        place = f"{N}/qkdn_location_id"
        assert operator.call("PUT", place, {"etsi-qkd-sdn-node:qkdn_location_id": "b"}).status == 204
    finally:
        operator.close()
