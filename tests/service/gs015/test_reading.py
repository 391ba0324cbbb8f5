"""What an agent shows: everything valid by ETSI's modules, and true."""

from __future__ import annotations

import json
import uuid

import pytest

from mtls.identity import Role
from tests.service.gs015.conftest import BYTES_PER_SLOT, SLOT_S
from tests.support.gs015_client import YANG_JSON, N
from tests.support.validation import resources, url, validate, validate_part
from tests.support.waiting import until


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
    until(lambda: network.physical("a", "b")["qkdl_performance"]["skr"] == rate)

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
    assert set(both) >= {"etsi-qkd-sdn-node:qkd_node", "qkd-testbed:node"}
    assert [qc["name"] for qc in document["qkd-testbed:node"]["qcs"]["qc"]] == ["a-b/1", "b-c/1"]


MONITORING = "/restconf/data/ietf-restconf-monitoring:restconf-state"


@pytest.mark.parametrize("slash", ["", "/"])
def test_entry_points_of_rfc_8040(agent, slash):
    """3.1 and 3.3: host-meta, the API resource and each of its members, with a slash at the end, too."""
    api = {
        "data": {}, "operations": {"qkd-testbed:application_answer": [None]}, "yang-library-version": "2019-01-04",
    }  # fmt: skip

    assert '<Link rel="restconf" href="/restconf"' in agent.call("GET", "/.well-known/host-meta").text
    assert agent.get(f"/restconf{slash}") == {"ietf-restconf:restconf": api}
    for name in ("operations", "yang-library-version"):
        assert agent.get(f"/restconf/{name}{slash}") == {f"ietf-restconf:{name}": api[name]}
    assert "etsi-qkd-sdn-node:qkd_node" in agent.get(f"/restconf/data{slash}")["ietf-restconf:data"]


def test_capabilities_are_a_resource(agent):
    """As RFC 8040 asks in its example B.1.3; what is offered is named, and works."""
    found = agent.get(f"{MONITORING}/capabilities")["ietf-restconf-monitoring:capabilities"]["capability"]

    assert {uri.partition("capability:")[2] for uri in found} == {
        "defaults:1.0?basic-mode=explicit", "depth:1.0", "fields:1.0", "with-defaults:1.0",
    }  # fmt: skip
    assert agent.get(f"{N}/qkdn_capabilities?fields=link_stats_support") == {
        "etsi-qkd-sdn-node:qkdn_capabilities": {"link_stats_support": True}
    }
    trimmed = agent.get(f"{N}/qkdn_capabilities?with-defaults=trim")
    assert trimmed == {"etsi-qkd-sdn-node:qkdn_capabilities": {}}


def test_location_of_a_stream_is_a_resource(agent):
    """As RFC 8040 asks in 6.3; the location is where the client can reach it."""
    streams = agent.get(f"{MONITORING}/streams")["ietf-restconf-monitoring:streams"]["stream"]
    location = agent.get(f"{MONITORING}/streams/stream=NETCONF/access=json/location")

    assert {s["name"]: s["replay-support"] for s in streams} == {"NETCONF": False, "qkd-testbed": False}
    assert location == {"ietf-restconf-monitoring:location": f"{agent.url}/restconf/streams/NETCONF/json"}
    assert agent.call("GET", f"{MONITORING}/streams/stream=NETCONF/access=xml/location").status == 404


def test_parts_of_the_library_are_selected_as_in_rfc_8040(agent):
    """The example of 4.8.3, which asks the datastore for what it wants of another module."""
    found = agent.get("/restconf/data?fields=ietf-yang-library:modules-state/module(name;revision)")

    (state,) = found["ietf-restconf:data"].values()
    assert {frozenset(module) for module in state["module"]} == {frozenset({"name", "revision"})}


