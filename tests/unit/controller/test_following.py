"""How it goes with a node that is followed: what it can be told, and when it knows all."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from controller.following.state import Following

VERSION = 3
NODE = Following().heard(SimpleNamespace(), extended=True)


def test_node_that_is_only_heard_is_told_nothing():
    """It was not read yet: nobody knows what it lacks."""
    assert NODE.has_not(VERSION)
    assert not NODE.is_to_be_told(VERSION)
    assert not NODE.needs_tending(VERSION, wishes=True)


def test_node_that_was_read_lacks_everything_until_it_has_it():
    """The settings, and what open sessions want of it."""
    read = NODE.read()
    assert read.is_to_be_told(VERSION)
    assert read.needs_tending(VERSION, wishes=False)

    told = replace(read, told=VERSION, tried=VERSION)
    assert not told.is_to_be_told(VERSION)
    assert told.needs_tending(VERSION, wishes=False)

    done = replace(told, settled=True)
    assert not done.needs_tending(VERSION, wishes=False)
    assert done.needs_tending(VERSION, wishes=True)
    assert done.needs_tending(VERSION + 1, wishes=False)


def test_node_that_did_not_take_part_is_not_waited_for_but_told_again():
    """An operator hears that it is behind."""
    stumbled = replace(NODE.read(), tried=VERSION)

    assert not stumbled.is_to_be_told(VERSION)
    assert stumbled.needs_tending(VERSION, wishes=False)
    assert stumbled.has_not(VERSION)


def test_node_that_knows_only_the_standard_has_no_settings_to_take_over():
    """There is no place for them in its data."""
    assert not NODE.heard(SimpleNamespace(), extended=False).has_not(VERSION)


@given(settled=st.booleans(), told=st.integers(-1, VERSION), tried=st.integers(-1, VERSION))
def test_new_connection_begins_anew(settled, told, tried):
    """What the node was told before may be gone, whatever that was."""
    before = replace(NODE.read(), settled=settled, told=told, tried=tried).lost()
    assert not before.needs_tending(VERSION, wishes=True)

    connection = SimpleNamespace()
    again = before.heard(connection, extended=True).read()
    assert again == replace(NODE.read(), connection=connection)
