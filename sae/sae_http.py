"""Routes of one application: for other applications, and for the operator. Decisions are in master.py and slave.py."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from documents.checks import Malformed, integer, mapping, number, sequence, uuid_text
from etsi.gs004 import qos
from etsi.sae_id import sae_id
from mtls.identity import Role
from mtls.serve import Problem, allow, caller, error_body, json_body, new_app
from sae import messages
from sae.application import Application
from sae.client import Failed
from sae.master import MAX_OPENING, Limits
from sae.slave import MAX_WAITING_KEYS

# Requests of one party that the workers of an application's server have at a time; more of it wait, and hold up no
# other one. An operator may open as many sessions as can be opened at a time, and look at them meanwhile.
REQUESTS_OF_ONE = MAX_OPENING + 8
THREADS = 2 * REQUESTS_OF_ONE + 8
_SESSION_MEMBERS = ("peer", "qos", "duration_s", "keys")


def make_app(application: Application) -> Flask:
    """The application on its port."""
    app = new_app("sae")

    @app.errorhandler(Failed)
    def on_failed(error: Failed) -> Response:
        # What a server further on said goes back as it is, but for 401, which would speak of our caller.
        status = 502 if error.status == 401 else error.status
        return error_body(status, str(error), error.facts | {"cause": error.cause})

    _add_peer_routes(app, application)
    _add_operator_routes(app, application)
    return app


def _add_peer_routes(app: Flask, application: Application) -> None:
    slave = application.slave

    def master() -> str:
        """The calling SAE, which must be another one of this network."""
        sae = caller().name
        if not application.is_peer(sae):
            raise Problem(401, "the SAE is not known here")
        return sae

    @app.post("/sae/v1/connections")
    @allow(Role.SAE)
    def ask_connection() -> dict[str, Any]:
        slave.accept(master(), qos(mapping(json_body(empty={}).get("qos", {}), "qos")))
        return {"slave_sae": application.id}

    @app.delete("/sae/v1/connections")
    @allow(Role.SAE)
    def end() -> tuple[str, int]:
        slave.ended(master())
        return "", 204

    @app.post("/sae/v1/keys")
    @allow(Role.SAE)
    def ask_key() -> tuple[str, int]:
        who, body = master(), json_body()
        given = sequence(body.get("key_ids"), "key_ids", longest=MAX_WAITING_KEYS)
        ids = [uuid_text(key_id, f"key_ids[{i}]") for i, key_id in enumerate(given)]
        if not ids or len(set(ids)) != len(ids):
            raise Malformed("key_ids", "at least one key ID, each once")
        slave.fetch(who, uuid_text(body.get("ksid"), "ksid"), ids)
        return "", 204

    @app.post("/sae/v1/messages")
    @allow(Role.SAE)
    def message() -> tuple[str, int]:
        slave.read(master(), messages.parse(json_body()))
        return "", 204


def _add_operator_routes(app: Flask, application: Application) -> None:
    @app.post("/sae/v1/sessions")
    @allow(Role.OPERATOR)
    def open_session() -> tuple[dict[str, Any], int]:
        body = json_body()
        for member in body:
            if member not in _SESSION_MEMBERS:
                raise Malformed(member, f"one of {', '.join(_SESSION_MEMBERS)}")
        peer = sae_id(body.get("peer"), "peer")
        if not application.is_peer(peer):
            raise Malformed("peer", "the ID of another SAE of this network")
        wanted = qos(mapping(body.get("qos", {}), "qos"))
        return application.master.open(peer, wanted, _limits(body)).to_json(), 201

    @app.get("/sae/v1/sessions")
    @allow(Role.OPERATOR)
    def sessions() -> dict[str, Any]:
        return {"sessions": application.sessions()}

    @app.delete("/sae/v1/sessions/<ksid>")
    @allow(Role.OPERATOR)
    def close_session(ksid: str) -> tuple[str, int]:
        ended = application.master.close(uuid_text(ksid, "ksid"))
        if ended is None:
            raise Problem(404, "no key session of this KSID with this master", ksid=ksid)
        return "", 204 if ended else 202  # a key may be under way for longer than the operator should wait


def _limits(body: dict[str, Any]) -> Limits:
    duration_s, keys = body.get("duration_s"), body.get("keys")
    return Limits(
        None if duration_s is None else number(duration_s, "duration_s", low=0, high=1e7),
        None if keys is None else integer(keys, "keys", low=1, high=1 << 31),
    )
