"""Where theory knows what comes of a load, virtual time agrees with it."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from decisions.ranges import promised_slots
from etsi.gs004 import QoS
from scenario.scenario import Scenario
from scenario.shape import Shape
from scenario.topology_description import Link, Node, Qc, Sae, Topology
from scenario.workload import Arrival
from simulation.engine import Simulation

SHAPE = Shape(delay_ms=0.0)


def pair(rate: int) -> Topology:
    """Two nodes and a QC that makes so many bytes a slot."""
    link = Link("ab", "a", "b", None, SHAPE, SHAPE, (Qc("ab/1", rate, rate),))
    return Topology("pair", "", (Node("a", "A", (0, 0)), Node("b", "B", (1, 0))), (link,), (), "a", "a")


def poisson(mean_gap_s: float, number: int, seed: str) -> list[float]:
    """Times at which things arrive by chance."""
    generator = random.Random(seed)
    return list(itertools.accumulate(generator.expovariate(1 / mean_gap_s) for _ in range(number)))


def erlang_b(servers: int, offered: float) -> float:
    """The share of calls that find all servers busy (A. K. Erlang, 1917)."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked


@pytest.mark.parametrize("offered", [5.0, 10.0, 15.0])
def test_declared_rates_on_one_qc_are_refused_as_calls_to_busy_lines_are(offered):
    """Ten sessions fit; they come by chance and stay by chance. Erlang's formula, within three standard errors."""
    number, mean_s = 4000, 100.0
    lengths = random.Random("lengths")
    arrivals = [
        Arrival(at_s, Sae(f"m{i}", "a"), Sae(f"s{i}", "b"), lengths.expovariate(1 / mean_s), QoS(8 * 40, 10.0))
        for i, at_s in enumerate(poisson(mean_s / offered, number, "calls"))
    ]

    result = Simulation(Scenario(pair(40), arrivals, {"admission": "reserve"})).run()

    expected = erlang_b(10, offered)
    # Calls that find the lines busy come in bunches: their number varies more than that of independent ones.
    error = 3 * math.sqrt(expected * (1 - expected) / number) * 2
    assert result.refused.total() / number == pytest.approx(expected, abs=error)
    assert result.failed_requests == 0


def m_d_1_n(load: float, places: int) -> float:
    """The share of customers that are lost at a server of fixed time of service with so many places, its own included.

    By the chain of the numbers that a departing customer leaves behind (L. Kleinrock, Queueing Systems 1, 5.5).
    """
    arrive = [math.exp(-load) * load**k / math.factorial(k) for k in range(places + 1)]
    left = [1.0]
    for n in range(places - 1):
        known = left[0] * arrive[n] + sum(left[k] * arrive[n - k + 1] for k in range(1, n + 1))
        left.append((left[n] - known) / arrive[0])
    idle = left[0] / sum(left[:places])
    return 1 - 1 / (idle + load)


@pytest.mark.parametrize("load", [0.7, 0.9, 1.1])
def test_requests_by_chance_are_short_as_often_as_customers_find_no_place(load):
    """A QC with a TTL is a server: what it lacks of being full is the work that waits.

    A key is eight slots' work, and the store holds five keys: so five have a place. A slot is an eighth of the work, so
    the agreement is within a percent of all requests.
    """
    ttl_slots, key_bytes, places, number = 50, 8, 5, 40_000
    assert promised_slots(ttl_slots) == key_bytes * places
    times = poisson(key_bytes / load, number, "requests")
    session = Arrival(0.0, Sae("m", "a"), Sae("s", "b"), None, QoS(8 * key_bytes, 10.0))

    simulation = Simulation(Scenario(pair(1), [session], {"ttl_slots": ttl_slots}), asks={0: times})
    result = simulation.run()

    assert result.failed_requests / number == pytest.approx(m_d_1_n(load, places), abs=0.01)
