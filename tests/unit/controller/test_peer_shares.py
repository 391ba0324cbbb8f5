"""Steps for peers, of which none holds up the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.agents.peer_shares import Turns
from telemetry import bugs, journal
from telemetry.journal import Journal


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    """Four threads, two for one peer, three of whose steps may wait."""
    made = Turns("steps", Journal(tmp_path / "journal.jsonl", "ctl"), threads=4, for_one=2, waiting=3)
    yield made
    made.stop()


def test_peer_whose_steps_do_not_return_holds_up_no_other(turns):
    """It has its own share of the threads, and its steps wait for each other alone."""
    go, done = threading.Event(), threading.Event()
    for _ in range(4):
        assert turns.take("slow", go.wait, 10)

    assert turns.take("quick", done.set)
    assert done.wait(10)
    go.set()


def test_more_than_may_wait_is_refused_and_all_else_is_done_in_order(turns):
    """Of that peer alone."""
    go, done, last = threading.Event(), [], threading.Event()
    for _ in range(2):
        assert turns.take("busy", go.wait, 10)
    assert all(turns.take("busy", done.append, n) for n in range(2))
    assert turns.take("busy", last.set)
    assert not turns.take("busy", done.append, 9)
    assert turns.take("other", done.append, "other")

    go.set()

    assert last.wait(10)
    assert [n for n in done if n != "other"] == [0, 1]


def test_step_that_fails_is_reported_and_its_place_is_free_again(turns, tmp_path, caplog):
    """Nobody looks at what became of it."""
    done = threading.Event()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            turns.take("a", lambda: 1 // 0)
        turns.take("a", done.set)
        assert done.wait(10)
        turns._pool.shutdown(wait=True)  # the last of them may be reported at the same moment

    events = journal.read(tmp_path / "journal.jsonl", bugs.EVENT)
    assert [e["peer"] for e in events] == ["a"] * 3
    assert "ZeroDivisionError" in caplog.text


def test_step_for_which_no_thread_can_be_started_is_done_by_one_that_is_free(turns, monkeypatch, caplog):
    """Nor are those behind it lost; the log calls it what it is."""
    go, done, last = threading.Event(), [], threading.Event()
    assert turns.take("a", go.wait, 10)
    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", _refused)
        assert all(turns.take("a", done.append, n) for n in range(3))
        assert turns.take("a", last.set)
    assert "the machine refuses: no thread can be started" in caplog.text

    go.set()

    assert last.wait(10)
    assert done == [0, 1, 2]


def _refused(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
