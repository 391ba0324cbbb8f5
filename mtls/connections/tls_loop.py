"""asyncio's event loop with TLS of our own: a subclass of its protocol, in which flaws are mended.

It leans on private names of asyncio, which `tests/unit/mtls/test_private_names.py` looks for.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import ssl
from asyncio import sslproto
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from telemetry import bugs

_log = logging.getLogger(__name__)


class _Transport(sslproto._SSLProtocolTransport):
    """asyncio's own, which says at once that a write has failed, and not in the loop's next turn."""

    def is_closing(self) -> bool:
        tls = self._ssl_protocol
        return self._closed or tls is None or tls._transport is None or tls._transport.is_closing()


class _Tls(sslproto.SSLProtocol):
    """asyncio's own, with flaws mended."""

    # It gives every connection a buffer of 256 KiB: thousands of idle ones would take gigabytes.
    max_size = 16 << 10  # bytes: a TLS record

    def _get_app_transport(self) -> sslproto._SSLProtocolTransport:
        if not self._app_transport_created:  # type: ignore[has-type]
            self._app_transport, self._app_transport_created = _Transport(self._loop, self), True
        return super()._get_app_transport()  # type: ignore[misc,no-any-return]

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        # It drops the alert that says why a handshake failed, and the client is left to guess.
        if handshake_exc is not None:
            self._process_outgoing()  # type: ignore[attr-defined]
        super()._on_handshake_complete(handshake_exc)

    # It closes as soon as the client has said that it sends no more, by TLS or by TCP, as some proxies do behind a
    # request; the answer to that request would be lost. So the protocol above says whether it still has one to give.
    _client_is_done = False
    _must_stay = False

    def _call_eof_received(self) -> None:
        if not self._client_is_done and self._app_protocol.eof_received():  # type: ignore[attr-defined]
            self._client_is_done = self._must_stay = True
        else:
            super()._call_eof_received()  # type: ignore[misc]

    def _start_shutdown(self) -> None:
        if self._must_stay:  # called once behind _call_eof_received
            self._must_stay = False
        else:
            super()._start_shutdown()

    def _do_shutdown(self) -> None:
        if not self._client_is_done:
            super()._do_shutdown()  # type: ignore[misc]
            return
        with suppress(ssl.SSLError):  # nothing more comes, its farewell perhaps neither
            self._sslobj.unwrap()  # type: ignore[attr-defined]
        self._process_outgoing()  # type: ignore[attr-defined]
        self._on_shutdown_complete(None)  # type: ignore[attr-defined]

    def _do_read(self) -> None:
        if not self._client_is_done:
            super()._do_read()  # type: ignore[misc]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if not self._client_is_done and self._state == sslproto.SSLProtocolState.WRAPPED:  # type: ignore[attr-defined]
            self._client_is_done = bool(self._app_protocol.eof_received())  # type: ignore[attr-defined]
        return True if self._client_is_done else super().eof_received()


class _Selector(selectors.DefaultSelector):
    """Says whether its loop sleeps in it."""

    asleep = False
    ready: Collection[object] = ()  # what that loop is to do next

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # In this order: what another thread adds from here on is seen below, or that thread sees that the loop sleeps.
        self.asleep = True
        try:
            return super().select(0 if self.ready else timeout)
        finally:
            self.asleep = False


class Loop(asyncio.SelectorEventLoop):
    """One whose TLS connections are such ones, and whose errors are reported as any others.

    Workers that have an answer wake it only when it sleeps. Under load it seldom does, and each waking would be three
    calls of the kernel, at each of which another thread takes over.
    """

    def __init__(self) -> None:
        self._sleep = _Selector()
        super().__init__(self._sleep)
        self._sleep.ready = self._ready  # type: ignore[attr-defined]
        self.set_exception_handler(lambda _, context: report(context["message"], context.get("exception")))

    def _write_to_self(self) -> None:
        if self._sleep.asleep:
            self._sleep.asleep = False
            super()._write_to_self()  # type: ignore[misc]

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        **options: Any,
    ) -> asyncio.Transport:
        tls = _Tls(self, protocol, sslcontext, waiter, **options)  # type: ignore[arg-type]
        self._make_socket_transport(rawsock, tls, extra=extra, server=server)  # type: ignore[attr-defined]
        return tls._app_transport


def report(what: str, error: object) -> None:
    """Log the type and the place of an error, whose text may quote data; lost connections are nothing to speak of."""
    if isinstance(error, OSError | web.RequestPayloadError | HttpProcessingError):
        _log.info("%s: %s", what, type(error).__name__)
    else:
        bugs.report(_log, what, error)
