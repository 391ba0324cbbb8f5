"""Applications that ask for an association, where the controller answers too late for them."""

from __future__ import annotations

import pytest

from etsi.gs004 import QoS
from mtls.serve import Problem
from node import registrations
from node.registrations import Registrations
from node.streams import EXTENDED

MASTER, SLAVE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PAIR = MASTER, SLAVE


class SilentController:
    """Listens to the node and answers nothing."""

    controlled = EXTENDED

    def notify(self, *_: object, **__: object) -> None:
        """Be told."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Registrations:
    """The registrations of a node whose applications have no patience."""
    monkeypatch.setattr(registrations, "_ANSWER_S", 0.01)
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
