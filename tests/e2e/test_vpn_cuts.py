"""Tunnels while a fibre is cut in the middle of a rotation: no two keys at their two ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import vici

from telemetry import journal
from testbed import Testbed
from tests.support.running import Running
from tests.support.tunnels import EVERY_S, ends, lost, reaches, states
from tests.support.waiting import until


@pytest.fixture
def run(row: Running) -> Running:
    """The row."""
    return row


def told(run: Running, since: float, *names: str) -> list[dict]:
    """What the gateways of a and b have told of these events since then, by the monotonic clock, in order."""
    events = [e for node in "ab" for e in journal.read(run.directory / "gateways" / node / "journal.jsonl")]
    return sorted((e for e in events if e["event"] in names and e["mono"] >= since), key=lambda e: e["mono"])


@contextmanager
def cut_in_mid_rotation(run: Running, net: Testbed, having: str) -> Iterator[None]:
    """The fibre is cut as soon as the gateway of `having` has the next key.

    When b has it, a does not know yet; when a has it, too, the handshake begins. Over the slow fibre either takes
    longer than the cut. Once it is joined, the ends have two more keys, to each of which both of them turn.
    """
    until(lambda: states(net) == {"up"})  # the end that follows is up a little later
    began = time.monotonic()
    net.change_fibre("a-b", delay_ms=50)
    until(lambda: states(net) == {"up"})
    now, who = time.monotonic(), f"sae:{run.config(f'vpn-{having}')['sae']['saes'][0]['id']}"
    until(lambda: who in {event["who"] for event in told(run, now, "key")})
    with net.broken("cut", "a", "b"):
        cut = time.monotonic()
        yield
    joined = time.monotonic()
    until(lambda: sum(e["node"] == "a" for e in told(run, joined, "tunnel_keyed")) >= 2 and under_one_key(run, net))
    assert_never_apart(told(run, began, "tunnel_keyed", "tunnel_closed"), cut, joined)


def assert_never_apart(events: list[dict], cut: float, joined: float) -> None:
    """The end that follows, b, turns to no key but that of a; over a whole fibre before a has another one."""
    at_a: str | None = None
    last_of_a: str | None = None  # also when its time is over, as of one that waits long for the next
    at_b: str | None = None
    turned = 0.0
    for event in events:
        key_id = event["key_id"] if event["event"] == "tunnel_keyed" else None
        if event["node"] == "b":
            assert key_id is None or at_a in (None, key_id)
            at_b = key_id
            continue
        at_a = key_id
        if key_id is not None:
            whole = event["mono"] < cut or turned > joined
            assert not whole or at_b in (None, last_of_a)
            last_of_a, turned = key_id, event["mono"]


def under_one_key(run: Running, net: Testbed) -> bool:
    """Whether both ends are up and say that it is under the same key; of IPsec, whether it is so in their daemons."""
    there = ends(net)
    if states(net) != {"up"} or len({end["key_id"] for end in there}) > 1:
        return False
    if there[0]["kind"] != "ipsec":
        return True
    mirrored = {spis[::-1] for _, spis in children(run, "b")}
    return any(name.endswith(there[0]["key_id"]) and spis in mirrored for name, spis in children(run, "a"))


def children(run: Running, node: str) -> list[tuple[str, tuple[bytes, bytes]]]:
    """Of each CHILD_SA of that node: the name of its IKE_SA, and SPIs, in and out, which mirror the other end's.

    The end that leads names an IKE_SA by its key.
    """
    found: list[tuple[str, tuple[bytes, bytes]]] = []
    for directory in (".", "charon2"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(run.directory / "gateways" / node / directory / "charon.vici"))
            sas = list(vici.Session(connection).list_sas())
        found += [
            (name, (child["spi-in"], child["spi-out"]))
            for each in sas for name, sa in each.items() for child in sa["child-sas"].values()
            if child["state"] == b"INSTALLED"
        ]  # fmt: skip
    return found


@pytest.mark.parametrize("kind", ["wireguard", pytest.param("ipsec", marks=pytest.mark.slow)])
def test_fibre_cut_in_mid_rotation_closes_a_tunnel_until_it_is_joined(run, net, kind):
    """At both ends; then it is under a key that both have."""
    began, opened = time.monotonic(), net.open_tunnel("a", "b", kind=kind, every_s=EVERY_S)
    with cut_in_mid_rotation(run, net, "a"):  # the operator's own way to b is cut as well
        until(lambda: {event["node"] for event in told(run, began, "tunnel_closed")} == {"a", "b"})

    reaches(run, "a", opened["to"])


@pytest.mark.parametrize(
    ("kind", "having"),
    [("ipsec", "a"), *(pytest.param(*p, marks=pytest.mark.slow) for p in (("ipsec", "b"), ("wireguard", "a")))],
)
def test_fibre_cut_for_a_moment_in_mid_rotation_leaves_no_two_keys(run, net, kind, having):
    """The handshake is made all the same, or another one: the tunnel lives on, or closes until then."""
    opened = net.open_tunnel("a", "b", kind=kind, every_s=2 * EVERY_S)
    with cut_in_mid_rotation(run, net, having):
        assert lost(run, "a", opened["to"], 1) == 1

    reaches(run, "a", opened["to"])


@pytest.mark.parametrize("kind", ["wireguard", pytest.param("ipsec", marks=pytest.mark.slow)])
def test_end_that_turned_alone_is_met_by_the_other_one_under_a_later_key(run, net, kind):
    """The fibre is cut once the end that leads has turned to a key, before the other end has heard that it is to."""
    net.open_tunnel("a", "b", kind=kind, every_s=2 * EVERY_S)
    net.change_fibre("a-b", delay_ms=200)
    until(lambda: states(net) == {"up"})

    def turned_alone() -> bool:
        """A busy machine may be too slow for that."""
        now = time.monotonic()
        until(lambda: "a" in {event["node"] for event in told(run, now, "tunnel_keyed")})
        with net.broken("cut", "a", "b"):
            until(lambda: told(run, now, "key_error"))
        ahead, behind = ({e["key_id"] for e in told(run, now, "tunnel_keyed") if e["node"] == n} for n in "ab")
        until(lambda: under_one_key(run, net))
        return bool(ahead - behind)

    assert until(turned_alone, 150)
