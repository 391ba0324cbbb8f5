"""What passes between an HTTP request and a WSGI application (PEP 3333)."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

from aiohttp import web

from mtls import deadline
from mtls.identity import identity_from_uris
from mtls.serve import IDENTITY, MAX_BODY_BYTES, Problem
from telemetry import trace

_TARGET = re.compile(r"(?:https?://[^/?#]+)?(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE)
# Where the server puts the monotonic moment by which the answer must be there; None: it may take any time.
DEADLINE = "qkd.deadline"
_TRACEPARENT = "HTTP_" + trace.HEADER.upper()
_log = logging.getLogger(__name__)
# Status line without the version, header fields, body.
Answer = tuple[str, list[tuple[str, str]], bytes]


def base_environ(host: str, port: int) -> dict[str, Any]:
    """What the WSGI environments of all requests to this server have in common."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "HTTPS": "on",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def connection_environ(base: dict[str, Any], transport: asyncio.BaseTransport) -> dict[str, Any]:
    """What the WSGI environments of all requests on that connection have in common."""
    peer = transport.get_extra_info("peername") or ("", 0)
    environ = base | {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])}
    names = transport.get_extra_info("peercert").get("subjectAltName", ())
    try:
        environ[IDENTITY] = identity_from_uris(value for kind, value in names if kind == "URI")
    except ValueError as error:
        _log.info("certificate from %s: %s", peer[0], error)
    return environ


def request_environ(request: web.BaseRequest, body: bytes) -> dict[str, Any]:
    """What the WSGI environment says of this request. Problem 400 if its target has no path."""
    path, query = _target(request.raw_path)
    return _headers(request.raw_headers) | {
        "REQUEST_METHOD": request.method,
        "PATH_INFO": path,
        "REQUEST_URI": request.raw_path,  # still encoded: a slash in a value is not one between segments
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{request.version.major}.{request.version.minor}",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The header fields by their names in WSGI: HTTP_ before each keeps them apart from all else there is."""
    environ: dict[str, Any] = {}
    for name, value in raw:
        field = name.decode("latin-1").upper()
        # The body is no longer in chunks; and X_Y would pass for X-Y, as there are no hyphens in WSGI's names.
        if "_" in field or field in ("CONTENT-LENGTH", "TRANSFER-ENCODING"):
            continue
        key = "CONTENT_TYPE" if field == "CONTENT-TYPE" else "HTTP_" + field.replace("-", "_")
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


def _target(raw: str) -> tuple[str, str]:
    """PATH_INFO and QUERY_STRING of a request target, which may be a whole URL. Problem 400 if it has no path."""
    found = _TARGET.fullmatch(raw)
    if found is None:
        raise Problem(400, "the request target is no path")
    path = (found[1] or "/").encode("utf-8", "surrogateescape")
    query = (found[2] or "").encode("utf-8", "surrogateescape")
    return unquote_to_bytes(path).decode("latin-1"), query.decode("latin-1")


async def read(request: web.BaseRequest) -> bytes:
    """The body, however it comes. Problem 413 if it is too long."""
    body = bytearray()
    while part := await request.content.readany():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise too_long()
    return bytes(body)


def too_long() -> Problem:
    """What to say of a body that is."""
    return Problem(413, f"a body has at most {MAX_BODY_BYTES} bytes", max_bytes=MAX_BODY_BYTES)


def call(app: WSGIApplication, environ: dict[str, Any]) -> Answer:
    """Run the application, in a worker, as part of the caller's trace and before its deadline."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None, /) -> Callable[[bytes], object]:
        started.append((status, headers))
        return written.append

    with trace.received(environ.get(_TRACEPARENT)), deadline.until(environ.get(DEADLINE)):
        body = _collected(app(environ, start_response))
    status, headers = started[-1]
    return status, headers, b"".join(written) + body


def _collected(answer: Iterable[bytes]) -> bytes:
    """The whole of the application's answer: here, and only here, it is collected before any of it is sent."""
    try:
        return b"".join(answer)
    finally:
        getattr(answer, "close", lambda: None)()  # PEP 3333: if it has one
