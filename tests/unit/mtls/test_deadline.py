"""How much time is left: over all that is done for a request, and for those who are asked on the way."""

from __future__ import annotations

import threading
import time

import pytest

from mtls import deadline

FAR = 100.0


def test_without_a_deadline_each_wait_has_its_own_time():
    """The agent's own threads, say, serve nobody who waits."""
    assert deadline.left(7.0) == 7.0
    assert deadline.left_for_others(7.0) == 7.0


def test_no_wait_is_longer_than_what_is_left():
    """A part of it is kept for the way back of what others answer."""
    with deadline.until(time.monotonic() + FAR):
        assert deadline.left(1.0) == 1.0
        assert FAR - 1 < deadline.left(1000.0) <= FAR
        assert deadline.left_for_others(1000.0) < deadline.left(1000.0) - FAR / 50
    assert deadline.left(1000.0) == 1000.0


def test_deadline_within_another_never_extends_it():
    """Whatever a caller says."""
    now = time.monotonic()
    with deadline.until(now + FAR):
        with deadline.until(now + 2 * FAR):
            assert deadline.left(1000.0) <= FAR
        with deadline.until(None):
            assert deadline.left(1000.0) <= FAR
        with deadline.until(now + FAR / 2):
            assert deadline.left(1000.0) <= FAR / 2


def test_what_is_cleaned_up_has_a_time_of_its_own():
    """Though what it cleans up after has taken all there was; where there is more, or no end, that counts."""
    now = time.monotonic()
    with deadline.until(now - 1):
        with deadline.at_least(FAR):
            assert FAR - 1 < deadline.left(1000.0) <= FAR
        assert deadline.left(1000.0) < 0
    with deadline.until(now + 2 * FAR), deadline.at_least(FAR):
        assert deadline.left(1000.0) > FAR
    with deadline.at_least(FAR):
        assert deadline.left(1000.0) == 1000.0


def test_what_is_over_is_below_zero():
    """And so never taken for a wait without end."""
    with deadline.until(time.monotonic() - 1):
        assert deadline.left(1.0) < 0
        assert deadline.left_for_others(1.0) < 0


def test_deadline_is_of_one_thread():
    """What another request is served by is not bound by it."""
    found: list[float] = []
    with deadline.until(time.monotonic() + 1):
        thread = threading.Thread(target=lambda: found.append(deadline.left(FAR)))
        thread.start()
        thread.join()
    assert found == [FAR]


@pytest.mark.parametrize("given", [None, "", "-1", "1.5", "1e3", "\u0663", "9" * 40, "soon"])
def test_header_that_makes_no_sense_says_nothing(given):
    """It is another party's."""
    assert deadline.from_header(given) is None


@pytest.mark.parametrize("seconds", [0.0, 0.25, 4.0])
def test_header_says_what_was_meant(seconds):
    """In milliseconds; nobody waits for more than an hour."""
    assert deadline.from_header(deadline.to_header(seconds)) == seconds
    assert deadline.from_header("999999999") == 3600
