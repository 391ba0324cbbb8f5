"""Routes of a gateway: for other gateways, and for the operator. Decisions are in gateway.py and tunnel.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response

from decisions.tunnels import terms
from documents.checks import Malformed, integer, mapping, uuid_text
from etsi.sae_id import sae_id
from mtls.identity import Role
from mtls.serve import Problem, allow, caller, error_body, json_body, new_app
from sae.client import Failed
from sae.vpn.gateway import Gateway

REQUESTS_OF_ONE = 4
THREADS = 24


def make_app(gateway: Gateway) -> Flask:
    """The gateway on its port."""
    app = new_app("gateway")

    @app.errorhandler(Failed)
    def on_failed(error: Failed) -> Response:
        status = 502 if error.status == 401 else error.status  # which would speak of our caller
        return error_body(status, str(error), error.facts | {"cause": error.cause})

    def peer() -> str:
        """The calling SAE, which must be another gateway of this network."""
        sae = caller().name
        if not gateway.is_peer(sae):
            raise Problem(401, "the SAE is no gateway of this network")
        return sae

    @app.put("/vpn/v1/far_end")
    @allow(Role.SAE)
    def follow() -> dict[str, Any]:
        who, body = peer(), json_body()
        return {"offer": gateway.follow(who, terms(body), mapping(body.get("offer"), "offer"))}

    @app.post("/vpn/v1/far_end/keys")
    @allow(Role.SAE)
    def load() -> dict[str, int]:
        tunnel, body = gateway.led_by(peer()), json_body()
        return {"way": tunnel.load(_key_id(body), integer(body.get("way"), "way", low=0, high=1))}

    @app.post("/vpn/v1/far_end/turns")
    @allow(Role.SAE)
    def turn() -> tuple[str, int]:
        gateway.led_by(peer()).turn(_key_id(json_body()))
        return "", 204

    @app.delete("/vpn/v1/far_end")
    @allow(Role.SAE)
    def ended() -> tuple[str, int]:
        gateway.ended(peer())
        return "", 204

    @app.post("/vpn/v1/tunnels")
    @allow(Role.OPERATOR)
    def open_tunnel() -> tuple[dict[str, Any], int]:
        body = json_body()
        other = sae_id(body.get("peer"), "peer")
        if not gateway.is_peer(other):
            raise Malformed("peer", "the ID of another gateway of this network")
        return gateway.open(other, terms(body)), 201

    @app.get("/vpn/v1/tunnels")
    @allow(Role.OPERATOR)
    def tunnels() -> dict[str, Any]:
        return {"tunnels": gateway.tunnels()}

    @app.delete("/vpn/v1/tunnels/<peer_id>")
    @allow(Role.OPERATOR)
    def close_tunnel(peer_id: str) -> tuple[str, int]:
        if not gateway.is_peer(peer_id) or not gateway.close(peer_id):
            raise Problem(404, "there is no tunnel with that gateway")
        return "", 204

    return app


def _key_id(body: Mapping[str, Any]) -> str:
    return uuid_text(body.get("key_id"), "key_id")
