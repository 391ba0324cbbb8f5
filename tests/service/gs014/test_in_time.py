"""Whoever is away, a client is told so before it gives up."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from node.limits import ANSWER_S, KME_THREADS
from tests.support.gs014_client import Answer
from tests.support.waiting import GIVES_UP_S, until

MANY = KME_THREADS + 12  # of each kind: if they held the threads, the last would wait longer than a client does


def test_requests_are_answered_in_time_whoever_sleeps(kmes, alice, adam, carol, mallory):
    """A relay, the slave's node, the controller: each 503 comes before a client gives up, and names what is away.

    However many requests an application has under way over the relay that sleeps, and however many wait for the
    controller, those of others are served at once.
    """
    carl = kmes.saes["carl"]
    kmes.end_sessions((adam, mallory), (carl, adam))
    until(lambda: alice.get(carol.id).status == 200)
    asleep = kmes.stack.nodes["b"], kmes.ctl
    asked = {
        "relay_broken": lambda: alice.get(carol.id),
        "agent_unreachable": lambda: adam.get(mallory.id),
        "controller_unreachable": lambda: carl.get(adam.id),
    }

    def timed(request: Callable[[], Answer]) -> tuple[float, Answer]:
        began = time.monotonic()
        answer = request()
        return time.monotonic() - began, answer

    def register(_: int) -> tuple[float, Answer]:
        body = {"peer": mallory.id, "side": "master", "qos": {}}
        return timed(lambda: carl.call("POST", "/qkd/v1/key_sessions", body))

    for process in asleep:
        process.signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(asked) + MANY + MANY) as pool:
            answers = {cause: pool.submit(timed, request) for cause, request in asked.items()}
            alike = [pool.submit(timed, asked["relay_broken"]) for _ in range(MANY)]
            others = [*alike, *(pool.submit(register, i) for i in range(MANY))]
            at_once = [timed(lambda sae=sae: sae.call("GET", "/api/v1/openapi.json")) for sae in (adam, carol)]
    finally:
        for process in asleep:
            process.signal(signal.SIGCONT)

    # Of those of one session some wait for their turn all the time, and say so: whichever comes last.
    relayed = [answer.result()[1] for answer in (answers["relay_broken"], *alike)]
    assert any({"cause": "relay_broken"} in found.body["details"] for found in relayed)
    for cause, answer in answers.items():
        took_s, found = answer.result()
        assert found.status == 503
        assert cause == "relay_broken" or {"cause": cause} in found.body["details"]
        assert took_s < GIVES_UP_S
    assert {found.status for _, found in map(Future.result, others)} == {503}
    assert max(took_s for took_s, _ in map(Future.result, others)) < GIVES_UP_S
    assert [answer.status for _, answer in at_once] == [200, 200]
    assert max(took_s for took_s, _ in at_once) < ANSWER_S, "and not after those that wait"
    until(lambda: all(request().status == 200 for request in asked.values()))