def test_yang_library_has_all_modules_in_both_its_forms(agent):
    """RFC 8525, and RFC 7895 for those who know that alone; the text of our own module can be had."""
    library = agent.get("/restconf/data/ietf-yang-library:yang-library")["ietf-yang-library:yang-library"]
    (all_of_them,) = library["module-set"]
    old = agent.get("/restconf/data/ietf-yang-library:modules-state")["ietf-yang-library:modules-state"]["module"]

    kinds = {"implement": all_of_them["module"], "import": all_of_them["import-only-module"]}
    revisions = {(m["name"], m["revision"], kind) for kind, found in kinds.items() for m in found}
    assert revisions == {(m["name"], m["revision"], m["conformance-type"]) for m in old}
    assert {name for name, *_ in revisions} >= {
        "etsi-qkd-sdn-node", "etsi-qkd-node-types", "qkd-testbed", "ietf-yang-library", "ietf-restconf-monitoring",
    }  # fmt: skip
    # A client that makes a data model of the library needs whatever these import, too (RFC 6243, section 5).
    assert ("ietf-netconf", "2011-06-01", "import") in revisions
    assert library["schema"] == [{"name": "all", "module-set": ["all"]}]
    assert {d["name"]: d["schema"] for d in library["datastore"]} == {
        "ietf-datastores:running": "all", "ietf-datastores:operational": "all",
    }  # fmt: skip
    key = next(f"{m['name']},{m['revision']}" for m in old if m["name"] == "qkd-testbed")
    schema = agent.get(f"/restconf/data/ietf-yang-library:modules-state/module={key}/schema")
    text = agent.call("GET", schema["ietf-yang-library:schema"].removeprefix(agent.url), Accept="application/yang")
    assert text.headers["Content-Type"] == "application/yang"
    assert text.text.startswith("module qkd-testbed {")


def test_media_types(agent):
    """application/yang-data+json; plain JSON for those who accept nothing else; 406 for XML."""
    assert agent.call("GET", N).headers["Content-Type"] == YANG_JSON
    assert agent.call("GET", N, Accept="application/json").headers["Content-Type"] == "application/json"
    assert agent.call("GET", N, Accept="application/yang-data+xml, */*;q=0.1").headers["Content-Type"] == YANG_JSON
    refused = agent.call("GET", N, Accept="application/yang-data+xml")
    assert (refused.status, refused.tag) == (406, "invalid-value")
    assert agent.call("GET", "/restconf/streams/NETCONF/json", Accept="application/json").status == 406


def test_head_is_get_without_a_body(agent):
    """4.2."""
    head, get = (agent.call(method, f"{N}?content=config") for method in ("HEAD", "GET"))

    assert (head.status, head.text) == (200, "")
    assert {name: head.headers[name] for name in ("ETag", "Last-Modified")} == {
        name: get.headers[name] for name in ("ETag", "Last-Modified")
    }


ALL_METHODS = {"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/restconf", "GET, HEAD, OPTIONS"), ("/restconf/", "GET, HEAD, OPTIONS"),
     ("/restconf/operations", "GET, HEAD, OPTIONS"), ("/restconf/yang-library-version", "GET, HEAD, OPTIONS"),
     ("/restconf/operations/qkd-testbed:application_answer", "OPTIONS, POST"),
     ("/restconf/streams/NETCONF/json", "GET, OPTIONS"), ("/restconf/schemas/qkd-testbed", "GET, HEAD, OPTIONS"),
     ("/restconf/data", "GET, HEAD, OPTIONS, PATCH"), (MONITORING, "GET, HEAD, OPTIONS"),
     (N, "GET, HEAD, OPTIONS, PUT, POST, PATCH"), (f"{N}/qkdn_status", "GET, HEAD, OPTIONS"),
     (f"{N}/qkdn_id", "GET, HEAD, OPTIONS, PUT, PATCH"), (f"{N}/qkd_links/qkd_link", "GET, HEAD, OPTIONS, POST"),
     (f"{N}/qkd_links", "GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE"),
     (f"{N}/qkd_interfaces", "GET, HEAD, OPTIONS, PUT, PATCH"),
     (f"{N}/qkd_interfaces/qkd_interface=1", "GET, HEAD, OPTIONS, PUT, POST, PATCH")],
)  # fmt: skip
def test_allow_tells_what_a_resource_can_do(agent, path, methods):
    """OPTIONS (4.1) lists the methods, and all others are 405 with the same list."""
    options = agent.call("OPTIONS", path)
    assert (options.status, options.headers["Allow"]) == (200, methods)
    assert options.headers.get("Accept-Patch") == (YANG_JSON if "PATCH" in methods else None)

    for method in ALL_METHODS - set(methods.split(", ")) | {"PROPFIND"}:
        answer = agent.call(method, path, {} if method not in ("GET", "HEAD") else None)
        assert (answer.status, answer.headers["Allow"]) == (405, methods)
        assert method == "HEAD" or answer.tag == "operation-not-supported"


