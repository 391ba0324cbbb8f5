"""Modes that take other paths, set while clients ask for keys: four real nodes on a ring, with the real controller."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtls.identity import Identity, Role
from telemetry import journal
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.gs014_client import Sae
from tests.support.waiting import until

LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c"), ("c-d/1", "c", "d"), ("a-d/1", "a", "d")]
HOMES = {"alice": "a", "bob": "b", "carol": "c"}
SLAVES = ("bob", "carol")  # of alice: at the next node, and at the opposite one
PAUSE_S = 0.02


class Clients:
    """Alice wants a key for each slave again and again, which it fetches; what went wrong is noted."""

    def __init__(self, directory: Path) -> None:
        self.stack, self.ids = Stack(directory), {name: str(uuid.uuid4()) for name in HOMES}
        self.wrong: list[object] = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(slave,)) for slave in SLAVES]

    def start(self) -> None:
        """Bring all up, with plenty of key material, and a first key for each slave."""
        self.stack.start_postgres()
        self.stack.start_controller()
        self.stack.start_nodes(LINKS, {self.ids[name]: node for name, node in HOMES.items()})
        self.stack.start_qcs(LINKS, low=40_000, high=40_000, slot_s=0.5)
        self.saes = {
            name: Sae(self.ids[name], self.stack.kme(node), self.stack.issue(Role.SAE, self.ids[name]))
            for name, node in HOMES.items()
        }
        self.operator = self.stack.caller(Role.OPERATOR, "operator")
        until(lambda: all(self.saes["alice"].get(self.ids[slave]).status == 200 for slave in SLAVES))
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End all."""
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        self.stack.stop()

    def set_mode(self, mode: str) -> None:
        """As an operator does, who hears when all nodes have it."""
        url, to = f"https://{LOOPBACK}:{self.stack.controller_port}/qkd/v1/parameters", Identity(Role.CONTROLLER, "ctl")
        assert self.operator.request("PATCH", url, to=to, body={"mode": mode}).ok

    def served(self, slave: str, mode: str) -> int:
        """How many keys alice has had so far for that slave in that mode."""
        events = journal.read(self.stack.directory / "a" / "journal.jsonl", "key_delivered")
        return sum((e["method"], e["slave_sae"], e["mode"]) == ("enc_keys", self.ids[slave], mode) for e in events)

    def _ask(self, slave: str) -> None:
        while not self.over.wait(PAUSE_S):
            given = self.saes["alice"].get(self.ids[slave])
            if given.status != 200:
                self.wrong.append((slave, given.body))
                continue
            fetched = self.saes[slave].fetch(self.ids["alice"], *given.ids)
            if fetched.body != given.body:
                self.wrong.append((slave, fetched.status))


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    """At work in mode `basic`."""
    found = Clients(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_no_request_fails_when_a_mode_is_set_that_takes_other_paths(clients):
    """Requests wait until the controller has led their session over as many; both sides get the same keys."""
    for mode in ("paths-2", "basic", "paths-2", "parallel", "paths-2", "qkp"):
        before = {slave: clients.served(slave, mode) for slave in SLAVES}
        clients.set_mode(mode)
        for slave in SLAVES:
            until(lambda m=mode, s=slave, least=before[slave] + 5: clients.served(s, m) >= least)
    assert clients.wrong == []


def test_requests_wait_for_no_paths_that_there_are_not(clients):
    """The controller says that it finds none: then they are refused, which names how many there are."""
    clients.set_mode("paths-3")
    until(lambda: {name for name, *_ in clients.wrong} == set(SLAVES))
    details = [{k: v for entry in body["details"] for k, v in entry.items()} for _, body in clients.wrong]

    assert {(d["cause"], d["needed"], d["paths"]) for d in details} == {("too_few_paths", 3, 1)}
    before = {slave: clients.served(slave, "basic") for slave in SLAVES}
    clients.set_mode("basic")
    for slave in SLAVES:
        until(lambda s=slave: clients.served(s, "basic") > before[s])
