"""Places for those who wait: bounded in all and for each party, and given back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from node.waiting_limits import HalfOpen, Places, Turns
from tests.support.waiting import until


class Full(Exception):
    """There is no place."""


def take(stack: ExitStack, places: Places, *parties: str) -> None:
    """Take a place until the stack is closed; Full."""
    stack.enter_context(places.taken(*parties, full=Full()))


def test_there_are_so_many_places_in_all():
    """However many parties there are."""
    places = Places(3, 2)
    with ExitStack() as stack:
        for party in "abc":
            take(stack, places, party)
        with pytest.raises(Full):
            take(stack, places, "d")


def test_one_party_leaves_places_to_the_others():
    """A place that counts for two parties counts for each of them."""
    places = Places(10, 2)
    with ExitStack() as stack:
        take(stack, places, "a", "b")
        take(stack, places, "a", "c")
        with pytest.raises(Full):
            take(stack, places, "d", "a")
        take(stack, places, "b", "d")


def test_place_is_given_back_whatever_happens():
    """After an error, too, and after a refusal nothing is held."""
    places = Places(1, 1)

    def fail() -> None:
        with places.taken("a", full=Full()):
            with pytest.raises(Full), ExitStack() as stack:
                take(stack, places, "b")
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()


def test_party_may_be_named_twice():
    """It takes one place: a relay that comes from a node and goes back to it."""
    with ExitStack() as stack:
        take(stack, Places(1, 1), "a", "a")


def test_so_many_registrations_of_a_party_wait_and_others_go_on():
    """One that is repeated counts once; one that the other side has answered, or that is too old, counts no more."""
    time = [0.0]
    half_open = HalfOpen(2, 30.0, now=lambda: time[0])
    half_open.add("a", ("a", "b"), full=Full())
    half_open.add("a", ("c", "a"), full=Full())
    half_open.add("a", ("a", "b"), full=Full())
    with pytest.raises(Full):
        half_open.add("a", ("a", "d"), full=Full())
    half_open.add("d", ("a", "d"), full=Full())

    assert half_open.remove(("c", "a"))
    half_open.add("a", ("a", "d"), full=Full())
    time[0] = 30.0
    half_open.add("a", ("a", "e"), full=Full())


def test_registration_that_nobody_made_is_not_taken_back():
    """Nor twice, nor by another party."""
    half_open = HalfOpen(2, 30.0)
    half_open.add("a", ("a", "b"), full=Full())

    assert not half_open.remove(("a", "b"), "b")
    assert not half_open.remove(("b", "a"), "a")
    assert half_open.remove(("a", "b"), "a")
    assert not half_open.remove(("a", "b"), "a")


def test_who_finds_no_place_at_one_of_its_things_waits_until_there_is_one():
    """Meanwhile it takes none at the others."""
    turns = Turns(1)
    with ThreadPoolExecutor(1) as waiter:

        def wait() -> None:
            with turns.taken(["a", "b"], 10, full=Full()):
                pass

        with turns.taken(["a"], 0, full=Full()):
            waiting = waiter.submit(wait)
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            with turns.taken(["b", "b"], 0, full=Full()):
                pass
            with pytest.raises(Full), turns.taken(["a", "c"], 0, full=Full()):
                pass
        waiting.result(10)


def test_places_are_given_in_the_order_in_which_they_were_asked_for():
    """Who has given one back and comes again stands behind those that wait."""
    turns, order = Turns(1), []

    def take(name: str) -> None:
        with turns.taken(["a"], 10, full=Full()):
            order.append(name)

    with ThreadPoolExecutor(8) as waiters:
        with turns.taken(["a"], 0, full=Full()):
            calls = []
            for name in "12345678":
                calls.append(waiters.submit(take, name))
                until(lambda: len(turns._waiting) == len(calls))
        take("again")
        for call in calls:
            call.result(10)
    assert order == [*"12345678", "again"]


def test_who_waits_for_one_thing_holds_up_nobody_that_wants_another():
    """Nor does who has waited in vain leave anything behind."""
    turns = Turns(1)
    with ThreadPoolExecutor(1) as waiter, turns.taken(["a"], 0, full=Full()):

        def wait() -> None:
            with pytest.raises(Full), turns.taken(["a", "b"], 0.2, full=Full()):
                pass

        waiting = waiter.submit(wait)
        until(lambda: turns._waiting)
        with turns.taken(["b"], 0, full=Full()):
            pass
        waiting.result(10)
    with turns.taken(["a", "b"], 0, full=Full()):
        pass
