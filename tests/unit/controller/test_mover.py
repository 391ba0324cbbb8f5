"""What a look at all sessions costs, of which most stay where they are, and what becomes of one that meets a bug."""

from __future__ import annotations

import functools
import itertools
import time
import uuid
from collections.abc import Iterator

import pytest

from controller import limits
from controller.agents.agents import AgentFailed
from controller.agents.configuration import Route, Wants
from controller.network.graph import Graph
from controller.network.settings import Parameters, Settings
from controller.network.store import FileStore
from controller.sessions.key_session import KeySession
from controller.sessions.lighting import Lighting
from controller.sessions.mover import Mover
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_nodes import SessionAgents, Upkeep
from decisions.paths import PATH_POLICIES, Path, Verdict, shortest
from etsi.gs004 import QoS
from telemetry import bugs, journal
from telemetry.journal import Journal
from tests.unit.decisions.test_move_verdicts import GRACE_S, Shown

SESSIONS = 20


@pytest.fixture
def shown() -> Shown:
    """a - b - c, where two QCs join a and b."""
    made = Shown()
    made.show("a", ab="ACTIVE", ba="ACTIVE")
    made.show("b", ab="ACTIVE", ba="ACTIVE", bc="ACTIVE")
    made.show("c", bc="ACTIVE")
    made.time += 100
    return made


@pytest.fixture
def graph(shown) -> Graph:
    """As shown."""
    return shown.graph


@pytest.fixture
def mover(graph, tmp_path) -> Iterator[Mover]:
    """Of a controller with sessions between a and c, which have nowhere else to go."""
    store, journal = FileStore(tmp_path / "controller.db"), Journal(tmp_path / "journal.jsonl", "ctl")
    book = Book(store)
    settings = Settings(graph, Parameters(), journal, store)
    lighting = Lighting(graph, book, None, journal)
    choice = Choice(graph, book, settings, lighting)
    for _ in range(SESSIONS):
        pair = str(uuid.uuid4()), str(uuid.uuid4())
        for node, side in (("a", "master"), ("c", "slave")):
            session, _ = book.register(node, pair, side, Wants(QoS(), {}), implicit=False)
        session.path, session.route = Path(("a", "b", "c"), ("ab", "bc")), Route(["A", "B", "C"], ["1", "2"])
        book.opened(session)
    upkeep = Upkeep(book, choice, SessionAgents(graph, None, None), journal)  # no node is told anything
    yield Mover(graph, book, choice, upkeep, journal, lighting=lighting, steady_s=1.0)
    store.close()


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
    for name, step in (("untidy", lambda _: True), ("tell_ends", tell_ends)):
        monkeypatch.setattr(upkeep, name, step)
    for name in ("interrupt", "tidy"):
        monkeypatch.setattr(upkeep, name, lambda *_: None)
    monkeypatch.setattr(upkeep, "later", lambda _, step, *arguments: step(*arguments) or True)

    mover._look()

    assert f"moving a session: {bugs.MARK}, KeyError\nKeyError at\n" in caplog.text
    assert "in tell_ends" in caplog.text
    assert "5ec2e7" not in caplog.text.replace('KeyError("5ec2e7")', "")
    told = journal.read(tmp_path / "journal.jsonl", bugs.EVENT)
    assert {event["ksid"] for event in told} == {session.ksid for session in mover._book.open()}
    assert max(mover._busy.values()) < time.monotonic() + 2 * limits.AGAIN_S


OTHER_WAY = Path(("a", "b", "c"), ("ba", "bc"))


class Told:
    """What nodes are told of a session that moves; each of `failing` steps meets a node that does not take part."""

    def __init__(self, mover: Mover, monkeypatch: pytest.MonkeyPatch, *failing: str) -> None:
        self.steps: list[str] = []
        self.down: tuple[str, ...] = ()

        def played(step: str, session: KeySession) -> None:
            self.steps.append(step)
            self.down = session.down
            if step in failing:
                raise AgentFailed("b", "it cannot be reached")

        for place, steps in (
            (mover._upkeep, ("add_links", "tell_ends", "tidy")), (mover._upkeep._agents, ("interrupt",)),
        ):  # fmt: skip
            for step in steps:
                monkeypatch.setattr(place, step, functools.partial(played, step))


@pytest.mark.parametrize("before", range(3))
def test_session_is_not_led_to_where_it_is_when_a_grace_ends_during_the_look(mover, shown, monkeypatch, before):
    """What its path lacks and which ways there are is judged at one moment, however long that takes.

    `before`: how often the clock is asked before, so that the grace ends before each of a look's questions once.
    """
    told = Told(mover, monkeypatch)
    monkeypatch.setattr(mover._upkeep, "later", lambda _, step, *arguments: step(*arguments) or True)
    shown.show("b", ab="PASSIVE", ba="PASSIVE", bc="ACTIVE")
    clock = itertools.count(shown.time + before * GRACE_S / 8, GRACE_S / 8)
    monkeypatch.setattr(shown.graph, "now", lambda: next(clock))

    for _ in range(20):
        mover._busy.clear()
        mover._look()

    assert "interrupt" in told.steps
    assert "add_links" not in told.steps


def test_session_whose_other_way_fails_is_interrupted(mover, tmp_path, monkeypatch):
    """Its path is down: a master's node that does not know it takes material for each key, and loses it."""
    session, told = mover._book.open()[0], Told(mover, monkeypatch, "add_links")

    mover._tend(session, Verdict(OTHER_WAY, ("QC ab",)))

    assert told.steps == ["add_links", "interrupt", "tell_ends", "tidy"]
    assert told.down == ("QC ab",)
    (event,) = journal.read(tmp_path / "journal.jsonl", "session_interrupted")
    assert event["message"] == (
        "the path of the key session is down at QC ab; the other way fails: node b does not take part"
    )
    assert mover._busy[session.ksid] > time.monotonic()


def test_session_is_resumed_though_its_shorter_way_fails(mover, monkeypatch):
    """The path that it has is up again."""
    session, told = mover._book.open()[0], Told(mover, monkeypatch, "add_links")
    session.interruption, session.down = "down", ("QC ab",)

    mover._tend(session, Verdict(OTHER_WAY))

    assert "interrupt" in told.steps
    assert told.down == ()


def test_session_whose_ends_did_not_hear_of_its_move_is_not_interrupted(mover, tmp_path, monkeypatch):
    """It goes the new way, and they are told again soon."""
    session, told = mover._book.open()[0], Told(mover, monkeypatch, "tell_ends")

    mover._tend(session, Verdict(OTHER_WAY, ("QC ab",)))

    assert session.path == OTHER_WAY
    assert told.steps == ["add_links", "tell_ends", "tidy"]
    assert not journal.read(tmp_path / "journal.jsonl", "session_interrupted")
    assert mover._busy[session.ksid] > time.monotonic()


def test_session_is_not_resumed_before_its_ends_know_by_what_it_is_fed(mover, monkeypatch):
    """It went another way while it was interrupted: keys over the old link would take material and fail."""
    session, told = mover._book.open()[0], Told(mover, monkeypatch, "tell_ends")
    session.interruption, session.down = "down", ("QC ab",)

    mover._tend(session, Verdict(None))

    assert told.steps == ["tell_ends", "tidy"]
    assert session.down == ("QC ab",)
