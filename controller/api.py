"""Routes for agents and operators. Decisions are in key_sessions.py and below."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request

from controller.graph import Graph, Report, UnknownNode
from controller.key_sessions import KeySessions, Pair, SessionError
from controller.parameters import rate
from etsi.checks import integer, mapping, sequence, text, uuid_text
from etsi.errors import Malformed
from etsi.gs004 import qos
from mtls.identity import Role
from mtls.serve import Problem, allow, caller, error_body, json_body, new_app
from telemetry.metrics import CONTENT_TYPE

_MAX_QCS = 4096
_MAX_BYTES = 1 << 50
_SIDES = ("master", "slave")


def make_app(graph: Graph, sessions: KeySessions, switches: Callable[[], list[str]]) -> Flask:
    """The application; `switches` names those that are connected."""
    app = new_app("controller")

    @app.errorhandler(SessionError)
    def on_session_error(error: SessionError) -> Response:
        return error_body(error.status, str(error), error.facts)

    @app.errorhandler(UnknownNode)
    def on_unknown_node(error: UnknownNode) -> Response:
        return error_body(404, f"node {error} is not registered", {})

    _add_agent_routes(app, graph, sessions)
    _add_session_routes(app, sessions)
    _add_operator_routes(app, graph, sessions, switches)
    return app


def _add_agent_routes(app: Flask, graph: Graph, sessions: KeySessions) -> None:
    def wanted(node: str) -> dict[str, Any]:
        """What the node should be set to, with every answer: who missed a change hears of it a slot later."""
        return {"parameters": sessions.parameters.for_nodes(), "rates": graph.rates_at(node)}

    @app.put("/qkd/v1/nodes/<name>")
    @allow(Role.NODE)
    def register(name: str) -> dict[str, Any]:
        _is_self(name)
        body = json_body()
        given = sequence(body.get("links"), "links", longest=_MAX_QCS)
        links = [mapping(e, f"links[{i}]") for i, e in enumerate(given)]
        graph.register(
            name,
            text(body.get("agent_url"), "agent_url", longest=2048),
            {text(e.get("qc"), f"links[{i}].qc"): text(e.get("peer"), f"links[{i}].peer") for i, e in enumerate(links)},
        )
        sessions.remind(name)
        return wanted(name)

    @app.post("/qkd/v1/nodes/<name>/qc_status")
    @allow(Role.NODE)
    def qc_status(name: str) -> dict[str, Any]:
        _is_self(name)
        body = json_body()
        slot = integer(body.get("slot"), "slot", low=0, high=1 << 62)
        entries = sequence(body.get("qcs"), "qcs", longest=_MAX_QCS)
        graph.report(name, slot, [_report(mapping(e, f"qcs[{i}]"), f"qcs[{i}]") for i, e in enumerate(entries)])
        sessions.expire()
        return wanted(name)


def _add_session_routes(app: Flask, sessions: KeySessions) -> None:
    @app.post("/qkd/v1/applications")
    @allow(Role.NODE)
    def new_app_() -> tuple[dict[str, Any], int]:
        body = json_body()
        node = text(body.get("node"), "node")
        _is_self(node)
        pair = _pair(body)
        side = body.get("side")
        if side not in _SIDES:
            raise Malformed("side", "master or slave")
        session, timings_ms = sessions.register(node, pair, side, qos(mapping(body.get("qos", {}), "qos")))
        if timings_ms is None or session.path is None:
            return {"status": "waiting"}, 202
        return {
            "ksid": session.ksid,
            "path": list(session.path.nodes),
            "qcs": list(session.path.qcs),
            "timings_ms": timings_ms,
        }, 200

    @app.post("/qkd/v1/implicit_sessions")
    @allow(Role.NODE)
    def open_implicit() -> dict[str, Any]:
        body = json_body()
        node = text(body.get("node"), "node")
        _is_self(node)
        wanted = qos(mapping(body.get("qos", {}), "qos"))
        session = sessions.open_implicit(node, _pair(body), text(body.get("slave_node"), "slave_node"), wanted)
        return {"ksid": session.ksid}

    @app.delete("/qkd/v1/applications")
    @allow(Role.NODE)
    def withdraw() -> tuple[str, int]:
        pair = (
            uuid_text(request.args.get("master_sae"), "master_sae"),
            uuid_text(request.args.get("slave_sae"), "slave_sae"),
        )
        sessions.withdraw(caller().name, pair)
        return "", 204

    @app.delete("/qkd/v1/key_sessions/<ksid>")
    @allow(Role.NODE, Role.OPERATOR)
    def close(ksid: str) -> tuple[str, int]:
        who = caller()
        node = who.name if who.role == Role.NODE else None
        if not sessions.close(uuid_text(ksid, "ksid"), node=node):
            raise Problem(404, "no open key session of this KSID", ksid=ksid)
        return "", 204


def _add_operator_routes(
    app: Flask, graph: Graph, sessions: KeySessions, switches: Callable[[], list[str]]
) -> None:
    @app.get("/qkd/v1/status")
    @allow(Role.OPERATOR)
    def status() -> dict[str, Any]:
        return {
            "version": importlib.metadata.version("qkd-testbed"),
            "nodes": {name: {"slot": slot} for name, slot in graph.nodes().items()},
            "switches": switches(),
            "key_sessions": len(sessions.all()),
            "parameters": sessions.parameters.to_json(),
        }

    @app.get("/metrics")
    @allow(Role.OPERATOR)
    def figures() -> Response:
        return Response(sessions.metrics.page(), content_type=CONTENT_TYPE)

    @app.get("/qkd/v1/parameters")
    @allow(Role.OPERATOR)
    def parameters() -> dict[str, Any]:
        return sessions.parameters.to_json()

    @app.patch("/qkd/v1/parameters")
    @allow(Role.OPERATOR)
    def set_parameters() -> dict[str, Any]:
        return sessions.set_parameters(json_body()).to_json()

    @app.put("/qkd/v1/qcs/<path:qc>/rate")
    @allow(Role.OPERATOR)
    def set_rate(qc: str) -> tuple[str, int]:
        if not sessions.set_rate(qc, *rate(json_body())):
            raise Problem(404, "no QC of this name", qc=qc)
        return "", 204

    @app.get("/qkd/v1/links")
    @allow(Role.OPERATOR)
    def links() -> dict[str, Any]:
        qcs = graph.qcs()
        found = []
        for view, ends in zip(sessions.views(list(qcs)), qcs.values(), strict=True):
            slots = max(1, view.slots)
            found.append(
                {
                    "qc": view.qc,
                    "ends": list(ends),
                    "generated_per_slot": round(view.generated_bytes / slots, 1),
                    "requested_per_slot": round(view.requested_bytes / slots, 1),
                    "reserved_per_slot": round(view.reserved_per_slot, 1),
                    "stored_bytes": view.stored_bytes,
                }
            )
        return {"window_slots": sessions.parameters.ttl_slots, "links": found}

    @app.get("/qkd/v1/key_sessions")
    @allow(Role.OPERATOR)
    def key_sessions() -> dict[str, Any]:
        return {"key_sessions": [s.to_json() for s in sessions.all()]}

    @app.get("/qkd/v1/refusals")
    @allow(Role.OPERATOR)
    def refusals() -> dict[str, Any]:
        return {"refusals": sessions.refusals()}


def _is_self(node: str) -> None:
    """A node speaks for itself only."""
    if caller().name != node:
        raise Problem(401, f"node {caller().name} cannot speak for node {node}")


def _pair(body: Mapping[str, Any]) -> Pair:
    """Master and slave SAE."""
    pair = uuid_text(body.get("master_sae"), "master_sae"), uuid_text(body.get("slave_sae"), "slave_sae")
    if pair[0] == pair[1]:
        raise Malformed("slave_sae", "another SAE than master_sae")
    return pair


def _report(given: Any, field: str) -> Report:
    return Report(
        text(given.get("qc"), f"{field}.qc"),
        *(
            integer(given.get(m), f"{field}.{m}", low=0, high=_MAX_BYTES)
            for m in ("generated_bytes", "requested_bytes", "stored_bytes")
        ),
    )