def test_what_has_not_changed_is_304(agent):
    """If-None-Match (3.4.1.2) for whatever a GET shows; If-Modified-Since for configuration, which has such a time."""
    config = f"{N}?content=config"
    first = agent.call("GET", config)
    tag, changed = first.headers["ETag"], first.headers["Last-Modified"]

    known = agent.call("GET", config, If_None_Match=f'"other", {tag}')
    assert (known.status, known.text, known.headers["ETag"]) == (304, "", tag)
    assert agent.call("HEAD", config, If_None_Match=tag).status == 304
    assert agent.call("GET", config, If_None_Match="*").status == 304
    assert agent.call("GET", config, If_None_Match='"other"').status == 200
    assert agent.call("GET", config, If_Modified_Since=changed).status == 304
    assert agent.call("GET", config, If_Modified_Since="Thu, 01 Jan 1970 00:00:00 GMT").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_get_requires_must_hold(agent, method):
    """If-Match and If-Unmodified-Since of one that reads (RFC 9110, 13.1): 412, and never an empty 304 for a hit."""
    config = f"{N}/qkdn_id?content=config"
    first = agent.call("GET", config)
    tag, changed = first.headers["ETag"], first.headers["Last-Modified"]

    def status(**headers: str) -> int:
        return agent.call(method, config, **headers).status

    assert [status(If_Match=value) for value in ("*", tag, f'"other", {tag}')] == [200] * 3
    assert [status(If_Match=value) for value in ('"other"', f"W/{tag}")] == [412] * 2
    assert status(If_Match=tag, If_None_Match=tag) == 304
    assert status(If_Unmodified_Since=changed) == 200
    assert status(If_Unmodified_Since="Thu, 01 Jan 1970 00:00:00 GMT") == 412
    assert agent.call("GET", config, If_Match='"other"').tag == "operation-failed"


def test_state_that_has_changed_is_never_304(agent):
    """Its configuration may be the same all the while."""
    qcs = "/restconf/data/qkd-testbed:node/qcs"
    first = agent.call("GET", qcs)
    until(lambda: agent.get(qcs) != first.body)

    headers = {"If_Modified_Since": first.headers["Last-Modified"]}
    assert agent.call("GET", qcs, If_None_Match=first.headers["ETag"]).status == 200
    assert agent.call("GET", qcs, **headers).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/restconf/data/x:y", 404), (f"{N}/colour", 404), ("/restconf/nothing", 404), (f"{N}?depth=0", 400),
     ("/restconf/schemas/x", 404), ("/restconf/operations/x:y", 404), ("/restconf?x=1", 400), (f"{N}?fields=x", 400),
     (f"{N}?colour=1", 400), ("/restconf/streams/other/json", 404), ("/restconf/streams/NETCONF/json?filter=x", 400),
     (f"{N}/qkd_links/qkd_link=1", 400), ("/restconf//data", 404), ("/restconf//operations", 404)],
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
