"""Private names of libraries that the server leans on: one that is gone is found here, before a connection finds it."""

from __future__ import annotations

import inspect
from asyncio import base_events, selector_events, sslproto

import pytest
from aiohttp import web

TLS = (
    "max_size", "_app_protocol", "_app_transport", "_app_transport_created", "_call_eof_received", "_do_read",
    "_do_shutdown", "_get_app_transport", "_loop", "_on_handshake_complete", "_on_shutdown_complete",
    "_process_outgoing", "_sslobj", "_start_shutdown", "_state", "_transport",
)  # fmt: skip
LOOP = "_make_socket_transport", "_make_ssl_transport", "_write_to_self"
NAMES = (
    *((sslproto.SSLProtocol, name) for name in TLS),
    *((selector_events.BaseSelectorEventLoop, name) for name in LOOP),
    (base_events.BaseEventLoop, "_ready"),
    (sslproto._SSLProtocolTransport, "_closed"),
    (sslproto._SSLProtocolTransport, "_ssl_protocol"),
    (web.RequestHandler, "_current_request"),
    (web.RequestHandler, "_messages"),
    (web.BaseRequest, "_version"),
)


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=lambda value: getattr(value, "__name__", value))
def test_library_has_the_private_name_that_we_lean_on(owner, name):
    """As a member of the class, or of its objects."""
    assert hasattr(owner, name) or f"self.{name} = " in inspect.getsource(owner)


def test_asyncio_asks_its_loop_for_a_tls_connection_as_it_did():
    """By the arguments that our loop understands, of which it passes those on that are the protocol's."""
    asked = inspect.signature(selector_events.BaseSelectorEventLoop._make_ssl_transport).parameters
    taken = inspect.signature(sslproto.SSLProtocol).parameters

    assert list(asked)[1:5] == ["rawsock", "protocol", "sslcontext", "waiter"]
    assert set(asked) - {"self", "rawsock", "protocol", "sslcontext", "waiter", "extra", "server"} <= set(taken)


def test_tls_of_others_in_this_process_is_asyncios_own():
    """No name of the library is replaced: a client in the same process has what it would have without us."""
    import mtls.server  # noqa: F401

    assert sslproto.SSLProtocol.__module__ == "asyncio.sslproto"
