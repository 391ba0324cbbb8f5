"""Routes for SAEs: GS QKD 014 (clause 5), SKIP, key sessions. Decisions are in kme.py and key_sessions.py."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request
from werkzeug.routing import BaseConverter

from documents.checks import Malformed, mapping, number, uuid_text
from etsi import gs014
from etsi.gs004 import qos
from etsi.gs014_openapi import describe
from etsi.sae_id import sae_id
from mtls.identity import Role
from mtls.serve import allow, error_body, json_body, new_app
from node.agent.key_sessions import KeySessions
from node.failures import KeyFailure
from node.http import skip_http
from node.http.answers import as_json, local_sae, wiped
from node.serving.fetching import Unauthorized
from node.serving.handing_out import HandingOut
from node.serving.kme import Kme
from telemetry.journal import Journal
from telemetry.metrics import NodeMetrics

_SIDES = ("master", "slave")
_LONGEST_S = 1e7  # of a key session that says how long it lasts


class _SaeId(BaseConverter):
    """An SAE ID in a path is opaque (clause 4): once decoded it may hold anything, slashes and line breaks, too."""

    regex = r"[\s\S]+?"
    part_isolating = False


def make_app(kme: Kme, sessions: KeySessions, journal: Journal, metrics: NodeMetrics) -> Flask:
    """The KME's application. Every key and every failure lands in `journal` and `metrics` with its delivery time."""
    app = new_app("kme")
    app.url_map.converters["sae_id"] = _SaeId

    @app.errorhandler(Unauthorized)
    def on_unauthorized(error: Unauthorized) -> Response:
        return error_body(401, str(error), {})

    @app.errorhandler(KeyFailure)
    def on_failure(error: KeyFailure) -> Response:
        return error_body(error.status, str(error), error.details())

    keys = HandingOut(kme, journal, metrics)

    @app.get("/api/v1/openapi.json")
    @allow(Role.SAE)
    def openapi() -> dict[str, Any]:
        return describe(kme.limits)

    @app.get("/api/v1/keys/<sae_id:slave>/status")
    @allow(Role.SAE)
    def status(slave: str) -> Response:
        return as_json(kme.status(local_sae(kme), slave).to_json())

    @app.route("/api/v1/keys/<sae_id:slave>/enc_keys", methods=["GET", "POST"])
    @allow(Role.SAE)
    def enc_keys(slave: str) -> Response:
        master = local_sae(kme)
        if request.method == "GET":
            wanted = gs014.key_request_from_query(list(request.args.items(multi=True)), kme.limits)
        else:
            wanted = gs014.key_request(json_body(empty={}), kme.limits)
        given = keys.to_master(master, slave, wanted).keys
        return wiped(given, gs014.key_container(given))

    @app.route("/api/v1/keys/<sae_id:master>/dec_keys", methods=["GET", "POST"])
    @allow(Role.SAE)
    def dec_keys(master: str) -> Response:
        slave = local_sae(kme)
        if request.method == "GET":
            key_ids = gs014.key_ids_from_query(list(request.args.items(multi=True)))
        else:
            key_ids = gs014.key_ids(json_body(), most=kme.limits.max_key_per_request)
        given = keys.to_slave(slave, master, key_ids)
        return wiped(given, gs014.key_container(given))

    skip_http.add_routes(app, kme, HandingOut(kme, journal, metrics, protocol="skip"))
    _add_session_routes(app, kme, sessions)
    return app


def _add_session_routes(app: Flask, kme: Kme, sessions: KeySessions) -> None:
    """The paper's open_key_session and its counterparts: GS QKD 014 has no sessions, 004 calls it OPEN_CONNECT."""

    @app.post("/qkd/v1/key_sessions")
    @allow(Role.SAE)
    def open_key_session() -> tuple[dict[str, Any], int]:
        sae = local_sae(kme)
        body = json_body()
        peer = sae_id(body.get("peer"), "peer")
        side = body.get("side")
        if side not in _SIDES:
            raise Malformed("side", "master or slave")
        wanted, duration_s = qos(mapping(body.get("qos", {}), "qos")), body.get("duration_s")
        if duration_s is not None:
            duration_s = number(duration_s, "duration_s", low=0, high=_LONGEST_S)
        master, slave = (sae, peer) if side == "master" else (peer, sae)
        return sessions.open(master, slave, side, wanted, duration_s)

    @app.delete("/qkd/v1/key_sessions")
    @allow(Role.SAE)
    def withdraw() -> tuple[str, int]:
        peer = sae_id(request.args.get("master_sae"), "master_sae")
        sessions.withdraw(peer, local_sae(kme))
        return "", 204

    @app.delete("/qkd/v1/key_sessions/<ksid>")
    @allow(Role.SAE)
    def close_key_session(ksid: str) -> tuple[str, int]:
        sessions.close(uuid_text(ksid, "ksid"), local_sae(kme))
        return "", 204
