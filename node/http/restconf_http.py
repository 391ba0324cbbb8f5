"""Routes of RESTCONF (RFC 8040) on the agent's port. What a request means is decided in etsi/restconf*.py.

JSON only. Errors are RFC 8040's, the framework's, too. Each resource says in Allow what can be done to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from typing import Any

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.datastructures import ETags
from werkzeug.exceptions import HTTPException
from werkzeug.http import http_date

from documents.checks import Malformed
from etsi import gs015, gs015_testbed
from ietf import restconf_server
from ietf.preconditions import ANY, Preconditions
from ietf.restconf import MEDIA_TYPE, Target, error_document, parse_target, status_of
from ietf.restconf_edit import allowed, why_never
from ietf.restconf_read import CONFIG, Query, query, read
from ietf.restconf_server import Module, Stream
from ietf.yang import Refusal
from mtls.events import CONTENT_TYPE as EVENT_STREAM
from mtls.events import answer_with
from mtls.identity import Role
from mtls.serve import ERRORS, Problem, allow, caller, error_answer, json_body
from node.associations.registrations import Registrations
from node.tree.datastore import Datastore
from node.tree.leader import LaterTerm, Leader
from node.tree.model import MODEL, why_not
from node.tree.notifications import DESCRIPTIONS, Streams
from telemetry import bugs

_log = logging.getLogger(__name__)
_NUMBER = re.compile("[0-9]{1,18}")
_ROOT = "/restconf"
_ACCEPTED = (MEDIA_TYPE, "application/json")  # the second one is wrong and widely sent
_YANG = "application/yang"
_FILES = {gs015_testbed.MODULE: "qkd-testbed.yang"}  # modules whose text is ours to give
_MODULES = [
    Module(gs015.MODULE, gs015.REVISION, gs015.NAMESPACE),
    Module(gs015.TYPES, gs015.REVISION, gs015.TYPES_NAMESPACE),
    Module("ietf-inet-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-inet-types", implemented=False),
    Module("ietf-yang-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-yang-types", implemented=False),
    Module(gs015_testbed.MODULE, gs015_testbed.REVISION, gs015_testbed.NAMESPACE, file=True),
]
_STREAMS = [Stream(name, text) for name, text in DESCRIPTIONS.items()]
_OPERATION = f"operations/{gs015_testbed.APPLICATION_ANSWER}"
_API_MODEL, _API = restconf_server.api([gs015_testbed.APPLICATION_ANSWER])
_WHOLE_MODEL = {**MODEL, **restconf_server.MODEL}
_READS, _EDITS = ["GET", "HEAD", "OPTIONS"], ["PUT", "POST", "PATCH", "DELETE"]
_ERRORS = {
    400: ("protocol", "malformed-message"), 401: ("protocol", "access-denied"), 404: ("protocol", "invalid-value"),
    405: ("protocol", "operation-not-supported"), 413: ("protocol", "too-big"), 503: ("application", "resource-denied"),
}  # fmt: skip


class _NotAllowed(Refusal):
    """The request's method is none of `methods`, which are those that the resource has."""

    def __init__(self, methods: Sequence[str], target: Target | None) -> None:
        text, path = "this resource has no such method", ""
        if target is not None and request.method in _EDITS:
            path = target.path
            text = why_never(request.method, target) or why_not(request.method, target) or text
        super().__init__("operation-not-supported", text, path=path, status=405)
        self.methods = methods


