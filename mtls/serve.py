"""A Flask application behind mutual TLS: the caller's identity from its certificate, roles checked, errors as JSON.

cheroot shakes hands in the thread that accepts, so that one silent client holds up everybody. Here a new
connection waits in the selector until its first byte has come, and the worker that reads the request shakes hands.
"""

from __future__ import annotations

import functools
import json
import logging
import ssl
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

from cheroot import server as cheroot_server
from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from etsi.errors import Malformed
from mtls.credentials import Credentials
from mtls.identity import Identity, NotIdentified, Role, identity_from_uris

P = ParamSpec("P")
R = TypeVar("R")

# Largest body of any interface is an 014 request with a few hundred key IDs; 1 MiB leaves room and bounds memory.
MAX_BODY_BYTES = 1 << 20
_IDENTITY = "qkd.identity"
_log = logging.getLogger(__name__)


class Problem(Exception):
    """An error answer: HTTP status, a sentence for people, facts for programs (GS QKD 014, clause 6.5)."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def new_app(name: str) -> Flask:
    """A Flask application whose every error, the framework's too, is the JSON body of GS QKD 014, clause 6.5."""
    app = Flask(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # it would answer callers of any role
    app.json.sort_keys = False  # type: ignore[attr-defined]  # documents keep the order of the standard's tables

    @app.before_request
    def refuse_head() -> None:
        # Flask answers HEAD where there is GET, by doing all that GET does: a key would be used up and not shown.
        if request.method == "HEAD":
            raise Problem(405, "HEAD is not offered")

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
        # The type and the place only: an exception's text may quote the data it was raised about.
        where = "".join(traceback.format_tb(error.__traceback__))
        _log.error("unexpected %s in %s %s\n%s", type(error).__name__, request.method, request.path, where)
        return error_body(500, "internal error", {})

    return app


def error_body(status: int, message: str, details: dict[str, Any]) -> Response:
    """The standard's error document; `details` is an array of objects, one a fact."""
    body: dict[str, Any] = {"message": message}
    if details:
        body["details"] = [{key: value} for key, value in details.items()]
    headers = {"WWW-Authenticate": "TLS-client-certificate"} if status == 401 else {}  # RFC 9110 asks for one
    return Response(json.dumps(body), status, headers, content_type="application/json")


def caller() -> Identity:
    """Who calls, from the certificate and nothing else. Problem 401 where the certificate does not say."""
    found = request.environ.get(_IDENTITY)
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
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate passes loads
    except (ValueError, RecursionError):
        raise Malformed("body", "a JSON object in UTF-8 (RFC 8259)") from None
    if not isinstance(value, dict):
        raise Malformed("body", "a JSON object")
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


class _LazyTls(BuiltinSSLAdapter):
    """Wraps without shaking hands; `_Connection` does that in the worker."""

    def __init__(self, context: ssl.SSLContext) -> None:
        # The parent's __init__ would load certificates a second time, only to describe them in CGI variables.
        self._context = context

    def wrap(self, sock: Any) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}


class _Connection(cheroot_server.HTTPConnection):
    shaken = False

    def communicate(self) -> bool:
        if not self.shaken and not self._shake_hands():
            return False
        return bool(super().communicate())

    def _shake_hands(self) -> bool:
        try:
            self.socket.do_handshake()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: closed meanwhile
            _log.info("handshake with %s failed: %s", self.remote_addr, type(error).__name__)
            return False
        self.ssl_env = {"wsgi.url_scheme": "https", "HTTPS": "on"}
        names = self.socket.getpeercert().get("subjectAltName", ())
        try:
            self.ssl_env[_IDENTITY] = identity_from_uris(value for kind, value in names if kind == "URI")
        except NotIdentified as error:
            _log.info("certificate from %s: %s", self.remote_addr, error)
        self.shaken = True
        return True


class _Server(wsgi.Server):
    ConnectionClass = _Connection
    _connections: Any  # cheroot's selector loop

    def process_conn(self, conn: Any) -> None:
        if getattr(conn, "seen", False):
            super().process_conn(conn)
        else:
            conn.seen = True
            self._connections.put(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002 - see on_bug
        _log.log(level, "%s", msg)


class Server:
    """`app` served on host:port over mutual TLS by `threads` workers, from `start` until `stop`."""

    def __init__(
        self, app: Flask, host: str, port: int, credentials: Credentials, *, threads: int = 16, timeout_s: int = 10
    ) -> None:
        self._server = _Server((host, port), app, numthreads=threads, request_queue_size=256, timeout=timeout_s)
        self._server.ssl_adapter = _LazyTls(credentials.server_context())
        self._server.max_request_header_size = 64 << 10
        self._server.max_request_body_size = MAX_BODY_BYTES
        self._thread = threading.Thread(target=self._server.serve, name=f"https-{port}", daemon=True)

    @property
    def port(self) -> int:
        """The port bound, which differs from the one asked for if that was 0."""
        return int(self._server.bind_addr[1])

    def start(self) -> None:
        """Bind and serve in a thread. OSError if the address cannot be bound."""
        self._server.prepare()
        self._thread.start()

    def stop(self) -> None:
        """End the workers and close the socket."""
        self._server.stop()
        self._thread.join(timeout=5)
