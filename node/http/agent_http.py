"""The agent's port: RESTCONF for controllers (restconf_http.py), relay and registration for other nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Flask, Response

from documents.checks import mapping, uuid_text
from etsi.gs004 import qos
from etsi.sae_id import sae_id
from mtls.identity import Role
from mtls.serve import Problem, allow, caller, error_body, json_body, new_app
from node.agent.agent import Agent
from node.agent.key_sessions import KeySessions
from node.devices.devices import PATH as OFFERS
from node.devices.devices import Devices
from node.failures import KeyFailure
from node.material.key_store import KeyStore
from node.relaying.relay import Relay
from node.relaying.routes import Routes
from node.streams.home import HomeStreams, side_of
from telemetry.journal import Journal
from telemetry.metrics import CONTENT_TYPE, NodeMetrics


def make_app(
    agent: Agent,
    restconf: Blueprint,
    *,
    key_sessions: KeySessions,
    relay: Relay,
    routes: Routes,
    streams: HomeStreams,
    devices: Devices,
    home_of: Mapping[str, str],
    store: KeyStore,
    journal: Journal,
    metrics: NodeMetrics,
) -> Flask:
    """The application on the agent's port. `home_of`: the node of each SAE of the network."""
    app = new_app("agent")
    app.register_blueprint(restconf)

    @app.errorhandler(KeyFailure)
    def on_failure(error: KeyFailure) -> Response:
        journal.event("relay_failed", **error.details())
        metrics.relay_failed(error.cause)
        return error_body(error.status, str(error), error.details())

    @app.post("/qkd/v1/applications")
    @allow(Role.NODE)
    def register_slave() -> tuple[str, int]:
        body = json_body()
        master, slave = (sae_id(body.get(m), m) for m in ("master_sae", "slave_sae"))
        key_sessions.register_slave(caller().name, master, slave, qos(mapping(body.get("qos", {}), "qos")))
        return "", 204

    @app.get("/qkd/v1/virtual_links/<link_id>/neighbours")
    @allow(Role.NODE)
    def neighbours(link_id: str) -> dict[str, Any]:
        found = routes.neighbours(uuid_text(link_id, "link"))
        return {"neighbours": [{"node": name, "qcs": qcs} for name, qcs in found.items()]}

    @app.post("/qkd/v1/relay/<request_id>")
    @allow(Role.NODE)
    def forward(request_id: str) -> tuple[str, int]:
        relay.forward(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204

    @app.post("/qkd/v1/relay/<request_id>/keys")
    @allow(Role.NODE)
    def accept_keys(request_id: str) -> tuple[str, int]:
        kept = relay.as_last.accept_keys(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204 if kept else 202

    @app.post("/qkd/v1/relay/<request_id>/new_keys")
    @allow(Role.NODE)
    def give_keys(request_id: str) -> tuple[dict[str, Any] | str, int]:
        found = relay.as_last.give_keys(caller().name, uuid_text(request_id, "request"), json_body())
        return ("", 202) if found is None else (found, 200)

    @app.post("/qkd/v1/relay/<request_id>/check")
    @allow(Role.NODE)
    def check_keys(request_id: str) -> tuple[str, int]:
        kept = relay.as_last.check_keys(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204 if kept else 202

    @app.post("/qkd/v1/relay/<request_id>/pads")
    @allow(Role.NODE)
    def turn(request_id: str) -> tuple[str, int]:
        relay.parallel.turn(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204

    @app.post("/qkd/v1/relay/<request_id>/difference")
    @allow(Role.NODE)
    def accept_difference(request_id: str) -> tuple[str, int]:
        relay.parallel.accept_difference(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204

    @app.post("/qkd/v1/relay/<request_id>/sealed")
    @allow(Role.NODE)
    def accept_sealed(request_id: str) -> tuple[dict[str, Any] | str, int]:
        found = relay.parallel.accept_sealed(caller().name, uuid_text(request_id, "request"), json_body())
        if found.kept and not found.missing and not found.altered:
            return "", 204
        return {"missing": list(found.missing), "altered": list(found.altered)}, 200 if found.kept else 202

    @app.post("/qkd/v1/streams/<ksid>/<step>")
    @allow(Role.NODE)
    def stream_step(ksid: str, step: str) -> dict[str, Any]:
        body = json_body()
        side = side_of(body)
        if home_of.get(side) != caller().name:
            raise Problem(401, "a node speaks for the SAEs of its own site only")
        return streams.step(uuid_text(ksid, "stream"), step, side, body)

    @app.post(OFFERS)
    @allow(Role.NODE)
    def offers() -> dict[str, Any]:
        return devices.answer(caller().name, json_body())

    @app.get("/metrics")
    @allow(Role.OPERATOR)
    def figures() -> Response:
        return Response(metrics.page(), content_type=CONTENT_TYPE)

    @app.get("/qkd/v1/status")
    @allow(Role.OPERATOR)
    def status() -> dict[str, Any]:
        held = [
            {"qc": h.qc, "slot": h.slot, "stored_bytes": h.stored, "generated_bytes": h.generated,
             "used_bytes": h.used, "expired_bytes": h.expired, "differing_bytes": h.differing}
            for h in store.held()
        ]  # fmt: skip
        return {
            "registered": agent.registered, "in_database": agent.in_database,
            "parameters": agent.parameters.to_json(), "qcs": held, "sessions": key_sessions.all(),
            "devices": devices.status(),
        }  # fmt: skip

    return app
