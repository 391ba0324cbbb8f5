"""A node that knows only the standard: our controller finds it, hears of its applications, configures both ends.

Its agent is written here, from RFC 8040 and the data model; nothing of node/ is in it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request

from mtls.events import Feed, answer_with
from mtls.identity import Identity, Role
from mtls.server import Server
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.gs015_client import YANG_JSON, N
from tests.support.validation import validate
from tests.support.waiting import until

TYPES = "etsi-qkd-node-types"
FIBRE = str(uuid.uuid4())


class ForeignNode:
    """Node `name`, one end of a fibre to the node `peer`; keeps what it is configured to, by path."""

    def __init__(self, stack: Stack, name: str, own: str, peer: str) -> None:
        self.name = name
        self.qkdn_id = own
        self.configured: dict[str, Any] = {}
        self.deleted: list[str] = []
        self.feeds: list[Feed] = []
        self.skr = 4000
        self.status = "ACTIVE"
        self._peer = peer
        app = Flask(name)

        @app.get("/restconf/data/ietf-restconf-monitoring:restconf-state/streams")
        def streams() -> Response:
            # Behind a proxy it does not know its own address.
            access = [{"encoding": "json", "location": "https://node.example/events"}]
            stream = [{"name": "NETCONF", "access": [{"encoding": "xml", "location": "https://x/"}, *access]}]
            return self._json({"ietf-restconf-monitoring:streams": {"stream": stream}})

        @app.get("/events")
        def events() -> Response:
            self.feeds.append(Feed())
            return answer_with(self.feeds[-1])

        @app.get(N)
        def node() -> Response:
            return self._json(self.document())

        @app.patch(N)
        def patch() -> Response:
            body = json.loads(request.get_data())["etsi-qkd-sdn-node:qkd_node"]
            for outer, inner, key in (("qkd_links", "qkd_link", "qkdl_id"), ("qkd_applications", "qkd_app", "app_id")):
                for entry in body.get(outer, {}).get(inner, []):
                    self.configured[f"{outer}/{inner}={entry[key]}"] = entry
            validate(self.document())
            return Response(b"", 204)

        @app.delete(f"{N}/<path:resource>")
        def delete(resource: str) -> Response:
            self.deleted.append(resource)
            return Response(b"", 204 if self.configured.pop(resource, None) else 404)

        credentials = stack.issue(Role.NODE, name)
        self.server = Server(app, LOOPBACK, 0, credentials, threads=4)
        self.server.start()

    def document(self) -> dict[str, Any]:
        """The node, with a fibre, what was configured, and something that no module of the standard has."""
        link = {
            "qkdl_id": FIBRE, "qkdl_status": f"{TYPES}:{self.status}", "qkdl_type": f"{TYPES}:PHYS",
            "qkdl_local": {"qkdn_id": self.qkdn_id, "qkdi_id": 1}, "qkdl_remote": {"qkdn_id": self._peer, "qkdi_id": 1},
            "qkdl_performance": {"skr": self.skr, "eskr": self.skr, "expected_consumption": 0},
        }  # fmt: skip
        configured = {
            inner: [e for path, e in self.configured.items() if path.startswith(f"{outer}/")]
            for outer, inner in (("qkd_links", "qkd_link"), ("qkd_applications", "qkd_app"))
        }
        return {
            "etsi-qkd-sdn-node:qkd_node": {
                "qkdn_id": self.qkdn_id, "qkdn_status": f"{TYPES}:OPERATING",
                "qkd_links": {"qkd_link": [link, *configured["qkd_link"]]},
                "qkd_applications": {"qkd_app": configured["qkd_app"]},
            }
        }  # fmt: skip

    def notify(self, name: str, content: Any) -> None:
        """Send a notification to whoever listens."""
        event = {"ietf-restconf:notification": {"eventTime": "2026-01-01T00:00:00+01:00",
                                                f"etsi-qkd-sdn-node:{name}": content}}  # fmt: skip
        for feed in self.feeds:
            feed.publish(event)

    @property
    def apps(self) -> list[dict[str, Any]]:
        """Applications configured."""
        return [entry for path, entry in self.configured.items() if path.startswith("qkd_applications/")]

    def _json(self, document: Any) -> Response:
        extra = {"vendor-x:colour": "blue"} if "etsi-qkd-sdn-node:qkd_node" in document else {}
        return Response(json.dumps(document | extra), content_type=YANG_JSON)


class World(Stack):
    """Our controller and two nodes of somebody else's."""

    def build(self) -> None:
        """Start them; the operator names the agents."""
        ids = [str(uuid.uuid4()), str(uuid.uuid4())]
        self.left, self.right = (
            ForeignNode(self, name, own, peer)
            for name, own, peer in (("left", ids[0], ids[1]), ("right", ids[1], ids[0]))
        )
        self.start_controller()
        self.operator = self.caller(Role.OPERATOR, "op")
        for node in (self.left, self.right):
            self.northbound("PUT", f"agents/{node.name}", {"url": f"https://{LOOPBACK}:{node.server.port}"})
        until(lambda: len(self.northbound("GET", "topology")["links"]) == 1)

    def northbound(self, method: str, what: str, body: Any = None) -> Any:
        """What the controller says to its operator."""
        url = f"https://{LOOPBACK}:{self.controller_port}/qkd/v1/{what}"
        reply = self.operator.request(method, url, to=Identity(Role.CONTROLLER, "ctl"), body=body)
        assert reply.ok, reply
        return reply.body

    def new_application(self, node: ForeignNode, server: str, client: str, **members: Any) -> None:
        """An application of that node asks for an association."""
        content = {"app_type": f"{TYPES}:CLIENT", "server_app_id": server, "client_app_id": [client],
                   "local_qkdn_id": node.qkdn_id, **members}  # fmt: skip
        node.notify("sdqkdn_application_new", {"qkd_application": content})

    def stop(self) -> None:
        """End everything."""
        super().stop()
        for node in (self.left, self.right):
            node.server.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Running."""
    made = World(tmp_path_factory.mktemp("foreign"))
    try:
        made.build()
        yield made
    finally:
        made.stop()


def test_controller_finds_nodes_and_the_link_between_them(world):
    """By what they show; the link has no name but its ID."""
    found = world.northbound("GET", "topology")

    assert {n["name"]: n["qkdn_id"] for n in found["nodes"]} == {n.name: n.qkdn_id for n in (world.left, world.right)}
    assert found["links"] == [
        {"qc": FIBRE, "qkdl_id": FIBRE, "ends": ["left", "right"], "status": "ACTIVE", "enabled": True}
    ]


def test_link_performance_is_read_each_slot(world):
    """4000 bit/s are 500 bytes a slot."""
    until(lambda: world.northbound("GET", "links")["links"][0]["generated_per_slot"] == 500.0)


@pytest.mark.parametrize("turned", [False, True], ids=["same words", "each names itself first"])
@pytest.mark.parametrize("uri", ["urn:uuid:{}", "{}", "app://{}.example/x"])
def test_applications_of_both_sides_get_the_same_application(world, uri, turned):
    """qkd_app with the same app_id at both nodes, fed by the link; the end of one ends it at the other."""
    a, b = uri.format(uuid.uuid4()), uri.format(uuid.uuid4())
    before = len(world.left.apps)
    world.new_application(world.left, a, b, app_qos={"min_bandwidth": 100})
    until(lambda: any(s["state"] == "waiting" for s in world.northbound("GET", "key_sessions")["key_sessions"]))
    assert len(world.left.apps) == before

    world.new_application(world.right, *((b, a) if turned else (a, b)))

    until(lambda: len(world.left.apps) == len(world.right.apps) == before + 1)
    left, right = world.left.apps[-1], world.right.apps[-1]
    assert left["app_id"] == right["app_id"]
    assert (left["server_app_id"], left["client_app_id"]) == (right["server_app_id"], right["client_app_id"])
    assert left["server_app_id"].endswith(a.removeprefix("urn:uuid:"))
    assert left["backing_qkdl_id"] == right["backing_qkdl_id"] == [FIBRE]
    assert (left["local_qkdn_id"], left["remote_qkdn_id"]) == (right["remote_qkdn_id"], right["local_qkdn_id"])
    assert left["app_qos"] == right["app_qos"] == {"min_bandwidth": 100}

    world.right.notify("sdqkdn_application_disconnected", {"qkd_application": {"app_id": right["app_id"]}})
    until(lambda: f"qkd_applications/qkd_app={left['app_id']}" in world.left.deleted)


def test_application_is_configured_as_its_nodes_declared_it(world):
    """All of QoS that the standard has, and the priority; where both sides say something, the server's word counts."""
    server, client = str(uuid.uuid4()), str(uuid.uuid4())
    asked = {"max_bandwidth": 2000, "min_bandwidth": 1000, "jitter": 5, "ttl": 60, "clients_shared_keys_required": True}
    before = len(world.left.apps)
    world.new_application(world.left, server, client, app_qos=asked, app_priority=7)
    until(lambda: server in {s["master_sae"] for s in world.northbound("GET", "key_sessions")["key_sessions"]})
    world.new_application(world.right, server, client, app_qos={"ttl": 30, "clients_shared_path_enable": False})

    until(lambda: len(world.left.apps) == len(world.right.apps) == before + 1)

    for app in (world.left.apps[-1], world.right.apps[-1]):
        assert app["app_qos"] == asked | {"clients_shared_path_enable": False}
        assert app["app_priority"] == 7


