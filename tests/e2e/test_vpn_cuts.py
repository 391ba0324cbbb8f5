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
    under: dict[str, str | None] = dict.fromkeys("ab")
    turned = 0.0
    for event in events:
        node, key_id = event["node"], event["key_id"] if event["event"] == "tunnel_keyed" else None
        if node == "b":
            assert key_id is None or under["a"] in (None, key_id)
        elif key_id is not None:
            whole = event["mono"] < cut or turned > joined
            assert not whole or under["b"] in (None, under["a"])
            turned = event["mono"]
        under[node] = key_id


def under_one_key(run: Running, net: Testbed) -> bool:
    """Whether both ends are up and say that it is under the same key; of IPsec, whether it is so in their daemons."""
    there = ends(net)
    if states(net) != {"up"} or len({end["key_id"] for end in there}) > 1:
        return False
    if there[0]["kind"] != "ipsec":
        return True
    (name, *spis), (_, *others) = newest_child(run, "a"), newest_child(run, "b")
    return name.endswith(there[0]["key_id"]) and spis == others[::-1]


def newest_child(run: Running, node: str) -> tuple[str, bytes, bytes]:
    """By what charon of that node sends: the name of its IKE_SA, and SPIs, in and out, which mirror the other end's.

    The end that leads names an IKE_SA by its key.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(run.directory / "gateways" / node / "charon.vici"))
        found = [(name, sa) for sas in vici.Session(connection).list_sas() for name, sa in sas.items()]
    children = [
        (int(child["uniqueid"]), name, child["spi-in"], child["spi-out"])
        for name, sa in found for child in sa["child-sas"].values() if child["state"] == b"INSTALLED"
    ]  # fmt: skip
    _, *newest = max(children, default=(0, "", b"", b""))
    return tuple(newest)


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
