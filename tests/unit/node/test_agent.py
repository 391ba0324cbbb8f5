"""The SDN agent's decisions where real networks seldom get to: a slave that gives up late, a store that refuses."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from documents.secret import Secret
from etsi.gs004 import QoS
from mtls.events import Feed
from node import limits
from node.agent.agent import Agent
from node.agent.key_sessions import KeySessions
from node.agent.reporting import Reporting
from node.associations.ended_sessions import Ends
from node.associations.implicit import ImplicitSessions
from node.associations.registrations import Registrations
from node.associations.sessions import Sessions
from node.config import Current, Parameters
from node.material.key_store import KeyStore
from node.material.quantum_module import QuantumModule
from node.serving.requested_bytes import Requested
from node.tree.datastore import Datastore
from node.tree.notifications import EXTENDED, Streams
from node.tree.performance import Performance
from node.waiting_limits import HalfOpen, Places
from telemetry.journal import Journal
from tests.support import open_session
from tests.support.open_session import KSID, MASTER, SLAVE

ANOTHER = "88888888-0000-4000-8000-000000000000"


class Disk(KeyStore):
    """A local database that is not read while its disk is full."""

    full = False

    @property
    def counted(self) -> int:
        """How far it has counted."""
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        return super().counted


class Node:
    """The slave's node, with all that its agent decides by; the test is the KME and the shared database."""

    def __init__(self, directory: Path) -> None:
        config = open_session.config(directory, "b", "a")
        self.store = Disk(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.datastore = Datastore(config, self.store)
        sessions = Sessions(config, self.datastore, self.store)
        self.streams = Streams()
        registrations = Registrations("b", sessions, self.streams)
        openings = Places(limits.OPENINGS, limits.OPENINGS_PER_SAE)
        implicit = ImplicitSessions("b", sessions, registrations, nodes=config.nodes, caller=None, openings=openings)
        self.kme = SimpleNamespace(
            on_hand_out=self._on_hand_out, end_session=lambda _: None, collect=lambda: None, settle_losses=lambda: None
        )
        self.counted: list[int] = []
        self.while_counting: Callable[[], None] = lambda: None
        self.shared = SimpleNamespace(
            on_other_server=lambda _: None, enter=lambda _: ("server", 0), report=lambda *_: {}, count=self._count
        )
        self.blocks = QuantumModule(directory / "blocks.sock", {"q": Secret(b"")}, self.store)
        journal, performance = Journal(directory / "journal.jsonl", "node:b"), Performance(self.store.held)
        ends = Ends(self.store, self.streams, registrations)
        self.key_sessions = KeySessions(
            config, datastore=self.datastore, sessions=sessions, implicit=implicit, registrations=registrations,
            ends=ends, openings=openings, half_open=HalfOpen(limits.HALF_OPEN_PER_PARTY, limits.HALF_OPEN_S),
            routes=None, streams=self.streams, journal=journal,
        )  # fmt: skip
        reporting = Reporting(
            config, datastore=self.datastore, store=self.store, performance=performance, requested=Requested(),
            streams=self.streams, journal=journal,
        )  # fmt: skip
        self.agent = Agent(
            config, datastore=self.datastore, store=self.store, shared=self.shared, sessions=sessions,
            key_sessions=self.key_sessions, ends=ends, streams=self.streams, performance=performance,
            reporting=reporting, parameters=Current(Parameters()), kme=self.kme, blocks=self.blocks, journal=journal,
        )  # fmt: skip

    def _on_hand_out(self, step: Callable[[], None]) -> None:
        self.hand_out = step

    def _count(self, number: int) -> None:
        self.counted.append(number)
        step, self.while_counting = self.while_counting, lambda: None
        step()

    def count(self) -> None:
        """The thread that counts has its turn."""
        self.agent._serve_count()

    def listen(self) -> Feed:
        """A controller comes."""
        return self.streams.listen(EXTENDED, controller="ctl")

    def configure(self, ksid: str = KSID) -> None:
        """The controller opens the session: both have registered."""
        open_session.configure(self.datastore, "a", ksid)


@pytest.fixture
def node(tmp_path: Path):
    """A node of no key session."""
    made = Node(tmp_path)
    yield made
    made.blocks.stop()
    made.store.close()


def withdrawn(feed: Feed) -> list[tuple[str, str]]:
    """The pairs whose registrations are taken back, as the controller hears now."""
    found = [json.loads(line[6:])["ietf-restconf:notification"] for line in feed.take().decode().split("\n\n") if line]
    told = [e["qkd-testbed:application_withdrawn"] for e in found if "qkd-testbed:application_withdrawn" in e]
    return [(t["server_app_id"], *t["client_app_id"]) for t in told]


def test_withdrawal_of_a_session_that_is_open_here_is_told(node):
    """The master does not know that it is open: its answer was lost. The session would be nobody's."""
    feed = node.listen()
    node.configure()

    node.key_sessions.withdraw(MASTER, SLAVE)

    assert len(withdrawn(feed)) == 1


def test_registration_is_not_met_by_a_session_that_ended_before_it(node):
    """A controller that slept may configure that one again before it hears of the end."""
    feed = node.listen()
    node.configure()
    node.key_sessions.close(KSID, SLAVE)
    with ThreadPoolExecutor(1) as pool:
        feed.take()
        registered = pool.submit(node.key_sessions.open, MASTER, SLAVE, "slave", QoS())
        while "sdqkdn_application_new" not in feed.take().decode():
            assert not registered.done()

        node.configure()
        open_session.remove(node.datastore)
        node.configure(ANOTHER)

        assert registered.result(20) == ({"ksid": ANOTHER}, 200)


def test_withdrawal_of_what_is_not_here_is_told_to_nobody(node):
    """An SAE could tell the controller without end."""
    feed = node.listen()

    node.key_sessions.withdraw(MASTER, SLAVE)

    assert withdrawn(feed) == []


def test_key_that_is_handed_out_while_another_is_counted_is_counted_next(node):
    """Or an older copy of the store, which lacks this one, would be taken for the newest."""
    node.agent._serve_database()
    node.hand_out()
    node.while_counting = node.hand_out

    node.count()
    node.count()

    assert len(node.counted) == 2


def test_count_is_told_when_the_store_can_be_read_again(node):
    """The node cannot do without the thread, which lives on."""
    node.agent._serve_database()
    node.hand_out()

    node.store.full = True
    node.count()
    node.store.full = False
    node.count()

    assert len(node.counted) == 1