def make_blueprint(
    datastore: Datastore, live: Callable[[], dict[str, Any]], streams: Streams, registrations: Registrations,
    leader: Leader,
) -> Blueprint:
    """All resources below /restconf; `live` gives configuration and state together."""
    routes = Blueprint("restconf", "node.restconf")
    _add_errors(routes)

    @routes.route("/.well-known/host-meta", methods=["GET", "HEAD"])
    @_open
    def host_meta() -> Response:
        link = f'<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0"><Link rel="restconf" href="{_ROOT}"/></XRD>'
        return Response(link, content_type="application/xrd+xml")

    @routes.post(f"{_ROOT}/{_OPERATION}")
    @allow(Role.CONTROLLER)
    def application_answer() -> Response:
        with _heeding(leader):
            version = registrations.on_answer(gs015_testbed.read_answer(_body()), caller().name)
        return _json({f"{gs015_testbed.MODULE}:output": {"version": str(version)}})

    @routes.get(f"{_ROOT}/streams/<name>/json")
    @allow(Role.CONTROLLER, Role.OPERATOR)
    def stream(name: str) -> Response:
        if name not in DESCRIPTIONS:
            raise Refusal("invalid-value", "there is no such stream", status=404)
        if request.args:
            raise Refusal("invalid-value", "neither filters nor replay are offered: expected no query")
        if not _accepts(EVENT_STREAM):
            raise Refusal("invalid-value", f"expected Accept: {EVENT_STREAM}", status=406)
        with contextlib.nullcontext() if _term() is None else _heeding(leader):  # anybody may listen
            return answer_with(streams.listen(name, controller=_controller()))

    @routes.route(_ROOT, methods=[*_READS, *_EDITS])
    @routes.route(f"{_ROOT}/", methods=[*_READS, *_EDITS])
    @routes.route(f"{_ROOT}/<path:_>", methods=[*_READS, *_EDITS])
    @_open
    def resource(_: str = "") -> Response:
        path = _path()
        methods, target = _methods(path)
        if request.method == "OPTIONS":
            accepts = {"Accept-Patch": MEDIA_TYPE} if "PATCH" in methods else {}
            return Response(b"", 200, {"Allow": ", ".join(methods), **accepts})
        if request.method not in methods:
            raise _NotAllowed(methods, target)
        if path.startswith("schemas/"):
            return _schema(path.removeprefix("schemas/"))
        if path == "data" or path.startswith("data/"):
            assert target is not None  # noqa: S101 - as _methods gives it
            return _read(target) if request.method in _READS else _edit(target)
        return _json(read(_API_MODEL, _API, parse_target(_API_MODEL, f"{restconf_server.RESTCONF}/{path}"), _query()))

    @routes.before_app_request
    def refuse_unknown_methods() -> Response | None:
        # The framework asks no blueprint about a request that fits none of its routes.
        if request.routing_exception is None or not _is_ours(request.path):
            return None
        try:
            return _on_refusal(_NotAllowed(*_methods(_path())))
        except Refusal as refusal:
            return _on_refusal(refusal)

    def _read(target: Target) -> Response:
        asked = _query()
        root = f"{request.host_url.rstrip('/')}{_ROOT}"
        state = restconf_server.state(_MODULES, _STREAMS, root=root)
        changed_at, tag = datastore.changed_at, datastore.version
        answer = _json(read(_WHOLE_MODEL, live() | state, target, asked))
        if asked.content != CONFIG:
            # State changes without the configuration, which alone has versions and a time of its last change.
            tag += f"-{hashlib.sha256(answer.get_data()).hexdigest()[:16]}"
        answer.headers |= {"ETag": f'"{tag}"', "Last-Modified": http_date(changed_at)}
        _preconditions().check(tag, changed_at, exists=True)
        if _known(tag, int(changed_at) if asked.content == CONFIG else None):
            return Response(b"", 304, {n: answer.headers[n] for n in ("ETag", "Last-Modified", "Cache-Control")})
        return answer

    def _edit(target: Target) -> Response:
        if request.args:
            raise Refusal("invalid-value", "expected no query with an edit")
        body = None if request.method == "DELETE" else _body()
        with _heeding(leader):
            edited = datastore.edit(request.method, target, body, _preconditions())
        headers = {"ETag": f'"{datastore.version}"', "Last-Modified": http_date(datastore.changed_at)}
        if edited.created:
            headers["Location"] = f"{request.host_url.rstrip('/')}{_ROOT}/data/{edited.created}"
            return Response(b"", 201, headers)
        return Response(b"", 204, headers)

    return routes


def _methods(path: str) -> tuple[list[str], Target | None]:
    """What can be done to the resource at `path` below the root, and what that names in the data model; Refusal 404."""
    if path == "data" or path.startswith("data/"):
        target = parse_target(_WHOLE_MODEL, path.removeprefix("data"))
        return [*_READS, *(m for m in allowed(target) if why_not(m, target) is None)], target
    if path == _OPERATION:
        return ["OPTIONS", "POST"], None
    if path in {f"streams/{name}/json" for name in DESCRIPTIONS}:
        return ["GET", "OPTIONS"], None
    if path not in {f"schemas/{name}" for name in _FILES}:
        parse_target(_API_MODEL, f"{restconf_server.RESTCONF}/{path}")
    return _READS, None


def _schema(name: str) -> Response:
    """The text of a YANG module (clause 3.7)."""
    if not _accepts(_YANG):
        raise Refusal("invalid-value", f"expected Accept: {_YANG}", status=406)
    return Response(resources.files("etsi").joinpath(_FILES[name]).read_bytes(), content_type=_YANG)


def _query() -> Query:
    return query(list(request.args.items(multi=True)))


