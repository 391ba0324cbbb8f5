"""What several want at the same moment is done once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.waiting_limits import Once


def test_those_who_come_meanwhile_get_what_the_first_one_gets():
    """And whoever comes later begins anew."""
    once, begun, go_on = Once(), threading.Event(), threading.Event()

    def step() -> str:
        begun.set()
        assert go_on.wait(10)
        return "first"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(once.do, "a", step)
        assert begun.wait(10)
        second = pool.submit(once.do, "a", lambda: "second")
        assert once.do("b", lambda: "apart") == "apart"
        go_on.set()
        assert first.result(10) == "first"
        assert second.result(10) in ("first", "second")  # the latter if it came after all
    assert once.do("a", lambda: "anew") == "anew"


def test_failure_is_that_of_all_and_is_not_kept():
    """The next one may try again."""
    once = Once()
    with pytest.raises(ZeroDivisionError):
        once.do("a", lambda: 1 / 0)

    assert once.do("a", lambda: 1) == 1
