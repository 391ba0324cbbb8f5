"""What the controller does with what a node announces, where two announcements meet."""

from __future__ import annotations

import contextlib
import uuid
from types import SimpleNamespace
from typing import Any

from controller.following.notifications import Notifications

ALICE, BOB = (str(uuid.UUID(int=n)) for n in (1, 2))
NAMED = {"server_app_id": f"urn:uuid:{ALICE}", "client_app_id": [f"urn:uuid:{BOB}"]}
ENVELOPE = "ietf-restconf:notification"
NEW = {
    ENVELOPE: {
        "eventTime": "2026-01-01T00:00:00Z",
        "etsi-qkd-sdn-node:sdqkdn_application_new": {"qkd_application": {**NAMED, "qkd-testbed:side": "slave"}},
    }
}
GONE = {ENVELOPE: {"eventTime": "2026-01-01T00:00:00Z", "qkd-testbed:application_withdrawn": NAMED}}


class Sessions:
    """A book of registrations; `meanwhile` is done while one of them is under way."""

    def __init__(self) -> None:
        self.waiting: set[tuple[str, str]] = set()
        self.meanwhile: Any = lambda: None

    def register(self, _: str, pair: tuple[str, str], *__: Any, **___: Any) -> None:
        """As KeySessions.register."""
        self.meanwhile()
        self.waiting.add(pair)

    def withdraw(self, _: str, pair: tuple[str, str], **__: Any) -> None:
        """As KeySessions.withdraw."""
        self.waiting.discard(pair)


def heard(sessions: Sessions) -> Notifications:
    """Of a node whose steps are done at once."""
    at_once = SimpleNamespace(later=lambda _, step, application: step(application) or True)
    return Notifications(
        "b", graph=SimpleNamespace(), agents=at_once, sessions=sessions, upkeep=SimpleNamespace(),
        journal=SimpleNamespace(), followed=contextlib.nullcontext,
    )  # fmt: skip


def test_withdrawal_that_comes_while_the_registration_is_under_way_takes_it_back():
    """It found nothing yet."""
    sessions = Sessions()
    node = heard(sessions)
    sessions.meanwhile = lambda: node.handle(GONE)

    node.handle(NEW)

    assert sessions.waiting == set()


def test_who_registers_anew_after_a_withdrawal_is_registered():
    """Though the first registration is still under way."""
    sessions = Sessions()
    node = heard(sessions)
    again = []

    def meanwhile() -> None:
        if not again:
            again.append(1)
            node.handle(GONE)
            node.handle(NEW)

    sessions.meanwhile = meanwhile
    node.handle(NEW)

    assert sessions.waiting == {(ALICE, BOB)}
