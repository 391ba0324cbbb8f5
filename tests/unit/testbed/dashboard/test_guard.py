"""Whom the page answers."""

from __future__ import annotations

import pytest

from testbed.dashboard.guard import policy, refusal

PORT = 8014
OWN = (b"host", b"127.0.0.1:8014")


@pytest.mark.parametrize("host", [b"127.0.0.1:8014", b"localhost:8014", b"LOCALHOST:8014"])
def test_its_own_address_is_answered(host):
    """By number and by name, which browsers may write as they like."""
    assert refusal([(b"Host", host)], "GET", PORT) is None


@pytest.mark.parametrize("host", [b"", b"127.0.0.1", b"127.0.0.1:80", b"evil.example:8014", b"127.0.0.1:8014.evil"])
def test_other_hosts_are_refused(host):
    """A name that somebody else makes point to the loopback is not the page's."""
    assert refusal([(b"host", host)], "GET", PORT) == "this page answers to its own address only"


def test_request_without_a_host_or_with_two_is_refused():
    """Neither says for sure whom it means."""
    assert refusal([], "GET", PORT)
    assert refusal([OWN, OWN], "GET", PORT)


@pytest.mark.parametrize("origin", [b"null", b"https://127.0.0.1:8014", b"http://127.0.0.1:8015", b"http://evil.example"])
def test_foreign_origins_are_refused(origin):
    """A page of another site, or of another program on this machine, drives nothing."""
    assert refusal([OWN, (b"origin", origin)], "POST", PORT) == "this page takes no requests from other pages"


def test_own_origin_is_let_in():
    """The page's own scripts say where they come from."""
    assert refusal([OWN, (b"origin", b"http://127.0.0.1:8014")], "POST", PORT) is None


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_methods_that_a_page_does_not_need_are_refused(method):
    """OPTIONS, too: there is nothing to negotiate with other origins."""
    assert refusal([OWN], method, PORT) == "method not allowed"


def test_policy_lets_a_browser_load_from_nowhere_else():
    """No rule of it names another host, nor any scheme as a whole."""
    rules = policy(PORT).decode().split("; ")

    assert rules[0] == "default-src 'none'"
    sources = {source for rule in rules for source in rule.split()[1:]}
    assert sources <= {
        "'none'", "'self'", "'unsafe-inline'", "'unsafe-eval'", "data:", "ws://127.0.0.1:8014", "ws://localhost:8014",
    }  # fmt: skip
