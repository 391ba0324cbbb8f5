"""Routes for SAEs: GS QKD 014 (clause 5), key sessions. Decisions are in kme.py and key_sessions.py."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, request
from werkzeug.routing import BaseConverter

from documents.checks import Malformed, mapping, number, uuid_text
from etsi import gs014
from etsi.gs004 import qos
from etsi.gs014_openapi import describe
from etsi.sae_id import sae_id
from mtls.identity import Role
from mtls.serve import allow, arrived, caller, error_body, json_body, new_app, tell_outcome
from node.agent.key_sessions import KeySessions
from node.failures import KeyFailure
from node.serving.fetching import Unauthorized
from node.serving.kme import Kme
from node.serving.pool import Keys
from telemetry.journal import Journal
from telemetry.metrics import NodeMetrics

_SIDES = ("master", "slave")
_LONGEST_S = 1e7  # of a key session that says how long it lasts
_NOT_TAKEN = "answer_not_taken"  # the client was gone, and its keys are lost


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

    def delivered(kind: str, key_ids: Sequence[str], facts: dict[str, Any]) -> None:
        """The paper's delivery time is from the arrival of the request until its answer is ready."""
        duration_ms, mode, hops = _since_ms(), facts.get("mode", ""), facts.get("hops", 0)
        journal.event("key_delivered", method=kind, key_ids=list(key_ids), duration_ms=duration_ms, **facts)

        def lost() -> None:
            journal.event("lost", method=kind, cause=_NOT_TAKEN, key_ids=list(key_ids), ranges=[], **facts)
            metrics.failed(kind, _NOT_TAKEN)
            kme.lost_on_the_way(_NOT_TAKEN, key_ids)

        tell_outcome(lambda: metrics.delivered(kind, len(key_ids), duration_ms / 1000, mode=mode, hops=hops), lost)

    @app.get("/api/v1/openapi.json")
    @allow(Role.SAE)
    def openapi() -> dict[str, Any]:
        return describe(kme.limits)

    @app.get("/api/v1/keys/<sae_id:slave>/status")
    @allow(Role.SAE)
    def status(slave: str) -> Response:
        return _json(kme.status(_local_sae(kme), slave).to_json())

    @app.route("/api/v1/keys/<sae_id:slave>/enc_keys", methods=["GET", "POST"])
    @allow(Role.SAE)
    def enc_keys(slave: str) -> Response:
        master = _local_sae(kme)
        if request.method == "GET":
            wanted = gs014.key_request_from_query(list(request.args.items(multi=True)), kme.limits)
        else:
            wanted = gs014.key_request(json_body(empty={}), kme.limits)
        facts: dict[str, Any] = {"master_sae": master, "slave_sae": slave}
        try:
            session = kme.session(master, slave, wanted.size)
            facts |= {"ksid": session.ksid, "hops": session.hops, "mode": kme.mode}
            delivery = kme.get_keys(session, wanted)
        except KeyFailure as failure:
            journal.event("key_failed", method="enc_keys", duration_ms=_since_ms(), **(facts | failure.details()))
            metrics.failed("enc_keys", failure.cause)
            raise
        facts |= {"size_bits": wanted.size, "source": delivery.source}
        answer = _container(delivery.keys)
        delivered("enc_keys", [k for k, _ in delivery.keys], facts)
        return answer

    @app.route("/api/v1/keys/<sae_id:master>/dec_keys", methods=["GET", "POST"])
    @allow(Role.SAE)
    def dec_keys(master: str) -> Response:
        slave = _local_sae(kme)
        if request.method == "GET":
            key_ids = gs014.key_ids_from_query(list(request.args.items(multi=True)))
        else:
            key_ids = gs014.key_ids(json_body(), most=kme.limits.max_key_per_request)
        facts = {"master_sae": master, "slave_sae": slave}
        try:
            keys = kme.get_keys_by_id(slave, master, key_ids)
        except KeyFailure as failure:
            journal.event(
                "key_failed", method="dec_keys", key_ids=key_ids, duration_ms=_since_ms(), **facts, **failure.details()
            )
            metrics.failed("dec_keys", failure.cause)
            raise
        answer = _container(keys)
        delivered("dec_keys", key_ids, facts)
        return answer

    _add_session_routes(app, kme, sessions)
    return app


def _add_session_routes(app: Flask, kme: Kme, sessions: KeySessions) -> None:
    """The paper's open_key_session and its counterparts: GS QKD 014 has no sessions, 004 calls it OPEN_CONNECT."""

    @app.post("/qkd/v1/key_sessions")
    @allow(Role.SAE)
    def open_key_session() -> tuple[dict[str, Any], int]:
        sae = _local_sae(kme)
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
        sessions.withdraw(peer, _local_sae(kme))
        return "", 204

    @app.delete("/qkd/v1/key_sessions/<ksid>")
    @allow(Role.SAE)
    def close_key_session(ksid: str) -> tuple[str, int]:
        sessions.close(uuid_text(ksid, "ksid"), _local_sae(kme))
        return "", 204


def _local_sae(kme: Kme) -> str:
    """The calling SAE, which must be one of this node's."""
    sae = caller().name
    kme.check_local(sae)
    return sae


def _container(keys: Keys) -> Response:
    """The keys as the answer, after which nobody here needs them: they are wiped."""
    answer = _json(gs014.key_container(keys))
    for _, key in keys:
        key.wipe()
    return answer


def _json(document: dict[str, Any]) -> Response:
    """Flask's own way looks for types that our documents do not have, and takes twice the time."""
    return Response(json.dumps(document, separators=(",", ":")), content_type="application/json")


def _since_ms() -> float:
    """Since the request that is being answered came."""
    return round((time.monotonic() - arrived()) * 1000, 3)
