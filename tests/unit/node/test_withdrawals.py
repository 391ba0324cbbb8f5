"""Registrations that were taken back: state until a controller has confirmed that it knows."""

from __future__ import annotations

import json

import pytest

from mtls.events import Feed
from node import limits
from node.associations.registrations import Registrations, Withdrawals
from node.tree.notifications import EXTENDED, STANDARD, Streams

PAIR = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class Node:
    """What a node has of it, with a clock of the test's."""

    def __init__(self) -> None:
        self.time = 0.0
        self.streams = Streams()
        self.registrations = Registrations("b", None, self.streams)
        say = self.registrations._say_withdrawn
        self.withdrawals = Withdrawals(self.streams, say, now=lambda: self.time)
        self.registrations.withdrawals = self.withdrawals

    def listen(self, stream: str = EXTENDED) -> Feed:
        """A controller comes."""
        return self.streams.listen(stream, controller="ctl")

    def later(self, seconds: float) -> None:
        """Time passes, and the node looks what there is to tell."""
        self.time += seconds
        self.withdrawals.tell()


def heard(feed: Feed) -> list[str]:
    """The names of the withdrawals that the controller hears of now."""
    found = [json.loads(line[6:])["ietf-restconf:notification"] for line in feed.take().decode().split("\n\n") if line]
    return [e["qkd-testbed:application_withdrawn"]["request"] for e in found]


@pytest.fixture
def node() -> Node:
    """A node at which nothing was withdrawn."""
    return Node()


def test_withdrawal_is_told_again_until_it_is_confirmed(node):
    """The first word may have gone into a connection whose other side was dead."""
    feed = node.listen()
    node.registrations.withdraw(*PAIR)
    first = heard(feed)
    assert len(first) == 1
    node.later(limits.SAID_AGAIN_S)
    assert heard(feed) == first

    node.registrations.on_answer({"state": "withdrawn", "request": first}, "ctl")

    node.later(limits.SAID_AGAIN_S)
    assert heard(feed) == []


def test_controller_that_comes_hears_of_it_at_once(node):
    """Whether another one was told before, or none was there."""
    node.registrations.withdraw(*PAIR)

    first = heard(node.listen())

    assert len(first) == 1
    assert heard(node.listen()) == first


def test_confirmation_of_an_older_withdrawal_is_none_of_a_newer_one(node):
    """It was on its way for long; the pair has registered and withdrawn again since."""
    feed = node.listen()
    node.registrations.withdraw(*PAIR)
    older = heard(feed)
    node.registrations.withdraw(*PAIR)
    (newer,) = heard(feed)

    node.registrations.on_answer({"state": "withdrawn", "request": older}, "ctl")

    node.later(limits.SAID_AGAIN_S)
    assert heard(feed) == [newer]


def test_withdrawal_of_a_pair_that_registers_again_is_told_no_more(node):
    """Or it would take the new registration back."""
    node.registrations.withdraw(*PAIR)
    node.withdrawals.forget(PAIR)

    assert heard(node.listen()) == []


def test_withdrawal_is_told_for_as_long_as_a_registration_waits(node):
    """After that the controller has dropped it."""
    node.registrations.withdraw(*PAIR)
    node.later(limits.HALF_OPEN_S)

    assert heard(node.listen()) == []


def test_controller_that_knows_only_the_standard_is_told_of_none(node):
    """It has no such word."""
    feed = node.listen(STANDARD)
    node.registrations.withdraw(*PAIR)

    assert feed.take() == b""


def test_of_very_many_withdrawals_the_oldest_is_given_up(node):
    """An SAE that registers and withdraws without end takes no memory."""
    for n in range(limits.MOST_PENDING + 5):
        node.registrations.withdraw(PAIR[0], f"22222222-2222-4222-8222-{n:012}")

    assert len(node.withdrawals._withdrawn) == limits.MOST_PENDING
