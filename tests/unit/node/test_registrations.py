"""Applications that ask for an association, where the controller answers too late for them."""

from __future__ import annotations

import pytest

from etsi.gs004 import QoS
from mtls.serve import Problem
from node.associations import registrations
from node.associations.registrations import Registrations
from node.associations.sessions import Association
from node.tree.notifications import EXTENDED

MASTER, SLAVE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PAIR = MASTER, SLAVE


class SilentController:
    """Listens to the node and answers nothing."""

    controlled = EXTENDED
    times = 1

    def notify(self, *_: object, **__: object) -> None:
        """Be told."""

    def on_controller(self, step: object) -> None:
        """No other one comes."""

    def listening(self, controller: str) -> int:
        """How often it came."""
        return self.times * (controller == "ctl")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Registrations:
    """The registrations of a node whose applications have no patience."""
    monkeypatch.setattr(registrations, "OPENING_S", 0.01)
    return Registrations("a", None, SilentController())


def test_implicit_association_that_comes_too_late_is_implicit_all_the_same(asked):
    """Or it would never end: nobody registered it, and nobody would close it."""
    with pytest.raises(Problem):
        asked.ask(*PAIR, "master", QoS(), implicit=True)

    assert asked.asked_implicitly(PAIR)
    assert not asked.asked_implicitly((SLAVE, MASTER))


def test_registered_association_that_comes_too_late_is_none_of_the_implicit_ones(asked):
    """The last who asked for the pair says what it is."""
    for implicit in (True, False):
        with pytest.raises(Problem):
            asked.ask(*PAIR, "master", QoS(), implicit=implicit)

    assert not asked.asked_implicitly(PAIR)


class OneSession:
    """A node's sessions, of which there is one."""

    def __init__(self) -> None:
        self.one = Association("ksid", *PAIR, "a", "b", ())

    def all(self) -> list[Association]:
        """That one."""
        return [self.one]

    def of_pair(self, *_: str) -> Association:
        """The same."""
        return self.one


@pytest.fixture
def told() -> Registrations:
    """The registrations of a node with an open session."""
    return Registrations("a", OneSession(), SilentController())


def word(state: str, version: int, ksid: str = "ksid") -> dict[str, object]:
    """A controller's word on the session."""
    return {"app_id": ksid, "state": state, "version": str(version), "message": "down"}


@pytest.mark.parametrize(("newer", "late"), [("interrupted", "resumed"), ("resumed", "interrupted")])
def test_word_that_arrives_late_changes_nothing(told, newer, late):
    """The controller gave up on it, and has said something newer since. It hears which word counts."""
    assert told.on_answer(word(newer, 7), "ctl") == 7
    assert told.on_answer(word(late, 6), "ctl") == 7

    assert (told.interruption(*PAIR) is not None) is (newer == "interrupted")


def test_newest_word_counts(told):
    """Of the same version, too: it was said again."""
    for state, version in (("interrupted", 1), ("resumed", 2), ("interrupted", 3), ("interrupted", 3)):
        told.on_answer(word(state, version), "ctl")

    assert told.interruption(*PAIR).message == "down"


def test_word_on_a_session_that_is_not_here_is_not_kept(told):
    """Whoever says many of them takes no memory."""
    told.on_answer(word("interrupted", 1, "other"), "ctl")

    assert told._words == {}


def test_answer_to_an_older_request_is_none_to_a_newer_one(monkeypatch):
    """A refusal that was on its way for long must not reach those who have asked anew."""
    streams = SilentController()
    registrations_ = Registrations("a", None, streams)
    asked: list[str] = []

    def refuse_late(_: str, __: object, *, extended: dict[str, dict[str, str]]) -> None:
        asked.append(extended["qkd_application"]["qkd-testbed:request"])
        if len(asked) == 2:
            answer = {"server_app_id": MASTER, "client_app_id": [SLAVE], "state": "refused", "message": "old"}
            registrations_.on_answer({**answer, "request": asked[:1]}, "ctl")
            registrations_.on_answer({**answer, "message": "new", "request": asked[1:]}, "ctl")

    monkeypatch.setattr(registrations, "OPENING_S", 0.01)
    streams.notify = refuse_late
    with pytest.raises(Problem, match="no answer"):
        registrations_.ask(*PAIR, "master", QoS())
    with pytest.raises(Problem, match="new"):
        registrations_.ask(*PAIR, "master", QoS())


def test_word_holds_as_long_as_the_controller_that_said_it_listens(told):
    """One that comes anew says what is so; that another one comes changes nothing."""
    told.on_answer(word("interrupted", 1), "ctl")
    assert told.interruption(*PAIR) is not None

    told._streams.times += 1

    assert told.interruption(*PAIR) is None
