"""The operator's desk, with a control room that the test plays."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtls.call import Reply
from testbed.desk import Desk, NotDone
from testbed.plan import SaePlan, make_plan
from testbed.topology import load

PLAN = make_plan(load("poliqi", Path(__file__).resolve().parents[2] / "topologies"))
KSID = "0b5dbe43-66a9-4b30-9b6c-1f8f4a1a0c11"


class Room:
    """Answers of controller and master; notes what was called."""

    def __init__(self, of_master: int) -> None:
        self._of_master = of_master
        self.called: list[tuple[str, str, str]] = []

    def controller(self, method: str, path: str, *_: Any) -> Reply:
        """It has one session, which it can end."""
        self.called.append(("controller", method, path))
        master, slave = (PLAN.sae(name) for name in ("billing", "library"))
        session = {"ksid": KSID, "master_sae": master.id, "slave_sae": slave.id, "implicit": False}
        return Reply(200, {"key_sessions": [session]}) if method == "GET" else Reply(204, None)

    def sae(self, sae: SaePlan, method: str, path: str, *_: Any) -> Future[Reply]:
        """What the test says."""
        self.called.append((sae.name, method, path))
        answer: Future[Reply] = Future()
        answer.set_result(Reply(self._of_master, {"message": "as told"}))
        return answer


def calls(room: Room) -> list[tuple[str, str, str]]:
    """Those that end something."""
    return [call for call in room.called if call[1] == "DELETE"]


def test_session_is_ended_by_its_master():
    """Which then asks for no more keys."""
    room = Room(204)
    Desk(SimpleNamespace(plan=PLAN), room).close(KSID)

    assert calls(room) == [("billing", "DELETE", f"/sae/v1/sessions/{KSID}")]


def test_session_that_its_master_has_forgotten_is_ended_by_the_controller():
    """A master that was started anew knows of none, and the session would be there for ever."""
    room = Room(404)
    Desk(SimpleNamespace(plan=PLAN), room).close(KSID)

    assert calls(room)[1:] == [("controller", "DELETE", f"/qkd/v1/key_sessions/{KSID}")]


def test_session_that_its_master_does_not_end_stays():
    """And the operator reads why."""
    room = Room(503)
    with pytest.raises(NotDone, match="not closed: as told"):
        Desk(SimpleNamespace(plan=PLAN), room).close(KSID)

    assert len(calls(room)) == 1