def test_notification_that_makes_no_sense_harms_nobody(world):
    """The node is read anew, and serves on; one that nobody knows yet is passed over."""
    feeds = len(world.left.feeds)
    world.left.notify("sdqkdn_application_disconnected", {"qkd_application": {"app_id": 7}})
    until(lambda: len(world.left.feeds) > feeds)
    until(lambda: all(a["reachable"] for a in world.northbound("GET", "agents")["agents"]))

    feeds, server = len(world.left.feeds), str(uuid.uuid4())
    world.left.notify("sdqkdn_of_tomorrow", {"x": 1})
    world.new_application(world.left, server, str(uuid.uuid4()))

    until(lambda: server in {s["master_sae"] for s in world.northbound("GET", "key_sessions")["key_sessions"]})
    assert len(world.left.feeds) == feeds


def test_node_that_claims_anothers_id_is_not_taken(world):
    """It would draw the other's links to itself."""
    impostor = ForeignNode(world, "impostor", world.left.qkdn_id, world.right.qkdn_id)
    try:
        world.northbound("PUT", "agents/impostor", {"url": f"https://{LOOPBACK}:{impostor.server.port}"})
        until(lambda: len(impostor.feeds) > 1)

        assert {n["name"] for n in world.northbound("GET", "topology")["nodes"]} == {"left", "right"}
    finally:
        world.northbound("DELETE", "agents/impostor")
        impostor.server.stop()


