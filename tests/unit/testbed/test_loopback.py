"""Ports for servers on loopback."""

from __future__ import annotations

import socket

import pytest

from testbed.network.loopback import LOOPBACK, free_port


def test_port_is_given_to_one_and_a_server_may_listen_on_it_again_and_again():
    """A server as asyncio, PostgreSQL and eventlet make it; a probe as another process makes it."""
    port = free_port()

    with socket.socket() as probe, pytest.raises(OSError, match="in use"):
        probe.bind((LOOPBACK, port))
    for _ in range(2):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((LOOPBACK, port))
            server.listen()
            socket.create_connection((LOOPBACK, port), timeout=1).close()


def test_nobody_answers_on_a_port_that_is_only_held():
    """Who connects too early is refused at once, as where nothing is."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, free_port()), timeout=1)
