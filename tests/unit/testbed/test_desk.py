"""The operator's desk, with a control room that the test plays."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtls.call import Reply
from scenario.topology import load
from testbed.errors import UserError
from testbed.fibres.fibres import Fibres
from testbed.operation.desk import Desk, NotDone
from testbed.planning.make import make_plan
from testbed.planning.plan import SaePlan

PLAN = make_plan(load("poliqi", Path(__file__).resolve().parents[3] / "topologies"))
KSID = "0b5dbe43-66a9-4b30-9b6c-1f8f4a1a0c11"


class Room:
    """Answers of controller and master; notes what was called."""

    def __init__(self, of_master: int) -> None:
        self._of_master = of_master
        self.called: list[tuple[str, str, str]] = []

    def controller(self, method: str, path: str, body: Any = None) -> Reply:
        """It has one session, which it can end, and takes what is set."""
        self.called.append(("controller", method, path))
        if method == "PATCH":
            return Reply(200, body)
        master, slave = (PLAN.sae(name) for name in ("billing", "library"))
        session = {"ksid": KSID, "master_sae": master.id, "slave_sae": slave.id, "implicit": False}
        return Reply(200, {"key_sessions": [session]}) if method == "GET" else Reply(204, None)

    def sae(self, sae: SaePlan, method: str, path: str, *_: Any) -> Future[Reply]:
        """What the test says."""
        self.called.append((sae.name, method, path))
        answer: Future[Reply] = Future()
        answer.set_result(Reply(self._of_master, {"message": "as told"}))
        return answer


def desk(room: Room, fibres: Fibres | None = None) -> Desk:
    """The desk there."""
    return Desk(PLAN, room, fibres)


def calls(room: Room) -> list[tuple[str, str, str]]:
    """Those that end something."""
    return [call for call in room.called if call[1] == "DELETE"]


def test_session_is_ended_by_its_master():
    """Which then asks for no more keys."""
    room = Room(204)
    desk(room).close(KSID)

    assert calls(room) == [("billing", "DELETE", f"/sae/v1/sessions/{KSID}")]


def test_session_that_its_master_has_forgotten_is_ended_by_the_controller():
    """A master that was started anew knows of none, and the session would be there for ever."""
    room = Room(404)
    desk(room).close(KSID)

    assert calls(room)[1:] == [("controller", "DELETE", f"/qkd/v1/key_sessions/{KSID}")]


def test_session_that_its_master_does_not_end_stays():
    """And the operator reads why."""
    room = Room(503)
    with pytest.raises(NotDone, match="not closed: as told"):
        desk(room).close(KSID)

    assert len(calls(room)) == 1


def test_ttl_is_not_set_below_what_the_fibres_need():
    """Eight round trips; and what was set counts for changes of fibres from then on."""
    fibres = Fibres(PLAN, SimpleNamespace(apply=lambda *_, **__: None), ttl_slots=15)
    room = Room(204)
    operator = desk(room, fibres)
    fibre = fibres.all()[0].name
    fibres.change(fibre, {"delay_ms": 500})
    with pytest.raises(UserError, match="an eighth of a TTL of 8 slots"):
        operator.set_parameter("ttl_slots", "8")
    assert not room.called

    fibres.reset(fibre)
    assert operator.set_parameter("ttl_slots", "8") == "ttl_slots is 8 now"
    with pytest.raises(UserError, match="an eighth of a TTL of 8 slots"):
        fibres.change(fibre, {"delay_ms": 500})


def test_sae_outside_the_testbed_tells_nothing_of_itself():
    """Nobody calls it; the operator reads why."""
    room = Room(200)
    with pytest.raises(NotDone, match=r"alice runs outside the testbed, and tells nothing of itself"):
        desk(room).sessions_of("alice")

    assert not room.called


def test_several_parameters_are_set_by_one_call_or_none_of_them_is():
    """One that is out of its limits is named, and the controller hears of none."""
    room = Room(204)
    with pytest.raises(NotDone, match=r"^not set: ttl_slots: expected"):
        desk(room).set_parameters({"mode": "otp", "ttl_slots": 0})

    assert not room.called
