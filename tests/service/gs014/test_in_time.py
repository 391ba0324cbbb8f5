"""Whoever is away, a client is told so before it gives up."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

from node.limits import ANSWER_S

from .conftest import wait_until

BUSY_MACHINE_S = 1.0


def test_requests_are_answered_in_time_whoever_sleeps(kmes, alice, adam, carol, mallory):
    """A relay, the slave's node, the controller: each 503 comes within seconds, and names what is away."""
    carl = kmes.saes["carl"]
    wait_until(lambda: alice.get(carol.id).status == 200)
    asleep = kmes.stack.nodes["b"], kmes.ctl
    asked = {
        "relay_broken": lambda: alice.get(carol.id),
        "agent_unreachable": lambda: adam.get(mallory.id),
        "controller_unreachable": lambda: carl.get(adam.id),
    }

    def ask(request) -> tuple[float, int, list]:
        began = time.monotonic()
        answer = request()
        return time.monotonic() - began, answer.status, answer.body["details"]

    for process in asleep:
        process.signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = dict(zip(asked, pool.map(ask, asked.values()), strict=True))
    finally:
        for process in asleep:
            process.signal(signal.SIGCONT)

    for cause, (took_s, status, details) in answers.items():
        assert status == 503
        assert {"cause": cause} in details
        assert took_s < ANSWER_S + BUSY_MACHINE_S
    wait_until(lambda: all(request().status == 200 for request in asked.values()))
