"""The shared database is gone, or sleeps: every client is told so before it gives up, and served again afterwards."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from telemetry import journal
from tests.support.gs014_client import Answer, Sae
from tests.support.waiting import GIVES_UP_S, until

from .conftest import Kmes

HEALS_S = 20.0  # 10, and as much for a busy machine
MANY = 8  # requests of a kind at a time

pytestmark = pytest.mark.usefixtures("still")


@contextmanager
def gone(kmes: Kmes) -> Iterator[None]:
    """Killed, as by a crash, and started again on what it left."""
    kmes.stack.postgres.kill()
    try:
        yield
    finally:
        kmes.stack.start_postgres()


@contextmanager
def asleep(kmes: Kmes) -> Iterator[None]:
    """It and all that serve for it: connections stand, and nothing comes."""

    first = kmes.stack.postgres.pid
    processes = [first, *(pid for task in Path(f"/proc/{first}/task").iterdir() for pid in _children(task))]

    def send(number: int) -> None:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)


def _children(task: Path) -> list[int]:
    return [int(pid) for pid in (task / "children").read_text().split()]


def timed(request: Callable[[], Answer]) -> tuple[float, Answer]:
    """How long an answer took, and it."""
    began = time.monotonic()
    answer = request()
    return time.monotonic() - began, answer


def lost(kmes: Kmes) -> int:
    """How many allocations node a says that it lost, as the database did not answer."""
    told = journal.read(kmes.stack.directory / "a" / "journal.jsonl", "lost")
    return sum(event["cause"] == "database_unreachable" for event in told)


@pytest.mark.parametrize("away", [gone, asleep])
def test_requests_are_refused_in_time_while_the_database_is_away(kmes, alice, bob, carol, away):
    """Keys over one hop and over two, status, keys by their IDs, many at a time: 503, and the cause.

    What a database that is gone was asked for is not consumed; what one that sleeps was asked for counts as lost, as it
    may do it when it wakes. Then keys flow again, and one that was handed out to its master before waits for its slave.
    """
    given = alice.get(bob.id)
    assert given.status == 200
    before, lost_before = {s.id: alice.stored(s.id) for s in (bob, carol)}, lost(kmes)
    asked: list[Callable[[], Answer]] = [
        lambda: alice.get(bob.id),
        lambda: alice.get(carol.id),
        lambda: alice.call("GET", f"/api/v1/keys/{bob.id}/status"),
        lambda: bob.fetch(alice.id, str(uuid.uuid4())),
    ]

    with away(kmes), ThreadPoolExecutor((len(asked) + 1) * MANY) as pool:
        fetches = [pool.submit(bob.fetch, alice.id, *given.ids) for _ in range(MANY)]
        answers = list(pool.map(timed, asked * MANY))

    refusal = {"cause": "database_unreachable"}
    assert [answer for _, answer in answers if answer.status != 503 or refusal not in answer.body["details"]] == []
    assert max(took_s for took_s, _ in answers) < GIVES_UP_S
    allowed = 0 if away is gone else lost(kmes) - lost_before
    until(lambda: all(_stored(alice, slave) >= before[slave.id] - allowed for slave in (bob, carol)), HEALS_S)
    until(lambda: alice.get(bob.id).status == alice.get(carol.id).status == 200, HEALS_S)
    got = [fetch.result() for fetch in fetches if fetch.result().status == 200]  # if it waited at its node already
    got = got or [bob.fetch(alice.id, *given.ids)]
    assert [answer.keys for answer in got] == [given.keys]


def _stored(master: Sae, slave: Sae) -> int:
    answer = master.call("GET", f"/api/v1/keys/{slave.id}/status")
    return answer.body["stored_key_count"] if answer.status == 200 else 0
