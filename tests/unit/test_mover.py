"""What a look at all sessions costs, of which most stay where they are, and what becomes of one that meets a bug."""

from __future__ import annotations

import time
import uuid

import pytest

from controller import limits
from controller.book import Book
from controller.choice import Choice
from controller.configuration import Route
from controller.declared import Wants
from controller.graph import Graph
from controller.mover import Mover
from controller.parameters import Parameters
from controller.paths import PATH_POLICIES, Path, shortest
from controller.session_agents import SessionAgents
from controller.settings import Settings
from controller.store import Store
from controller.upkeep import Upkeep
from etsi.gs004 import QoS
from telemetry import bugs, journal
from telemetry.journal import Journal
from tests.unit.test_move_decisions import Shown

SESSIONS = 20


@pytest.fixture
def graph() -> Graph:
    """a - b - c, where two QCs join a and b."""
    shown = Shown()
    shown.show("a", ab="ACTIVE", ba="ACTIVE")
    shown.show("b", ab="ACTIVE", ba="ACTIVE", bc="ACTIVE")
    shown.show("c", bc="ACTIVE")
    shown.time += 100
    return shown.graph


@pytest.fixture
def mover(graph, tmp_path) -> Mover:
    """Of a controller with sessions between a and c, which have nowhere else to go."""
    store, journal = Store(tmp_path / "controller.db"), Journal(tmp_path / "journal.jsonl", "ctl")
    book = Book(store)
    choice = Choice(graph, book, Settings(graph, Parameters(), journal, store))
    for _ in range(SESSIONS):
        pair = str(uuid.uuid4()), str(uuid.uuid4())
        for node, side in (("a", "master"), ("c", "slave")):
            session, _ = book.register(node, pair, side, Wants(QoS(), {}), implicit=False)
        session.path, session.route = Path(("a", "b", "c"), ("ab", "bc")), Route(["A", "B", "C"], ["1", "2"])
        book.opened(session)
    upkeep = Upkeep(book, choice, SessionAgents(graph, None, None), journal)  # no node is told anything
    return Mover(graph, book, choice, upkeep, journal, steady_s=1.0)


def test_look_at_all_sessions_asks_for_each_way_once(mover, monkeypatch):
    """What a QC is worth is reckoned by all sessions: asked for each of them, a look would cost their square."""
    asked: list[tuple[str, str]] = []

    def policy(graph, source, target, merit):
        asked.append((source, target))
        return shortest(graph, source, target, merit)

    monkeypatch.setitem(PATH_POLICIES, "shortest", policy)

    mover._look()

    assert asked == [("a", "c")]


def test_bug_in_moving_a_session_is_told_with_its_place_and_the_session_looked_at_again(
    mover, tmp_path, monkeypatch, caplog
):
    """Soon, and not never."""

    def tell_ends(_: object) -> None:
        raise KeyError("5ec2e7")

    upkeep = mover._upkeep
    for name, step in (("untidy", lambda _: True), ("tell_ends", tell_ends), ("interrupt", lambda *_: None)):
        monkeypatch.setattr(upkeep, name, step)
    monkeypatch.setattr(upkeep, "later", lambda _, step, *arguments: step(*arguments) or True)

    mover._look()

    assert f"moving a session: {bugs.MARK}, KeyError\nKeyError at\n" in caplog.text
    assert "in tell_ends" in caplog.text
    assert "5ec2e7" not in caplog.text.replace('KeyError("5ec2e7")', "")
    told = journal.read(tmp_path / "journal.jsonl", bugs.EVENT)
    assert {event["ksid"] for event in told} == {session.ksid for session in mover._book.open()}
    assert max(mover._busy.values()) < time.monotonic() + 2 * limits.AGAIN_S
