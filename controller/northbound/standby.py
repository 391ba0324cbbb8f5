"""What a stand-by answers: who leads. Whoever wants anything else is sent to the leader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request

from controller import limits
from mtls.identity import Role
from mtls.serve import allow, error_body, new_app
from telemetry.metrics import CONTENT_TYPE, StandbyMetrics

LEADER = "/qkd/v1/leader"
_METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]


def make_app(leadership: Callable[[], Mapping[str, Any]]) -> Flask:
    """The application. `leadership`: see `Leadership.to_json`."""
    app = new_app("standby")
    figures = StandbyMetrics()

    @app.get(LEADER)
    @allow(Role.OPERATOR)
    def leader() -> dict[str, Any]:
        return {**leadership(), "standing": "standby"}  # one that is about to lead, too: it does not serve yet

    @app.get("/metrics")
    @allow(Role.OPERATOR)
    def metrics() -> Response:
        return Response(figures.page(leadership()["term"] or 0), content_type=CONTENT_TYPE)

    @app.route("/", methods=_METHODS)
    @app.route("/<path:_>", methods=_METHODS)
    @allow(Role.OPERATOR)
    def elsewhere(_: str = "") -> Response:
        found = leadership()
        if found["url"] is None or found["leader"] == found["name"]:
            answer = error_body(503, f"controller {found['name']} stands by, and nobody leads now: try again",
                                {"cause": "no_leader"})  # fmt: skip
            answer.headers["Retry-After"] = f"{limits.ANSWERED_S:.0f}"
            return answer
        text = f"controller {found['name']} stands by: {found['leader']} leads"
        answer = error_body(307, text, {"cause": "standby", "leader": found["leader"]})
        answer.headers["Location"] = found["url"] + request.full_path.removesuffix("?")
        return answer

    return app
