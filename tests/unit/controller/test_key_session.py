"""A key session as a state machine: whatever happens in whatever order, it goes along the arrows of its page alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.agents.configuration import Route, Wants
from controller.sessions.key_session import (
    CONFIGURING,
    ENDING,
    MASTER,
    OPEN,
    SLAVE,
    WAITING,
    KeySession,
    SessionError,
)
from decisions.paths import Path
from etsi.gs004 import QoS

PAIR = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
ARROWS = {(WAITING, CONFIGURING), (CONFIGURING, OPEN), (CONFIGURING, ENDING), (OPEN, ENDING)}
DIRECT, WAY_ROUND = Path(("a", "b"), ("ab",)), Path(("a", "c", "b"), ("ac", "cb"))
EVENTS: dict[str, Callable[[KeySession], object]] = {
    "the master's node registers": lambda s: register(s, "a", MASTER),
    "the slave's node registers": lambda s: register(s, "b", SLAVE),
    "another node registers the master": lambda s: register(s, "c", MASTER),
    "the master's node registers the slave": lambda s: register(s, "a", SLAVE),
    "all nodes have it": KeySession.open,
    "it ends": KeySession.end,
    "its slave is done with it": lambda s: s.over_once_open("b"),
}


def new() -> KeySession:
    """One of which nobody has told yet."""
    return KeySession("33333333-3333-4333-8333-333333333333", PAIR, QoS(), 0.0)


def register(session: KeySession, node: str, side: str) -> None:
    """A node registers that side."""
    session.register(node, side, Wants(QoS(), {}), 1.0, implicit=False)


def configuring() -> KeySession:
    """One whose nodes are being told, of the direct way."""
    session = new()
    register(session, "a", MASTER)
    register(session, "b", SLAVE)
    session.path, session.route = DIRECT, Route(["A", "B"], ["L"])
    return session


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=12))
def test_session_changes_along_the_arrows_alone_and_refusals_change_nothing(events):
    """A step that is not one of them is a bug of ours, a registration that comes too late a refusal."""
    session = new()
    for event in events:
        before, nodes = session.state, dict(session.nodes)
        try:
            EVENTS[event](session)
        except (SessionError, RuntimeError):
            assert (session.state, session.nodes) == (before, nodes)
        assert before == session.state or (before, session.state) in ARROWS
        assert (session.state == WAITING) == (len(session.nodes) < 2)
        assert len(set(session.nodes.values())) == len(session.nodes)


@pytest.mark.parametrize("first", [MASTER, SLAVE])
def test_session_is_configured_when_both_sides_have_registered(first):
    """Whichever comes first."""
    sides = {MASTER: "a", SLAVE: "b"}
    session = new()
    register(session, sides.pop(first), first)
    assert session.state == WAITING

    ((side, node),) = sides.items()
    register(session, node, side)
    assert session.state == CONFIGURING


def test_session_whose_end_is_done_with_it_before_it_is_open_is_to_be_found_ending():
    """A controller that dies in between does not go on with it."""
    session = configuring()
    assert session.once_open == OPEN

    assert session.over_once_open("b")

    assert session.once_open == ENDING
    session.open()
    assert not session.over_once_open("a")


def test_moved_session_leaves_the_link_that_it_went_over_behind():
    """At the nodes of its old way; and over the new way it goes as soon as it is committed, not before."""
    session = configuring()
    session.open()
    number = session.aim(WAY_ROUND)
    assert (session.path, session.leftovers("c") != []) == (DIRECT, True)

    moved = configuring()
    moved.path, moved.route, moved.bandwidth = WAY_ROUND, Route(["A", "C", "B"], ["L", "M"], number), 7
    session.commit(moved, 0.0)

    assert (session.path, session.bandwidth, session.unsure) == (WAY_ROUND, 7, {"a", "b"})
    assert session.leftovers("c") == []