def _preconditions() -> Preconditions:
    """Those of the request's header; HTTP dates that are none are ignored, as RFC 9110 says.

    If-None-Match of one that reads is none of them: what the client has already is no mistake of its own.
    """
    since = request.if_unmodified_since
    return Preconditions(
        match=_tags(request.if_match) if "If-Match" in request.headers else None,
        none_match=() if request.method in _READS else _tags(request.if_none_match, weak=True),
        unmodified_since=None if since is None else int(since.timestamp()),
    )


def _controller() -> str | None:
    """The name of the controller that asks, if it is one."""
    return caller().name if caller().role == Role.CONTROLLER else None


def _heeding(leader: Leader) -> AbstractContextManager[None]:
    """For the block whoever asks may say what is to be done; LaterTerm."""
    name = _controller()
    return contextlib.nullcontext() if name is None else leader.heeding(name, _term())


def _term() -> int | None:
    """In which term a controller speaks, if it speaks of any."""
    given = request.headers.get(gs015_testbed.TERM_HEADER)
    if given is None:
        return None
    if not _NUMBER.fullmatch(given):
        raise Refusal("invalid-value", f"expected {gs015_testbed.TERM_HEADER} to be a number of at most 18 digits")
    return int(given)


def _tags(header: ETags, *, weak: bool = False) -> set[str]:
    return {ANY} if header.star_tag else header.as_set(include_weak=weak)


def _known(tag: str, changed_at: int | None) -> bool:
    """Whether the client has what it would be given: by its tag, or else by its age, where that is known."""
    if request.if_none_match:
        return request.if_none_match.contains_weak(tag)
    since = request.if_modified_since
    return changed_at is not None and since is not None and changed_at <= since.timestamp()


def _open(view: Callable[..., Any]) -> Any:
    """For those who may see and change everything: controllers and the operator."""
    return allow(Role.CONTROLLER, Role.OPERATOR)(view)


def _is_ours(path: str) -> bool:
    return path == _ROOT or path.startswith(f"{_ROOT}/")


def _path() -> str:
    """The path below the root, still encoded, without a slash at its end."""
    raw = str(request.environ.get("REQUEST_URI", request.path)).partition("?")[0]
    return (raw if _ROOT in raw else request.path).partition(_ROOT)[2].removeprefix("/").rstrip("/")


def _accepts(kind: str) -> bool:
    accept = request.accept_mimetypes
    return not accept or bool(accept[kind])


def _json(document: dict[str, Any]) -> Response:
    kind = next((k for k in _ACCEPTED if _accepts(k)), None)
    if kind is None:
        raise Refusal("invalid-value", f"expected Accept: {MEDIA_TYPE}", status=406)
    answer = Response(json.dumps(document), content_type=kind)
    answer.headers["Cache-Control"] = "no-cache"
    return answer


def _body() -> dict[str, Any]:
    if request.mimetype not in _ACCEPTED:
        raise Refusal("invalid-value", f"expected Content-Type: {MEDIA_TYPE}", status=415)
    try:
        return json_body()
    except Malformed as error:
        raise Refusal("malformed-message", str(error)) from None


def _refused(status: int, document: dict[str, Any]) -> Response:
    headers = {"WWW-Authenticate": "TLS-client-certificate"} if status == 401 else {}
    return Response(json.dumps(document), status, headers, content_type=MEDIA_TYPE)


def _on_refusal(refusal: Refusal) -> Response:
    document = error_document(refusal.tag, refusal.message, refusal.path)
    if isinstance(refusal, LaterTerm):
        document["ietf-restconf:errors"]["error"][0]["error-info"] = {gs015_testbed.LATER_TERM: str(refusal.term)}
    answer = _refused(status_of(refusal), document)
    if isinstance(refusal, _NotAllowed):
        answer.headers["Allow"] = ", ".join(refusal.methods)
    return answer


def _on_problem(problem: Problem) -> Response:
    kind, tag = _ERRORS.get(problem.status, ("application", "operation-failed"))
    return _refused(problem.status, error_document(tag, problem.message, kind=kind))


def _add_errors(routes: Blueprint) -> None:
    routes.errorhandler(Refusal)(_on_refusal)

    routes.errorhandler(Problem)(_on_problem)

    @routes.record_once
    def have_the_server_do_so_too(state: BlueprintSetupState) -> None:
        state.app.extensions[ERRORS] = lambda path, problem: (
            _on_problem(problem) if _is_ours(path) else error_answer(path, problem)
        )

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
        if scarce := bugs.refused(error):
            return _on_problem(Problem(503, f"the machine of this node refuses: {scarce}"))
        return _refused(500, error_document("operation-failed", "internal error"))
