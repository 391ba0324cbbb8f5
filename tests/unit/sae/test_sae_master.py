"""A master's sessions where something of its own goes wrong: it says what, goes on, and leaves nothing behind."""

from __future__ import annotations

import errno
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decisions.rekey import END, GO_ON
from documents.secret import Secret
from etsi.gs004 import QoS
from mtls import deadline
from sae.client import Failed, Opened
from sae.handover import Forgotten
from sae.master import Limits, Master
from sae.sessions import Record
from telemetry import bugs, journal
from telemetry.journal import Journal
from tests.support.waiting import until

KSID, ALICE, BOB = (str(uuid.uuid4()) for _ in range(3))
VALUE = "5ec2e7"
QOS = QoS(key_size_bits=128, interval_s=0.01)


class World:
    """The master's KME and its slave, which do all that they are asked; `told`: how sessions ended for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: set[str] = set()
        self.told: list[str] = []
        self.on_key: Callable[[], object] = lambda: None
        self.on_close: Callable[[], object] = lambda: None
        self.record = Record(Journal(path, "sae:a"), Secret(b"s" * 32))

    def open_key_session(self, *_: object) -> Opened:
        """As the KME."""
        self.open.add(KSID)
        return Opened(KSID, ("a", "b"))

    def get_key(self, *_: object) -> tuple[str, Secret]:
        """As the KME."""
        self.on_key()
        return str(uuid.uuid4()), Secret(bytes(16))

    def close_key_session(self, ksid: str) -> None:
        """As the KME."""
        in_time()
        self.on_close()
        self.open.discard(ksid)
        self.told.append("KME")

    def ask_connection(self, *_: object) -> None:
        """As the slave, like what follows."""

    ask_key = message = ask_connection

    def end(self, _: str) -> None:
        """As the slave."""
        in_time()
        self.told.append("slave")

    def master(self, *, on_key_failure: str = GO_ON, pace: Any = None, record: Record | None = None) -> Master:
        """One that has to do with these."""
        return Master(
            ALICE, "telecom/A", kme=self, handover=self, record=record or self.record, on_key_failure=on_key_failure,
            pace=pace,
        )  # fmt: skip

    def events(self, name: str) -> list[dict[str, Any]]:
        """Of the application's journal."""
        return journal.read(self.path, name)


def in_time() -> None:
    """As a Caller, which asks nobody when it is too late."""
    if deadline.left(1.0) < 0:
        raise Failed(503, "unreachable", "no time is left to ask")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """All is well."""
    return World(tmp_path / "journal.jsonl")


def raised(error: Exception) -> None:
    """Raise it."""
    raise error


def once(error: Exception) -> Callable[[], None]:
    """Raise it the first time."""
    errors = [error]

    def step() -> None:
        if errors:
            raise errors.pop()

    return step


def test_bug_in_rekeying_is_told_with_its_place_and_the_session_goes_on(world, caplog):
    """Its text may be key material, and is nowhere."""
    world.on_key = once(ValueError(VALUE))
    master = world.master()
    session = master.open(BOB, QOS, Limits())

    until(lambda: session.keys >= 2)
    assert master.close(KSID)
    assert f"rekeying: {bugs.MARK}, ValueError" in caplog.text
    assert "test_sae_master.py" in caplog.text
    (told,) = world.events("key_error")
    assert (told["cause"], told["message"]) == ("internal_error", "a bug in this SAE: see its log")
    assert VALUE not in caplog.text + world.path.read_text()


def test_full_disk_at_the_master_is_called_that_and_no_bug(world, caplog):
    """The operator is to make room, and not to look for a bug."""
    world.on_key = once(OSError(errno.ENOSPC, VALUE))
    master = world.master(on_key_failure=END)
    session = master.open(BOB, QOS, Limits())

    until(lambda: world.events("session_closed"))
    (told,) = world.events("key_error")
    assert told["cause"] == "machine_refused"
    assert told["message"] == "the machine of this SAE refuses: No space left on device"
    assert session.errors == {"machine_refused": 1}
    assert bugs.MARK not in caplog.text


def forgotten() -> None:
    """The slave was restarted."""
    raise Forgotten(404, "no_session", "there is no key session of this KSID with this master")


def test_session_that_its_slave_has_forgotten_goes_on_as_a_new_one_with_what_is_left_of_its_limits(world, monkeypatch):
    """Two keys are left of three. The old one is ended first, at KME and slave."""
    fates = [lambda: None, forgotten]
    monkeypatch.setattr(world, "ask_key", lambda *_: fates.pop(0)() if fates else None)
    master = world.master()
    master.open(BOB, QOS, Limits(keys=3))

    until(lambda: len(world.events("session_closed")) == 2 and not master.sessions())
    first, second = world.events("session_closed")
    assert [(e["reason"], e["keys"], e["errors"]) for e in (first, second)] == [
        ("no_session", 1, {"no_session": 1}), ("keys", 2, {}),
    ]  # fmt: skip
    assert world.told == ["KME", "slave"] * 2


