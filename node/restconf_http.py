"""Routes of RESTCONF (RFC 8040) on the agent's port. What a request means is decided in etsi/restconf.py.

JSON only. Errors are RFC 8040's, the framework's, too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from etsi import gs015, gs015_testbed
from etsi.errors import Malformed
from etsi.restconf import MEDIA_TYPE, Target, error_document, parse_target, query, read, status_of
from etsi.yang import Refusal
from mtls.events import CONTENT_TYPE as EVENT_STREAM
from mtls.events import answer_with
from mtls.identity import Role
from mtls.serve import Problem, allow, caller, json_body
from node.datastore import Datastore
from node.model import MODEL
from node.registrations import Registrations
from node.streams import DESCRIPTIONS, Streams
from telemetry import bugs

_log = logging.getLogger(__name__)
_DATA = "/restconf/data"
_ACCEPTED = (MEDIA_TYPE, "application/json")  # the second one is wrong and widely sent
_LIBRARY = "ietf-yang-library:modules-state"
_MONITORING = "ietf-restconf-monitoring:restconf-state"
_LIBRARY_REVISION = "2016-06-21"
_CAPABILITIES = [
    "urn:ietf:params:restconf:capability:defaults:1.0?basic-mode=explicit",
    "urn:ietf:params:restconf:capability:depth:1.0",
]
_MODULES = [
    (gs015.MODULE, gs015.REVISION, gs015.NAMESPACE, "implement"),
    (gs015.TYPES, gs015.REVISION, gs015.TYPES_NAMESPACE, "implement"),
    ("ietf-inet-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-inet-types", "import"),
    ("ietf-yang-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-yang-types", "import"),
    (gs015_testbed.MODULE, gs015_testbed.REVISION, gs015_testbed.NAMESPACE, "implement"),
]
_EDITS = ("PUT", "POST", "PATCH", "DELETE")
_ERRORS = {
    400: ("protocol", "malformed-message"), 401: ("protocol", "access-denied"), 404: ("protocol", "invalid-value"),
    405: ("protocol", "operation-not-supported"), 413: ("protocol", "too-big"), 503: ("application", "resource-denied"),
}  # fmt: skip


def make_blueprint(
    datastore: Datastore, live: Callable[[], dict[str, Any]], streams: Streams, registrations: Registrations
) -> Blueprint:
    """All resources below /restconf; `live` gives configuration and state together."""
    routes = Blueprint("restconf", "node.restconf")
    _add_errors(routes)

    @routes.route("/.well-known/host-meta", methods=["GET", "HEAD"])
    @_open
    def host_meta() -> Response:
        link = '<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0"><Link rel="restconf" href="/restconf"/></XRD>'
        return Response(link, content_type="application/xrd+xml")

    @routes.route("/restconf", methods=["GET", "HEAD"])
    @_open
    def root() -> Response:
        api = {"data": {}, "operations": {}, "yang-library-version": _LIBRARY_REVISION}
        return _json({"ietf-restconf:restconf": api})

    @routes.route("/restconf/yang-library-version", methods=["GET", "HEAD"])
    @_open
    def library_version() -> Response:
        return _json({"ietf-restconf:yang-library-version": _LIBRARY_REVISION})

    @routes.route("/restconf/operations", methods=["GET", "HEAD"])
    @_open
    def operations() -> Response:
        name = gs015_testbed.APPLICATION_ANSWER
        return _json({"ietf-restconf:operations": {name: f"/restconf/operations/{name}"}})

    @routes.post(f"/restconf/operations/{gs015_testbed.APPLICATION_ANSWER}")
    @allow(Role.CONTROLLER)
    def application_answer() -> tuple[str, int]:
        registrations.on_answer(gs015_testbed.read_answer(_body()))
        return "", 204

    @routes.route(f"{_DATA}/{_LIBRARY}", methods=["GET", "HEAD"])
    @_open
    def library() -> Response:
        names = ("name", "revision", "namespace", "conformance-type")
        modules = [dict(zip(names, module, strict=True)) for module in _MODULES]
        return _json({_LIBRARY: {"module-set-id": gs015_testbed.REVISION, "module": modules}})

    @routes.route(f"{_DATA}/{_MONITORING}", methods=["GET", "HEAD"])
    @routes.route(f"{_DATA}/{_MONITORING}/streams", methods=["GET", "HEAD"])
    @_open
    def monitoring() -> Response:
        found = [
            {
                "name": name, "description": text,
                "access": [{"encoding": "json", "location": f"{request.host_url}restconf/streams/{name}/json"}],
            }
            for name, text in DESCRIPTIONS.items()
        ]  # fmt: skip
        if request.path.endswith("/streams"):
            return _json({"ietf-restconf-monitoring:streams": {"stream": found}})
        return _json({_MONITORING: {"capabilities": {"capability": _CAPABILITIES}, "streams": {"stream": found}}})

    @routes.get("/restconf/streams/<name>/json")
    @allow(Role.CONTROLLER, Role.OPERATOR)
    def stream(name: str) -> Response:
        if name not in DESCRIPTIONS:
            raise Refusal("invalid-value", "there is no such stream", status=404)
        if request.args:
            raise Refusal("invalid-value", "neither filters nor replay are offered: expected no query")
        if not _accepts(EVENT_STREAM):
            raise Refusal("invalid-value", f"expected Accept: {EVENT_STREAM}", status=406)
        return answer_with(streams.listen(name, controller=caller().role == Role.CONTROLLER))

    @routes.route(_DATA, methods=["GET", "HEAD", "OPTIONS", *_EDITS])
    @routes.route(f"{_DATA}/", methods=["GET", "HEAD", "OPTIONS", *_EDITS])
    @routes.route(f"{_DATA}/<path:_>", methods=["GET", "HEAD", "OPTIONS", *_EDITS])
    @_open
    def data(_: str = "") -> Response:
        target = parse_target(MODEL, _path())
        if request.method == "OPTIONS":
            return _options(target)
        if request.method in ("GET", "HEAD"):
            content, depth = query(list(request.args.items(multi=True)))
            etag = datastore.etag
            return _json(read(MODEL, live(), target, content=content, depth=depth), {"ETag": etag})
        if request.args:
            raise Refusal("invalid-value", "expected no query with an edit")
        body = None if request.method == "DELETE" else _body()
        edited = datastore.edit(request.method, target, body, if_match=request.headers.get("If-Match"))
        headers = {"ETag": datastore.etag}
        if edited.created:
            headers["Location"] = f"{request.host_url.rstrip('/')}{_DATA}/{edited.created}"
            return Response(b"", 201, headers)
        return Response(b"", 204, headers)

    @routes.route("/restconf/<path:_>", methods=["GET", "HEAD", "OPTIONS", *_EDITS])
    @_open
    def nothing(_: str) -> Response:
        raise Refusal("invalid-value", "there is no such resource", status=404)

    return routes


def _open(view: Callable[..., Any]) -> Any:
    """For those who may see and change everything: controllers and the operator. HEAD is as harmless as GET."""
    checked = allow(Role.CONTROLLER, Role.OPERATOR)(view)
    checked.head_is_harmless = True  # type: ignore[attr-defined]
    return checked


def _path() -> str:
    """The path below data, still encoded."""
    raw = str(request.environ.get("REQUEST_URI", request.path)).partition("?")[0]
    found = raw.partition(_DATA)[2]
    return found if raw.find(_DATA) >= 0 else request.path.partition(_DATA)[2]


def _accepts(kind: str) -> bool:
    accept = request.accept_mimetypes
    return not accept or bool(accept[kind])


def _json(document: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    kind = next((k for k in _ACCEPTED if _accepts(k)), None)
    if kind is None:
        raise Refusal("invalid-value", f"expected Accept: {MEDIA_TYPE}", status=406)
    answer = Response(json.dumps(document), content_type=kind, headers=headers)
    answer.headers["Cache-Control"] = "no-cache"
    return answer


def _body() -> dict[str, Any]:
    if request.mimetype not in _ACCEPTED:
        raise Refusal("invalid-value", f"expected Content-Type: {MEDIA_TYPE}", status=415)
    try:
        return json_body()
    except Malformed as error:
        raise Refusal("malformed-message", str(error)) from None


def _options(target: Target) -> Response:
    methods = ["GET", "HEAD", "OPTIONS"]
    if not target.steps:
        methods += ["PATCH"]
    elif target.node.config:
        methods += _EDITS
    headers = {"Allow": ", ".join(methods)} | ({"Accept-Patch": MEDIA_TYPE} if "PATCH" in methods else {})
    return Response(b"", 200, headers)


def _refused(status: int, document: dict[str, Any]) -> Response:
    headers = {"WWW-Authenticate": "TLS-client-certificate"} if status == 401 else {}
    return Response(json.dumps(document), status, headers, content_type=MEDIA_TYPE)


def _add_errors(routes: Blueprint) -> None:
    @routes.errorhandler(Refusal)
    def on_refusal(refusal: Refusal) -> Response:
        return _refused(status_of(refusal), error_document(refusal.tag, refusal.message, refusal.path))

    @routes.errorhandler(Problem)
    def on_problem(problem: Problem) -> Response:
        kind, tag = _ERRORS.get(problem.status, ("application", "operation-failed"))
        return _refused(problem.status, error_document(tag, problem.message, kind=kind))

    @routes.errorhandler(HTTPException)
    def on_http(error: HTTPException) -> Response:
        kind, tag = _ERRORS.get(error.code or 500, ("protocol", "operation-failed"))
        answer = _refused(error.code or 500, error_document(tag, error.description or error.name, kind=kind))
        for key, value in error.get_headers():
            if key.lower() == "allow":
                answer.headers[key] = value
        return answer

    @routes.errorhandler(Exception)
    def on_bug(error: Exception) -> Response:
        bugs.report(_log, f"{request.method} {request.path}", error)
        return _refused(500, error_document("operation-failed", "internal error"))
