"""What was relayed waits to be claimed by the first node of its session, and not for long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from documents.secret import Secret
from node.limits import CLAIMS
from node.relaying.relayed_keys import Arrivals, Relayed
from tests.support.waiting import until

LIFE_S = 10.0


def relayed() -> Relayed:
    """A secret of session s."""
    return Relayed(Secret(b"secret"), "s")


def test_what_was_relayed_is_claimed_once_and_by_its_session_only():
    """Another session's first node gets nothing, nor does who comes second."""
    arrivals, brought = Arrivals(lambda: LIFE_S, time.monotonic), relayed()
    arrivals.put("r", brought)

    assert arrivals.claim("r", "t") is None
    assert arrivals.claim("r", "s") is brought
    assert arrivals.claim("r", "s") is None


def test_what_nobody_claims_in_time_is_erased():
    """Whatever the TTL is: no longer than a request may live."""
    now = 100.0
    arrivals, brought = Arrivals(lambda: LIFE_S, lambda: now), relayed()
    arrivals.put("r", brought)
    now += LIFE_S + 0.001

    assert arrivals.claim("r", "s") is None
    assert not len(brought.secret)


def test_who_claims_before_it_has_come_waits_for_it():
    """It is given out in the moment in which it comes."""
    arrivals, brought = Arrivals(lambda: LIFE_S, time.monotonic), relayed()
    with ThreadPoolExecutor(1) as pool:
        claimed = pool.submit(arrivals.claim, "r", "s", patiently=True)
        arrivals.put("r", brought)

        assert claimed.result() is brought


def test_when_too_many_wait_the_next_one_is_answered_at_once(monkeypatch):
    """Each holds a thread: no more than so many."""
    monkeypatch.setattr("node.relaying.relayed_keys.CLAIM_S", 60.0)
    arrivals = Arrivals(lambda: LIFE_S, time.monotonic)
    with ThreadPoolExecutor(CLAIMS) as pool:
        waiting = [pool.submit(arrivals.claim, f"r{i}", "s", patiently=True) for i in range(CLAIMS)]
        until(lambda: arrivals.waiting == CLAIMS)

        assert arrivals.claim("r", "s", patiently=True) is None

        for i in range(CLAIMS):
            arrivals.put(f"r{i}", relayed())
        assert all(claimed.result() for claimed in waiting)
