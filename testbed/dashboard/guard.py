"""Who may talk to the page: a browser that was pointed at this very address, and pages that came from it.

Other people's web pages, open in the same browser, can send requests to the loopback, too, and by a name that they
make point there they would even be let read the answers. What they cannot do is lie about Host and Origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_METHODS = frozenset({"GET", "HEAD", "POST"})
_NAMES = ("127.0.0.1", "localhost")


def refusal(headers: Iterable[tuple[bytes, bytes]], method: str, port: int) -> str | None:
    """Why a request is refused, None if it is not. PURE."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    hosts = {f"{name}:{port}".encode() for name in _NAMES}
    if len(found.get(b"host", ())) != 1 or found[b"host"][0].lower() not in hosts:
        return "this page answers to its own address only"
    if any(origin.lower() not in {b"http://" + host for host in hosts} for origin in found.get(b"origin", ())):
        return "this page takes no requests from other pages"
    return None if method in _METHODS else "method not allowed"


def policy(port: int) -> bytes:
    """What a browser may load and call from the page, and from where: nothing but the page's own address."""
    sockets = " ".join(f"ws://{name}:{port}" for name in _NAMES)
    # The library compiles its templates in the browser, hence eval; its first script and styles are in the page.
    rules = (
        "default-src 'none'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'", "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:", "font-src 'self' data:", f"connect-src 'self' {sockets}", "frame-ancestors 'none'",
        "base-uri 'none'", "form-action 'none'",
    )  # fmt: skip
    return "; ".join(rules).encode()


class Guard:
    """Lets through to `app` what may talk to the page at `port`, and adds to answers what browsers shall keep to."""

    def __init__(self, app: App, port: int) -> None:
        self._app = app
        self._port = port
        self._headers = [
            (b"content-security-policy", policy(port)),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection of ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        why = refusal(scope["headers"], scope.get("method", "GET"), self._port)
        if why is not None:
            await _refuse(scope["type"], why, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, send_on)


async def _refuse(kind: str, why: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode() + b"\n"})
