"""What a controller may configure, and how it is told what it may not."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.service.gs015.conftest import Network
from tests.support.gs015_client import N, Restconf
from tests.support.validation import validate
from tests.support.waiting import until

LINK, APP = "etsi-qkd-sdn-node:qkd_link", "etsi-qkd-sdn-node:qkd_app"
VIRT, PHYS = "etsi-qkd-node-types:VIRT", "etsi-qkd-node-types:PHYS"


def virtual(**members: Any) -> dict[str, Any]:
    """A virtual link through nobody knows where."""
    return {"qkdl_id": str(uuid.uuid4()), "qkdl_type": VIRT, "virt_bandwidth": 7, **members}


def made(agent: Restconf, link: dict[str, Any]) -> str:
    """Its path, once it is configured."""
    answer = agent.call("POST", f"{N}/qkd_links", {LINK: [link]})
    assert answer.status == 201, answer.text
    return f"{N}/qkd_links/qkd_link={link['qkdl_id']}"


def test_link_is_made_where_location_says_and_deleted(agent):
    """201, then there, then 204, then not there; the whole node is valid all the while."""
    link = virtual(qkdl_enable=False)

    answer = agent.call("POST", f"{N}/qkd_links", {LINK: [link]})

    place = answer.headers["Location"]
    assert answer.status == 201
    assert place == f"{agent.url}{N}/qkd_links/qkd_link={link['qkdl_id']}"
    shown = agent.link(link["qkdl_id"])
    assert shown.items() >= link.items()
    assert shown["qkdl_status"] == "etsi-qkd-node-types:OFF"
    validate(agent.get())
    path = place.removeprefix(agent.url)
    assert agent.call("DELETE", path).status == 204
    assert agent.call("GET", path).status == 404
    assert agent.call("DELETE", path).status == 404


def test_virtual_link_is_an_internal_application_as_long_as_it_is_there(agent):
    """Of the physical links to its hops, with its bandwidth; a controller need not make it, nor take it away."""
    a, c = (link["qkdl_remote"]["qkdn_id"] for link in agent.get(f"{N}/qkd_links")[
        "etsi-qkd-sdn-node:qkd_links"]["qkd_link"][:2])  # fmt: skip
    link = virtual(virt_prev_hop=a, virt_next_hop=[c])
    path = made(agent, link)
    place = f"{N}/qkd_applications/qkd_app={link['qkdl_id']}"

    app = agent.get(place)[APP][0]

    assert app["app_type"] == "etsi-qkd-node-types:INTERNAL"
    assert app["app_qos"] == {"max_bandwidth": 7}
    assert len(app["backing_qkdl_id"]) == 2
    for backing in app["backing_qkdl_id"]:
        below = agent.link(backing)
        assert app["app_id"] in below["qkdl_applications"]
        performance = below["qkdl_performance"]
        assert performance["expected_consumption"] >= 7
        assert performance["eskr"] <= performance["skr"] - 7
    assert agent.call("DELETE", path).status == 204
    assert agent.call("GET", place).status == 404


def test_put_patch_and_leaves(agent):
    """PUT makes (201) or replaces (204), PATCH merges (204), a leaf is a resource of its own."""
    link = virtual()
    path = f"{N}/qkd_links/qkd_link={link['qkdl_id']}"
    assert agent.call("PATCH", path, {LINK: [link]}).status == 404
    assert agent.call("PUT", path, {LINK: [link]}).status == 201
    assert agent.call("PUT", path, {LINK: [link | {"virt_bandwidth": 8}]}).status == 204
    assert agent.call("PATCH", path, {LINK: [{"qkdl_id": link["qkdl_id"], "qkdl_enable": False}]}).status == 204
    assert agent.call("PUT", f"{path}/virt_bandwidth", {"etsi-qkd-sdn-node:virt_bandwidth": 9}).status == 204

    shown = agent.link(link["qkdl_id"])

    assert (shown["virt_bandwidth"], shown["qkdl_enable"]) == (9, False)
    assert agent.call("DELETE", f"{path}/virt_bandwidth").status == 204
    assert "virt_bandwidth" not in agent.link(link["qkdl_id"])
    agent.call("DELETE", path)


def test_body_that_repeats_its_container_and_plain_json_are_understood(agent):
    """As a widely used controller sends them."""
    link = virtual()
    body = {"qkd_links": {"qkd_link": [link]}}

    answer = agent.call("POST", f"{N}/qkd_links/", body, Content_Type="application/json")

    assert answer.status == 201
    assert agent.call("DELETE", f"{N}/qkd_links/qkd_link={link['qkdl_id']}/").status == 204


def test_virtual_link_as_teraflowsdn_writes_it_at_a_node_between(network, agent):
    """It tells every node of the two ends of the link, not of its own place; who is an end must be the one named."""
    a, b, c = (network.foreign[n].get(f"{N}/qkdn_id")["etsi-qkd-sdn-node:qkdn_id"] for n in "abc")
    ends = {"qkdl_local": {"qkdn_id": a, "qkdi_id": 1}, "qkdl_remote": {"qkdn_id": c, "qkdi_id": 1}}
    link = virtual(virt_bandwidth=0, virt_prev_hop=a, virt_next_hop=[c], **ends)
    first = virtual(virt_bandwidth=0, virt_prev_hop=None, virt_next_hop=[b], **ends)

    path = made(agent, link)

    assert agent.link(link["qkdl_id"])["qkdl_local"] == ends["qkdl_local"]
    assert agent.call("DELETE", path).status == 204
    assert agent.call("POST", f"{N}/qkd_links", {LINK: [first]}).status == 400  # b is not the end that it names
    place = made(network.foreign["a"], first)
    assert network.foreign["a"].call("DELETE", place).status == 204


def test_status_that_a_controller_writes_back_is_ignored(agent):
    """It is configuration in the published module, but who knows it is the node."""
    path = made(agent, virtual(qkdl_status="etsi-qkd-node-types:ACTIVE", qkdl_enable=False))

    assert agent.get(path)[LINK][0]["qkdl_status"] == "etsi-qkd-node-types:OFF"
    agent.call("DELETE", path)


@pytest.mark.parametrize(
    ("method", "path", "why"),
    [("PUT", f"{N}/qkdn_status", "this resource is read-only"),
     ("DELETE", N, "a node's model as a whole is not deleted"),
     ("PATCH", f"{N}/qkd_links/qkd_link", "expected one entry of the list"),
     ("DELETE", f"{N}/qkd_interfaces", "these are what is installed here: they are not made or removed from afar")],
)  # fmt: skip
def test_what_can_never_be_done_says_why(agent, method, path, why):
    """With the path of the resource."""
    (error,) = agent.call(method, path, {}).body["ietf-restconf:errors"]["error"]

    assert (error["error-message"], error["error-path"]) == (why, path.removeprefix("/restconf/data"))


K = str(uuid.UUID(int=7))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "tag"),
    [
        ("PUT", f"{N}/qkdn_status", {"etsi-qkd-sdn-node:qkdn_status": "etsi-qkd-node-types:DOWN"}, 405,
         "operation-not-supported"),
        ("DELETE", f"{N}/qkd_interfaces/qkd_interface=1/qkdi_status", None, 405, "operation-not-supported"),
        ("PUT", f"{N}/qkdn_id", {"etsi-qkd-sdn-node:qkdn_id": K}, 400, "invalid-value"),
        ("PATCH", N, {"etsi-qkd-sdn-node:qkd_node": {"colour": 1}}, 400, "unknown-element"),
        ("PATCH", N, {"qkd_node": {}}, 400, "unknown-element"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K, "qkdl_type": "PHYS"}]}, 400, "invalid-value"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K, "qkdl_type": "etsi-qkd-node-types:ON"}]}, 400,
         "invalid-value"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K}]}, 400, "missing-element"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K, "qkdl_type": PHYS, "virt_bandwidth": 1}]}, 400,
         "unknown-element"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K, "qkdl_type": VIRT, "virt_next_hop": [K, K[::-1]]}]}, 400,
         "invalid-value"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K, "qkdl_type": VIRT, "qkdl_local": {"qkdn_id": K}}]}, 400,
         "invalid-value"),
        ("POST", f"{N}/qkd_links", {LINK: [{"qkdl_id": K, "qkdl_type": VIRT, "qkdl_performance": {"skr": 1}}]}, 400,
         "invalid-value"),
        ("POST", f"{N}/qkd_interfaces", {"etsi-qkd-sdn-node:qkd_interface": [{"qkdi_id": 9}]}, 405,
         "operation-not-supported"),
        ("DELETE", f"{N}/qkd_interfaces/qkd_interface=1", None, 405, "operation-not-supported"),
        ("POST", f"{N}/qkd_applications",
         {APP: [{"app_id": K, "app_type": "etsi-qkd-node-types:CLIENT", "server_app_id": "x"}]}, 400,
         "invalid-value"),
        ("DELETE", N, None, 405, "operation-not-supported"),
        ("PATCH", "/restconf/data/qkd-testbed:node", {"qkd-testbed:node": {"parameters": {"mode": "x"}}}, 400,
         "invalid-value"),
        ("PATCH", "/restconf/data/qkd-testbed:node", {"qkd-testbed:node": {"qcs": {"qc": [{"name": "x"}]}}}, 400,
         "invalid-value"),
        ("PATCH", "/restconf/data/qkd-testbed:node",
         {"qkd-testbed:node": {"qcs": {"qc": [{"name": "a-b/1", "rate": {"low": 2, "high": 1}}]}}}, 400,
         "invalid-value"),
        ("POST", "/restconf/operations/qkd-testbed:application_answer", {"qkd-testbed:input": {}}, 400,
         "missing-element"),
        ("POST", "/restconf/operations/qkd-testbed:application_answer", {"qkd-testbed:input": {"state": "x"}}, 400,
         "invalid-value"),
        ("PUT", f"{N}/qkd_links?depth=1", {}, 400, "invalid-value"),
    ],
)  # fmt: skip
def test_edit_that_cannot_be_changes_nothing_and_says_why(  # noqa: PLR0917 - a table's columns
    agent, method, path, body, status, tag
):
    """Status and tag, and the configuration is what it was."""
    before = agent.call("GET", f"{N}?content=config")

    answer = agent.call(method, path, body)

    assert (answer.status, answer.tag) == (status, tag)
    assert agent.call("GET", f"{N}?content=config").headers["ETag"] == before.headers["ETag"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "tag"),
    [("{", "application/yang-data+json", 400, "malformed-message"),
     ("[1]", "application/yang-data+json", 400, "malformed-message"),
     ("\xff", "application/yang-data+json", 400, "malformed-message"),
     ("<qkd_links/>", "application/yang-data+xml", 415, "invalid-value"),
     ("{}", "text/plain", 415, "invalid-value")],
)  # fmt: skip
def test_body_that_is_no_yang_data_in_json_is_refused(agent, body, kind, status, tag):
    """400 for what does not parse, 415 for other media types."""
    answer = agent.call("POST", f"{N}/qkd_links", body, Content_Type=kind)

    assert (answer.status, answer.tag) == (status, tag)


@pytest.mark.parametrize("path", ["/restconf/data", f"{N}/qkd_links", "/restconf"])
def test_body_that_is_too_long_is_an_error_of_rfc_8040_too(agent, path):
    """The server refuses it before anybody asks what it was for."""
    answer = agent.call("POST", path, "x" * ((1 << 20) + 1))

    assert (answer.status, answer.tag) == (413, "too-big")


def test_edit_of_what_has_changed_meanwhile_is_refused(agent):
    """If-Match with an old entity tag: 412."""
    tag = agent.call("GET", N).headers["ETag"]
    place, body = f"{N}/qkdn_location_id", {"etsi-qkd-sdn-node:qkdn_location_id": "b"}
    assert agent.call("PUT", place, body, If_Match=tag).status == 204

    answer = agent.call("PUT", place, body, If_Match=tag)

    assert (answer.status, answer.tag) == (412, "operation-failed")
    assert agent.call("PUT", place, body, If_Match="*").status == 204


def test_edit_of_what_has_changed_since_then_is_refused(agent):
    """If-Unmodified-Since (3.4.1.1): 412 with a time before the last change, which an edit's answer tells."""
    place, body = f"{N}/qkdn_location_id", {"etsi-qkd-sdn-node:qkdn_location_id": "b"}
    changed = agent.call("PUT", place, body).headers["Last-Modified"]
    assert changed.endswith(" GMT")

    early = agent.call("PUT", place, body, If_Unmodified_Since="Thu, 01 Jan 1970 00:00:00 GMT")
    assert (early.status, early.tag) == (412, "operation-failed")
    assert agent.call("PUT", place, body, If_Unmodified_Since="Fri, 01 Jan 2100 00:00:00 GMT").status == 204
    assert agent.call("PUT", place, body, If_Unmodified_Since="no date").status == 204


