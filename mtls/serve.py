"""A Flask application behind mutual TLS: the caller's identity from its certificate, roles checked, errors as JSON."""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, ParamSpec, TypeVar

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from documents.checks import Malformed
from mtls import json_text
from mtls.identity import Identity, Role
from telemetry import bugs

P = ParamSpec("P")
R = TypeVar("R")

# Largest body of any interface is an 014 request with a few hundred key IDs; 1 MiB leaves room and bounds memory.
MAX_BODY_BYTES = 1 << 20
# Where the server puts who calls and when the request came (monotonic seconds); names of headers begin with HTTP_.
IDENTITY = "qkd.identity"
ARRIVED = "qkd.arrived"
# Where an application says how errors look; see error_answer.
ERRORS = "qkd.errors"
# Where an application puts whom to tell what became of its answer.
OUTCOME = "qkd.outcome"
_log = logging.getLogger(__name__)


class Problem(Exception):
    """An error answer: HTTP status, a sentence for people, facts for programs (GS QKD 014, clause 6.5)."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


class _Rule(Rule):
    """A route with the methods that it names: no HEAD wherever there is GET.

    HEAD would do all that GET does, but for showing it: a key would be used up.
    """

    def __init__(self, string: str, *, methods: Iterable[str] | None = None, **options: Any) -> None:
        named = {method.upper() for method in methods or ()}
        super().__init__(string, methods=named or None, **options)
        self.methods = named or None


def new_app(name: str) -> Flask:
    """A Flask application whose every error, the framework's too, is the JSON body of GS QKD 014, clause 6.5."""
    app = Flask(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_rule_class = _Rule  # type: ignore[assignment]  # of fewer parameters than its base names
    app.url_map.merge_slashes = False  # it would redirect, and no standard of ours knows redirections
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # it would answer callers of any role
    app.json.sort_keys = False  # type: ignore[attr-defined]  # documents keep the order of the standard's tables

    @app.errorhandler(Problem)
    def on_problem(problem: Problem) -> Response:
        return error_body(problem.status, problem.message, problem.details)

    @app.errorhandler(Malformed)
    def on_malformed(error: Malformed) -> Response:
        return error_body(400, str(error), error.details)

    @app.errorhandler(HTTPException)
    def on_http(error: HTTPException) -> Response:
        answer = error_body(error.code or 500, error.description or error.name, {})
        for key, value in error.get_headers():
            if key.lower() not in ("content-type", "content-length"):
                answer.headers[key] = value
        return answer

    @app.errorhandler(Exception)
    def on_bug(error: Exception) -> Response:
        bugs.report(_log, f"{request.method} {request.path}", error)
        if scarce := bugs.refused(error):
            return error_body(503, f"the machine of this server refuses: {scarce}", {"cause": "machine_refused"})
        return error_body(500, "internal error: a bug of this server, see its log", {"cause": "internal_error"})

    return app


def error_answer(path: str, problem: Problem) -> Response:
    """The answer to a request for `path` that never came to the application, in a form that others may replace.

    A part of the application that has error bodies of its own puts a function like this into `app.extensions[ERRORS]`.
    """
    del path
    return error_body(problem.status, problem.message, problem.details)


def error_body(status: int, message: str, details: dict[str, Any]) -> Response:
    """An answer with the standard's error document."""
    headers = {"WWW-Authenticate": "TLS-client-certificate"} if status == 401 else {}  # RFC 9110 asks for one
    return Response(error_document(message, details), status, headers, content_type="application/json")


def error_document(message: str, details: dict[str, Any]) -> bytes:
    """The standard's error document; `details` is an array of objects, one a fact."""
    body: dict[str, Any] = {"message": message}
    if details:
        body["details"] = [{key: value} for key, value in details.items()]
    return json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Called when an answer was written: `taken`, which must not wait for anything, or else `lost`, in a worker."""

    taken: Callable[[], None]
    lost: Callable[[], None]


def tell_outcome(taken: Callable[[], None], lost: Callable[[], None]) -> None:
    """Call one of them when the answer to the present request has been written, or could not be."""
    request.environ[OUTCOME] = Outcome(taken, lost)


def arrived() -> float:
    """When the request came: monotonic seconds."""
    return float(request.environ.get(ARRIVED) or time.monotonic())


def caller() -> Identity:
    """Who calls, from the certificate and nothing else. Problem 401 where the certificate does not say."""
    found = request.environ.get(IDENTITY)
    if not isinstance(found, Identity):
        raise Problem(401, "the client certificate names no party of this network")
    return found


def allow(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Only parties in one of `roles` may call this view; all others get 401 and the body says which may."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            who = caller()
            if who.role not in roles:
                raise Problem(401, f"not for role {who.role}", allowed_roles=[str(r) for r in roles])
            g.caller = who
            return view(*args, **kwargs)

        checked.allowed_roles = frozenset(roles)  # type: ignore[attr-defined]  # a test walks all routes
        return checked

    return decorate


def json_body(*, empty: dict[str, Any] | None = None) -> dict[str, Any]:
    """The request's JSON object, whatever the content type says. An empty body is `empty`, or Malformed."""
    data = request.get_data(cache=False)
    if not data and empty is not None:
        return empty
    try:
        # A byte order mark before it, which some libraries on Windows send, may be ignored (RFC 8259, section 8.1).
        value = json_text.loads(data, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate passes loads
    except (ValueError, RecursionError):
        text = f"a JSON object in UTF-8 (RFC 8259), of at most {json_text.MOST_PARTS} parts"
        raise Malformed("body", text) from None
    if not isinstance(value, dict):
        raise Malformed("body", "a JSON object")
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
