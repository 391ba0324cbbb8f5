"""The operators' interface: what it refuses, that it is as its description says, and how it starts."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import jsonschema_rs
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from controller.northbound import api
from mtls.identity import Role
from testbed.machine.processes import ProcessFailed
from tests.support.described import TRUE, ask


@pytest.mark.parametrize(
    ("body", "field"),
    [({"url": "http://x"}, "url"), ({"url": 3}, "url"), ({}, "url"), ({"url": "https://x", "colour": 1}, "url")],
)
def test_wrong_agent_is_refused_by_name(world, body, field):
    """400, and nobody is followed."""
    reply = world.call("PUT", "agents/new", body)

    assert (reply.status, reply.detail("field")) == (400, field)
    assert "new" not in {a["name"] for a in world.operator("agents")["agents"]}


def test_agents_that_are_added_at_once_are_all_known_to_the_next_controller(alone):
    """Each addition reads what is kept, and writes it anew."""
    alone.start().wait_ready(20)
    names = [f"n{i}" for i in range(24)]
    with ThreadPoolExecutor(len(names)) as operators:
        add = lambda name: alone.call("PUT", f"agents/{name}", {"url": "https://127.0.0.1:9"}).status  # noqa: E731
        assert set(operators.map(add, names)) == {204}

    alone.restart()

    assert {a["name"] for a in alone.operator("agents")["agents"]} == set(names)


def test_description_has_all_routes_and_no_others(world):
    """OpenAPI; the description itself and the metrics, which are not of this interface, aside."""
    app = api.make_app(*[Mock()] * 4, book=Mock(), choice=Mock(), settings=Mock(), switches=dict, leadership=dict)
    routes = {
        (method.lower(), re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    } - {("get", "/qkd/v1/openapi.json"), ("get", "/metrics")}
    paths = world.operator("openapi.json")["paths"]

    assert {(m, path) for path, found in paths.items() for m in found if m != "parameters"} == routes


def test_answers_are_as_described(world):
    """With sessions in all states that last, and a refusal."""
    world.open("a", "d")
    world.nodes["b"].ask(world.pair("a", "b"), "slave")
    world.nodes["a"].ask(world.pair("a", "a"), "master")
    _, refused = world.request("a", "d")
    assert refused.status == 200
    paths = world.operator("openapi.json")["paths"]
    for path, operations in paths.items():
        if "get" in operations:
            schema = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema_rs.Draft202012Validator(schema).validate(world.operator(path.removeprefix("/qkd/v1/")))


def test_whatever_is_asked_is_answered_as_described(alone):
    """Right and wrong requests alike get no other status or shape; what the description forbids is refused."""
    alone.start_with_nodes()
    alone.open("a", "d")
    schema = schemathesis.openapi.from_dict(alone.operator("openapi.json"))
    url, credentials = f"https://127.0.0.1:{alone.port}", alone.credentials(Role.OPERATOR, "asker")
    with requests.Session() as session:
        for operation in (found.ok() for found in schema.get_all_operations()):
            ask(operation.as_strategy(), TRUE, url, credentials, session, examples=10)
            if operation.body:
                wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
                ask(wrong, [*TRUE, negative_data_rejection], url, credentials, session, examples=10)


def test_port_in_use_is_one_line(alone):
    """REST and OpenFlow alike: address and port, exit status 2."""
    switch = {"name": "s1", "dpid": 1, "ports": [], "hosts": []}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        openflow = {"host": "127.0.0.1", "port": port, "fabric": {"switches": [switch]}}
        for options in ({"port": port}, {"openflow": openflow}):
            alone.directory.joinpath("controller.log").unlink(missing_ok=True)
            process = alone.start(**options)
            with pytest.raises(ProcessFailed, match=f"cannot listen on 127.0.0.1:{port}"):
                process.wait_ready(20)
            assert process.status == 2
            assert len(process.log.read_text().splitlines()) == 1
            process.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"parameters": {"mode": "x"}}, "mode"), ({"colour": 1}, "colour"), ({"openflow": 3}, "openflow")],
)
def test_malformed_configuration_is_one_line(alone, change, said):
    """Names the member; exit status 2."""
    process = alone.start(**change)

    with pytest.raises(ProcessFailed, match=said):
        process.wait_ready(20)
    assert process.status == 2