def test_put_that_must_make_makes_once_and_one_that_must_change_makes_nothing(agent):
    """If-None-Match: * is refused where the resource is there already, If-Match: * where it is not."""
    link = virtual()
    path = f"{N}/qkd_links/qkd_link={link['qkdl_id']}"

    assert agent.call("PUT", path, {LINK: [link]}, If_Match="*").status == 412
    assert agent.call("PUT", path, {LINK: [link]}, If_None_Match="*").status == 201
    assert agent.call("PUT", path, {LINK: [link]}, If_None_Match="*").status == 412
    agent.call("DELETE", path)


def test_configuration_outlives_the_node(network: Network):
    """What was made is there, and what was deleted is not, after kill -9 and a restart."""
    agent = network.foreign["c"]
    kept, gone = virtual(), virtual()
    for link in (kept, gone):
        made(agent, link)
    agent.call("DELETE", f"{N}/qkd_links/qkd_link={gone['qkdl_id']}")
    before = agent.get(f"{N}/qkd_links?content=config")["etsi-qkd-sdn-node:qkd_links"]["qkd_link"]

    network.nodes["c"].kill()
    network.start_node("c").wait_ready()

    after = agent.get(f"{N}/qkd_links?content=config")["etsi-qkd-sdn-node:qkd_links"]["qkd_link"]
    without_status = [[{k: v for k, v in e.items() if k != "qkdl_status"} for e in found] for found in (before, after)]
    assert sorted(without_status[0], key=str) == sorted(without_status[1], key=str)
    agent.call("DELETE", f"{N}/qkd_links/qkd_link={kept['qkdl_id']}")
    until(lambda: network.physical("c", "b")["qkdl_status"].endswith(":ACTIVE"))