def test_link_that_a_node_reports_down_is_down(world):
    """Its new status and figures count until it is up again."""
    def shown() -> Any:
        return world.northbound("GET", "topology")["links"][0]["status"]

    world.left.skr, world.left.status = 0, "OFF"
    try:
        world.left.notify("sdqkdn_link_down", {"qkd_link": {"qkdl_id": FIBRE, "reason": "cut"}})
        world.left.notify("alarm", {"link": {"qkdl_id": FIBRE, "qkdl_status": f"{TYPES}:OFF"}})
        until(lambda: shown() == "OFF")
    finally:
        world.left.skr, world.left.status = 4000, "ACTIVE"
    world.left.notify("event", {"link": {"qkdl_id": FIBRE, "qkdl_status": f"{TYPES}:ACTIVE"}})
    until(lambda: shown() == "ACTIVE")


def test_figures_go_on_over_a_new_connection(world):
    """Those from before neither hide the new ones nor count again."""

    def rate() -> float:
        return float(world.northbound("GET", "links")["links"][0]["generated_per_slot"])

    until(lambda: rate() == 500.0)
    for node in (world.left, world.right):
        node.skr = 8000
        for feed in node.feeds:
            feed.close()

    until(lambda: rate() > 500.0)

    assert rate() <= 1000.0
