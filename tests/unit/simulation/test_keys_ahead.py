"""Keys made ahead by a session's own rate of requests, beside a fixed number of them: `--keys-ahead auto`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from decisions.modes import AUTO
from decisions.ranges import promised_slots
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.workload import arrivals
from scenario.workload import load as load_workload
from simulation.engine import Simulation
from simulation.sessions import Witness

ROOT = Path(__file__).resolve().parents[3]
POLIQI = load("poliqi", ROOT / "topologies")
SEEDS = range(10)
PROMISED_S = promised_slots(15)


@dataclass
class Pools(Witness):
    """How long keys wait, in bytes times seconds: until they are handed out, are too old, or their session ends."""

    waiting: float = 0.0
    made_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def served(self, session, now_s, _, number):
        pool = self.made_s[session.number]
        while pool and pool[0] <= now_s - PROMISED_S:
            self.waiting += PROMISED_S * session.key_bytes
            pool.pop(0)
        if number:
            pool += [now_s] * (number - 1)
        else:
            self.waiting += (now_s - pool.pop(0)) * session.key_bytes

    def ended(self, session, now_s):
        waited = (min(PROMISED_S, now_s - at_s) for at_s in self.made_s.pop(session.number, ()))
        self.waiting += sum(waited) * session.key_bytes


@dataclass
class Seen:
    """Of all seeds."""

    hits: int = 0
    waiting: float = 0.0
    expired: int = 0
    errors: int = 0


def seen(workload: str, keys_ahead: int) -> Seen:
    """In QKP without admission."""
    found, offered = Seen(), load_workload(workload, ROOT / "workloads")
    for seed in SEEDS:
        sessions = arrivals(offered, POLIQI.saes, seed)
        parameters = {"mode": "qkp", "keys_ahead": keys_ahead, "admission": "none"}
        simulation = Simulation(Scenario(POLIQI, sessions, parameters, on_key_failure="go_on", seed=seed))
        pools = simulation.witness = Pools()
        result = simulation.run()
        found.hits += result.from_pool
        found.waiting += pools.waiting
        found.expired += result.expired
        found.errors += result.failed_requests
    return found


@pytest.mark.parametrize("workload", ["low", "paper", "closest"])
def test_as_many_requests_find_a_key_in_the_pool_as_with_sixteen_and_hardly_a_key_is_made_for_nobody(workload):
    """Nor are there more key errors, under any load."""
    own, sixteen = seen(workload, AUTO), seen(workload, 16)

    assert own.hits >= 0.99 * sixteen.hits
    assert own.expired <= 0.5 * sixteen.expired
    assert own.errors <= sixteen.errors
    assert own.waiting / own.hits <= 0.2 * sixteen.waiting / sixteen.hits


def test_a_fifth_of_the_bytes_wait_where_there_is_material_for_sixteen_keys_at_once():
    """Under a load that the network carries; else QCs are short of sixteen, and single keys are made."""
    assert seen("low", AUTO).waiting <= 0.2 * seen("low", 16).waiting