def test_session_that_its_slave_has_forgotten_ends_where_a_failure_ends_it(world, monkeypatch):
    """As with any other failure."""
    monkeypatch.setattr(world, "ask_key", lambda *_: forgotten())
    master = world.master(on_key_failure=END)
    master.open(BOB, QOS, Limits())

    until(lambda: world.events("session_closed") and not master.sessions())
    assert len(world.events("session_requested")) == 1
    assert world.events("session_closed")[0]["reason"] == "key_error"


def test_session_that_was_closed_meanwhile_is_not_opened_anew(world, monkeypatch):
    """The operator has said so, while the slave was being asked."""
    master = world.master()

    def ask_key(*_: object) -> None:
        closing = threading.Thread(target=master.close, args=(KSID,), daemon=True)
        closing.start()
        until(next(iter(master._running.values())).stop.is_set)
        forgotten()

    monkeypatch.setattr(world, "ask_key", ask_key)
    master.open(BOB, QOS, Limits())

    until(lambda: world.events("session_closed") and not master.sessions())
    assert len(world.events("session_requested")) == 1


def test_session_that_cannot_be_opened_anew_is_over(world, monkeypatch):
    """The journal says why."""
    monkeypatch.setattr(world, "ask_key", lambda *_: forgotten())
    refused = Failed(503, "refused", "QC a-b/1 cannot")
    world.on_close = lambda: monkeypatch.setattr(world, "ask_connection", lambda *_: raised(refused))
    master = world.master()
    master.open(BOB, QOS, Limits())

    until(lambda: world.events("session_refused") and not master.sessions())
    assert len(world.events("session_open")) == 1


class _NoPace:
    def take(self, *_: object) -> float:
        """Never."""
        raise ValueError(VALUE)


def test_session_that_meets_a_bug_outside_rekeying_ends_at_kme_and_slave(world, caplog):
    """They would keep it, and the pair would never have another one."""
    master = world.master(pace=_NoPace())
    master.open(BOB, QOS, Limits())

    until(lambda: not master.sessions())
    assert (world.open, sorted(world.told)) == (set(), ["KME", "slave"])
    assert world.events("session_closed")[0]["reason"] == "internal_error"
    assert f"session {KSID}: {bugs.MARK}, ValueError" in caplog.text
    assert VALUE not in caplog.text + world.path.read_text()


def test_session_whose_end_meets_a_bug_is_ended_again(world, caplog):
    """The slave is told all the same."""
    world.on_close = once(ValueError(VALUE))
    master = world.master()
    session = master.open(BOB, QOS, Limits(keys=1))

    until(lambda: not master.sessions())
    assert session.keys == 1
    assert (world.open, sorted(world.told)) == (set(), ["KME", "slave"])
    assert f"closing {KSID}: {bugs.MARK}, ValueError" in caplog.text


class _NoRoom(Record):
    def event(self, name: str, **facts: Any) -> None:
        """What the session's opening cannot be written down with."""
        if name == "session_open":
            raise ValueError(VALUE)
        super().event(name, **facts)


def test_session_whose_opening_meets_a_bug_at_the_master_is_taken_back(world, tmp_path):
    """KME and slave have it by then."""
    record = _NoRoom(Journal(tmp_path / "other.jsonl", "sae:a"), Secret(b"s" * 32))
    master = world.master(record=record)

    with pytest.raises(ValueError, match=VALUE):
        master.open(BOB, QOS, Limits())
    assert (world.open, sorted(world.told), master.sessions()) == (set(), ["KME", "slave"], [])


@pytest.mark.parametrize(("late", "told"), [("KME", ["slave"]), ("master", ["KME", "slave"])])
def test_opening_that_took_all_its_time_is_taken_back_in_time_of_its_own(world, tmp_path, monkeypatch, late, told):
    """The KME did not answer in time, or the master failed then: the slave must not wait for keys."""
    record = _NoRoom(Journal(tmp_path / "other.jsonl", "sae:a"), Secret(b"s" * 32))
    if late == "KME":
        no_answer = Failed(503, "kme_unreachable", "no answer within 1 s")
        monkeypatch.setattr(world, "open_key_session", lambda *_: raised(no_answer))

    with deadline.until(time.monotonic() - 1), pytest.raises((Failed, ValueError)):
        world.master(record=record).open(BOB, QOS, Limits())

    assert (world.open, world.told) == (set(), told)


def test_session_for_which_there_is_no_thread_is_taken_back(world, monkeypatch):
    """The machine has no more."""

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    master = world.master()
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError):
        master.open(BOB, QOS, Limits())

    assert (world.open, sorted(world.told), master.sessions()) == (set(), ["KME", "slave"], [])
