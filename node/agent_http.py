"""Routes for the controller (key sessions) and for other nodes (relay). Decisions are in agent.py and relay.py."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from etsi.checks import uuid_text
from etsi.errors import Malformed
from mtls.identity import Role
from mtls.serve import allow, caller, error_body, json_body, new_app
from node.agent import Agent
from node.failures import KeyFailure
from node.key_stream import KeyStore
from node.relay import Relay
from node.sessions import Sessions, parse
from telemetry.journal import Journal
from telemetry.metrics import CONTENT_TYPE, NodeMetrics


def make_app(
    agent: Agent, relay: Relay, sessions: Sessions, store: KeyStore, *, journal: Journal, metrics: NodeMetrics
) -> Flask:
    """The application on the agent's port."""
    app = new_app("agent")

    @app.errorhandler(KeyFailure)
    def on_failure(error: KeyFailure) -> Response:
        journal.event("relay_failed", **error.details())
        metrics.relay_failed(error.cause)
        return error_body(error.status, str(error), error.details())

    @app.put("/qkd/v1/key_sessions/<ksid>")
    @allow(Role.CONTROLLER)
    def put_session(ksid: str) -> tuple[str, int]:
        session = parse(json_body())
        if session.ksid != uuid_text(ksid, "ksid"):
            raise Malformed("ksid", "the same in body and URL")
        agent.put_session(session)
        return "", 204

    @app.delete("/qkd/v1/key_sessions/<ksid>")
    @allow(Role.CONTROLLER)
    def remove_session(ksid: str) -> tuple[str, int]:
        agent.remove_session(uuid_text(ksid, "ksid"))
        return "", 204

    @app.post("/qkd/v1/relay/<request_id>")
    @allow(Role.NODE)
    def forward(request_id: str) -> tuple[str, int]:
        relay.forward(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204

    @app.post("/qkd/v1/relay/<request_id>/keys")
    @allow(Role.NODE)
    def accept_keys(request_id: str) -> tuple[str, int]:
        relay.accept_keys(caller().name, uuid_text(request_id, "request"), json_body())
        return "", 204

    @app.get("/metrics")
    @allow(Role.OPERATOR)
    def figures() -> Response:
        return Response(metrics.page(), content_type=CONTENT_TYPE)

    @app.get("/qkd/v1/status")
    @allow(Role.OPERATOR, Role.CONTROLLER)
    def status() -> dict[str, Any]:
        held = [
            {"qc": h.qc, "slot": h.slot, "stored_bytes": h.stored, "generated_bytes": h.generated,
             "used_bytes": h.used, "expired_bytes": h.expired}
            for h in store.held()
        ]  # fmt: skip
        return {
            "registered": agent.registered, "parameters": agent.parameters.to_json(), "qcs": held,
            "sessions": [s.to_json() for s in sessions.all()],
        }  # fmt: skip

    return app
