"""Answers as they are written: in which version, with which header fields, in which pieces."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import HttpVersion10, HttpVersion11, web

from mtls.serve import Outcome, Problem

_PIECE_BYTES = 64 << 10
_OURS = frozenset({"connection", "content-length", "keep-alive", "server", "transfer-encoding"})


def check_version(request: web.BaseRequest) -> None:
    """Problem 505 for a version of HTTP that is not served."""
    if request._version not in (HttpVersion10, HttpVersion11):
        request._version = HttpVersion11  # the answer would bear it; `version` would keep what it was at first sight
        raise Problem(505, "expected HTTP/1.1")


class Response(web.Response):
    """Written in pieces: asyncio's TLS takes any length in one go and does not say that the client takes none of it."""

    outcome: Outcome | None = None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all but the headers, which `prepare` has written."""
        body = self.body
        if not isinstance(body, bytes) or len(body) <= _PIECE_BYTES:
            await super().write_eof(data)
            return
        for start in range(0, len(body), _PIECE_BYTES):
            await self.write(memoryview(body)[start : start + _PIECE_BYTES])
        await web.StreamResponse.write_eof(self)


def response_of(status: str, headers: Iterable[tuple[str, str]], body: bytes) -> Response:
    """The answer of a WSGI application; which connection it goes over is the server's business."""
    code, _, reason = status.partition(" ")
    kept = [(name, value) for name, value in headers if name.lower() not in _OURS]
    kept.append(("Server", "qkd"))  # or aiohttp names itself and its version
    return Response(status=int(code), reason=reason, headers=kept, body=body)
