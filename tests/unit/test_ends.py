"""Ends of key sessions at a node: state until a controller has confirmed that it knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtls.events import Feed
from mtls.liveness import DEAD_S, SILENCE_S
from node.ends import Ends
from node.key_stream import KeyStore
from node.registrations import Registrations
from node.streams import EXTENDED, STANDARD, Streams

KSID = "11111111-1111-4111-8111-111111111111"


class Node:
    """What a node has of it, with a clock of the test's."""

    def __init__(self, directory: Path) -> None:
        self.time = 0.0
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.restart()

    def restart(self) -> None:
        """It knows what it kept."""
        self.streams = Streams()
        self.registrations = Registrations("a", None, self.streams)
        self.ends = Ends(self.store, self.streams, self.registrations, now=lambda: self.time)

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
    node.ends.tell(KSID)
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
    node.ends.tell(KSID)
    node.restart()

    assert heard(node.listen()) == [KSID]
    assert heard(node.listen()) == [KSID]


def test_session_that_is_configured_again_before_its_end_was_confirmed_stays_over(node):
    """The controller had not heard yet, and will have it removed."""
    node.listen()
    node.ends.tell(KSID)
    node.ends.came_back(KSID)

    assert node.ends.unconfirmed() == [KSID]


def test_controller_that_knows_only_the_standard_is_told_once_each_time_it_comes(node):
    """It confirms nothing: it counts as told when its connection has outlived the word."""
    feed = node.listen(STANDARD)
    node.ends.tell(KSID)
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
    node.ends.tell(KSID)
    node.ends.came_back(KSID)

    assert node.ends.unconfirmed() == []
