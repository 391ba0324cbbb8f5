"""In which order a node asks the servers of which one takes writes."""

from __future__ import annotations

from node.limits import DATABASE_SILENT_S
from node.material.connections import Servers

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
