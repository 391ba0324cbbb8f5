"""The model of a load in virtual time, against small cases that can be worked out by hand."""

from __future__ import annotations

import pytest

from etsi.gs004 import QoS
from scenario.shape import Shape
from scenario.topology_description import Link, Node, Qc, Topology
from testbed.experiments.planner.model import offer
from testbed.planning.plan import SaePlan
from testbed.planning.workload import Arrival, parse

WORKLOAD = {"name": "w", "applications": 1, "gap_s": {"constant": 1}, "length_s": {"constant": 1}}


def offered(links, sessions, *, rate, mode="basic", ttl_slots=1, **habits):
    """What becomes of sessions (master's node, slave's node, at, length) on QCs of `rate` bytes a slot."""
    nodes = sorted({n for link in links for n in link})
    network = Topology(
        name="t", description="", nodes=tuple(Node(n, n, (0.0, 0.0)) for n in nodes),
        links=tuple(Link(a + b, a, b, None, Shape(0), Shape(0), (Qc(a + b, rate, rate),)) for a, b in links), saes=(),
        controller_at=nodes[0], database_at=nodes[0],
    )  # fmt: skip
    saes = {n: SaePlan(n, n, n, 1) for n in nodes}
    arriving = [Arrival(at_s, saes[a], saes[b], length_s, QoS(128, 5)) for a, b, at_s, length_s in sessions]
    load = parse(WORKLOAD | habits, "w")
    return offer(network, arriving, load, mode=mode, ttl_slots=ttl_slots, keys_ahead=4, seed=1)


def test_every_session_asks_at_once_and_then_every_interval_of_its_length():
    found = offered(["ab"], [("a", "b", 0.0, 20.0), ("a", "b", 1.5, 20.1)], rate=100)

    assert (found.offered, found.requests, found.failed_requests) == (2, 4 + 5, 0)


def test_a_slot_gives_what_it_made_and_no_more():
    """47 bytes are two keys of 16."""
    found = offered(["ab"], [("a", "b", 0.0, 1.0)] * 3, rate=47)

    assert (found.requests, found.failed_requests, found.with_errors) == (3, 1, 1)


@pytest.mark.parametrize(("ttl_slots", "failed"), [(2, 0), (1, 1)])
def test_stock_lasts_for_the_ttl_less_what_the_nodes_keep_back(ttl_slots, failed):
    """Of two slots the older one may not be promised any more, of three it may: a slot's 8 bytes are half a key."""
    found = offered(["ab"], [("a", "b", 9.0, 1.0)], rate=8, ttl_slots=ttl_slots + 1)

    assert found.failed_requests == failed


@pytest.mark.parametrize(("mode", "least"), [("basic", 32), ("otp", 16), ("qkp", 80)])
def test_two_hops_cost_what_the_mode_declares(mode, least):
    """QKP makes four keys at once: one shared and four on the first link. With less it makes the one that is needed."""
    session = [("a", "c", 0.0, 16.0 if mode == "qkp" else 1.0)]
    enough, short = (offered(["ab", "bc"], session, rate=r, mode=mode) for r in (least, least - 1))

    assert enough.failed_requests == 0
    assert short.failed_requests == (0 if mode == "qkp" else 1)


def test_in_qkp_who_comes_first_makes_keys_ahead_and_lives_on_them():
    """Twelve slots of 6 bytes are 72: a batch of four keys, and nothing for who comes next; or two keys in BASIC."""
    sessions = [("a", "b", 0.0, 20.0)] * 2
    ahead, alone = (offered(["ab"], sessions, rate=6, mode=m, ttl_slots=15) for m in ("qkp", "basic"))

    assert (ahead.requests, ahead.failed_requests) == (5, 1)
    assert (alone.requests, alone.failed_requests) == (8, 0)


def test_a_session_ends_at_its_first_error_or_goes_on():
    sessions = [("a", "b", 0.0, 20.0)] * 2
    ends = offered(["ab"], sessions, rate=16)
    goes_on = offered(["ab"], sessions, rate=16, on_key_failure="go_on")

    assert (ends.requests, ends.failed_requests, ends.with_errors) == (5, 1, 1)
    assert (goes_on.requests, goes_on.failed_requests, goes_on.with_errors) == (8, 4, 1)


def test_an_application_that_keeps_the_pace_asks_once_an_interval_for_all_of_its_sessions():
    """Two sessions of 20 s: four turns in place of eight."""
    found = offered(["ab", "ac"], [("a", "b", 0.0, 20.0), ("a", "c", 0.0, 20.0)], rate=100, pace="application")

    assert found.requests == 4
