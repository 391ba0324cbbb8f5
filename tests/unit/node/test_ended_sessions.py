"""Ends of key sessions at a node: state until a controller has confirmed that it knows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtls.events import Feed
from mtls.liveness import DEAD_S, SILENCE_S
from node.associations.ended_sessions import Ends
from node.associations.registrations import Registrations
from node.associations.sessions import Sessions
from node.material.key_store import KeyStore
from node.tree.datastore import Datastore
from node.tree.notifications import EXTENDED, STANDARD, Streams
from tests.support import open_session
from tests.support.open_session import KSID


class Node:
    """What a node has of it, with a clock of the test's."""

    def __init__(self, directory: Path) -> None:
        self.time = 0.0
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.config = open_session.config(directory, "a", "b")
        self.restart()

    def restart(self) -> None:
        """It knows what it kept."""
        self.streams = Streams()
        self.datastore = Datastore(self.config, self.store)
        self.sessions = Sessions(self.config, self.datastore, self.store)
        self.registrations = Registrations("a", self.sessions, self.streams)
        self.ends = Ends(self.store, self.streams, self.registrations, now=lambda: self.time)

    def configure(self) -> None:
        """The controller has the session open."""
        open_session.configure(self.datastore, "b")

    def end(self) -> None:
        """The session, which is open, ends here."""
        self.configure()
        self.ends.begin(KSID)
        assert self.datastore.end_app(KSID)
        self.ends.tell(KSID)

    def listen(self, stream: str = EXTENDED) -> Feed:
        """A controller comes."""
        return self.streams.listen(stream, controller="ctl")

    def confirm(self) -> None:
        """The controller knows."""
        self.registrations.on_answer({"state": "ended", "app_id": KSID}, "ctl")


def heard(feed: Feed) -> list[str]:
    """The ends that the controller hears of now."""
    found = [json.loads(line[6:])["ietf-restconf:notification"] for line in feed.take().decode().split("\n\n") if line]
    return [e["etsi-qkd-sdn-node:sdqkdn_application_disconnected"]["qkd_application"]["app_id"] for e in found]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node at which nothing has ended."""
    made = Node(tmp_path)
    yield made
    made.store.close()


def test_end_is_told_again_until_it_is_confirmed(node):
    """The first word may have gone into a connection whose other side was dead."""
    feed = node.listen()
    node.end()
    assert heard(feed) == [KSID]
    node.time = 5.0
    node.ends.tell()
    assert heard(feed) == [KSID]
    assert node.ends.unconfirmed() == [KSID]

    node.confirm()

    node.time = 10.0
    node.ends.tell()
    assert heard(feed) == node.ends.unconfirmed() == []


def test_end_that_was_not_confirmed_is_told_to_the_next_controller_over_a_restart_too(node):
    """At once when it begins to listen."""
    node.listen().close()
    node.end()
    node.restart()

    assert heard(node.listen()) == [KSID]
    assert heard(node.listen()) == [KSID]


def test_end_is_known_after_a_kill_however_soon_that_came(node):
    """With the session goes its end into the store: the controller would have it configured anew for ever."""
    node.configure()
    node.datastore.end_app(KSID)
    node.restart()

    assert node.sessions.all() == []
    assert heard(node.listen()) == [KSID]


def test_end_of_a_session_that_is_not_here_is_none(node):
    """The controller removed it in the same moment, and would be told for nothing."""
    assert not node.datastore.end_app(KSID)
    node.restart()

    assert node.ends.unconfirmed() == []


def test_session_that_is_configured_again_before_its_end_was_confirmed_stays_over(node):
    """The controller had not heard yet, and will have it removed."""
    feed = node.listen()
    node.end()

    assert not node.ends.came_back(KSID)
    assert node.ends.unconfirmed() == [KSID]
    feed.close()  # it may be that its stream broke while it was asleep
    assert not node.ends.came_back(KSID)
    assert node.ends.unconfirmed() == [KSID]


def test_session_that_is_configured_again_after_its_end_was_confirmed_stays_over(node):
    """The controller was at it when it heard, and removes it next."""
    node.listen()
    node.end()
    node.confirm()

    assert not node.ends.came_back(KSID)
    assert node.ends.came_back("another")


def test_controller_that_knows_only_the_standard_is_told_once_each_time_it_comes(node):
    """It confirms nothing: it counts as told when its connection has outlived the word."""
    feed = node.listen(STANDARD)
    node.end()
    node.time = 5.0
    node.ends.tell()
    assert heard(feed) == [KSID]
    feed.close()
    again = node.listen(STANDARD)
    assert heard(again) == [KSID]

    node.time += DEAD_S + SILENCE_S
    node.ends.tell()

    assert node.ends.unconfirmed() == []


def test_controller_that_knows_only_the_standard_may_have_an_application_come_back(node):
    """It is not told that this one ended."""
    node.listen(STANDARD)
    node.end()

    assert node.ends.came_back(KSID)
    assert node.ends.unconfirmed() == []


def test_session_ends_in_one_transaction_so_that_all_who_care_hear_of_it(node, monkeypatch):
    """A disk that is full for the next one would leave keys of it in the pool, and its end untold until a restart."""
    node.configure()
    node.sessions.mark_implicit(KSID)
    heard_of_it: list[bool] = []
    node.datastore.on_change(lambda *_: heard_of_it.append(True))
    with monkeypatch.context() as disk:
        write, room = node.store.put_documents, [1]

        def put(documents: object) -> None:
            if documents and not room:
                raise sqlite3.OperationalError("database or disk is full")
            room.clear()
            write(documents)

        disk.setattr(node.store, "put_documents", put)
        assert node.datastore.end_app(KSID)

    assert heard_of_it == [True]
    node.restart()
    assert not node.sessions.is_implicit(KSID)
    assert ("implicit", KSID) not in node.store.documents()
