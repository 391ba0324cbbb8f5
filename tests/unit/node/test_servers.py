"""In which order a node asks the servers of which one takes writes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from node.limits import DATABASE_SILENT_S
from node.material.connections import Servers, _Connection

URL = "host=one.x,two.x hostaddr=10.0.0.1,10.0.0.2 port=5432 dbname=qkd target_session_attrs=read-write"
ONE = {"host": "one.x", "hostaddr": "10.0.0.1", "port": "5432"}
TWO = {"host": "two.x", "hostaddr": "10.0.0.2", "port": "5432"}


def test_servers_are_asked_as_the_url_names_them_until_one_takes_writes():
    """From then on that one comes first."""
    servers = Servers(URL)
    assert servers.are_several
    assert servers.to_ask(0.0) == [ONE, TWO]

    servers.took_writes(TWO)

    assert servers.to_ask(0.0) == [TWO, ONE]


def test_silent_server_is_left_out_for_a_moment_and_comes_last_then():
    """So that the other one, which may take over, is asked often."""
    servers = Servers(URL)

    servers.was_silent("10.0.0.1", now=100.0)

    assert servers.to_ask(100.0 + DATABASE_SILENT_S / 2) == [TWO]
    assert servers.to_ask(100.0 + DATABASE_SILENT_S) == [TWO, ONE]


def test_where_all_are_silent_all_are_asked():
    """One of them may be back."""
    servers = Servers(URL)
    for address in ("10.0.0.1", "10.0.0.2"):
        servers.was_silent(address, now=100.0)

    assert servers.to_ask(100.0) == [ONE, TWO]


def test_single_server_is_asked_whatever_it_did():
    """There is no choice. It may have no address yet."""
    servers = Servers("postgresql://me@db.example/tests")
    servers.was_silent("db.example", now=100.0)

    assert not servers.are_several
    assert servers.to_ask(100.0) == [{"host": "db.example"}]


def test_server_that_was_silent_is_in_doubt_until_it_takes_writes():
    """Whether somebody is there is tried before it is waited for; of a single one nothing else is to be had."""
    servers = Servers(URL)
    assert not servers.doubts(ONE)

    servers.was_silent("10.0.0.1", now=100.0)
    assert (servers.doubts(ONE), servers.doubts(TWO)) == (True, False)
    servers.took_writes(ONE)
    assert not servers.doubts(ONE)

    single = Servers("postgresql://me@db.example/tests")
    single.was_silent("db.example", now=100.0)
    assert not single.doubts({"host": "db.example"})


def test_server_in_doubt_keeps_nobody_from_the_other_one_for_long(monkeypatch):
    """Nobody is there, as no packet comes back from a host that is cut off: the next one is asked at once."""
    asked = []

    def connect(*_: object, **options: object) -> None:
        asked.append(options["hostaddr"])
        raise psycopg.OperationalError("takes no writes")

    monkeypatch.setattr(psycopg.Connection, "connect", connect)
    monkeypatch.setattr("node.material.connections.DATABASE_CONNECT_S", 0.0)
    with silent() as port, socket.create_server(("127.0.0.2", port)):
        servers = Servers(f"hostaddr=127.0.0.1,127.0.0.2 port={port} dbname=qkd")
        for address in ("127.0.0.1", "127.0.0.2"):
            servers.was_silent(address, now=time.monotonic() - DATABASE_SILENT_S)
        with pytest.raises(psycopg.OperationalError, match="takes no writes"):
            _Connection.connect("", servers=servers, knock_s=0.05)

    assert asked == ["127.0.0.2"]
    assert [place["hostaddr"] for place in servers.to_ask(time.monotonic())] == ["127.0.0.2"]


@contextmanager
def silent() -> Iterator[int]:
    """A port of 127.0.0.1 at which no packet of a new caller is answered: its queue is full."""
    with socket.socket() as full, contextlib.ExitStack() as callers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        yield full.getsockname()[1]
