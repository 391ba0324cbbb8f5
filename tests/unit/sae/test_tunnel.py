"""An end of a tunnel, whatever carries its packets: under which key it is, and when it lets nothing through."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from decisions.tunnels import CLOSE, HOLD, Terms
from documents.secret import Secret
from sae.client import Failed
from sae.sessions import Record
from sae.vpn.tunnel import CLOSED, HELD, UP, Tunnel
from telemetry import journal
from telemetry.journal import Journal
from tests.support.waiting import until

EVERY_S = 0.5
OTHER = str(uuid.uuid4())


class Keys:
    """A KME that has keys, until it has none."""

    def __init__(self) -> None:
        self.failing: Failed | None = None
        self.given: list[Secret] = []
        self._numbers = itertools.count(1)

    def get_key(self, _: str, size_bits: int) -> tuple[str, Secret]:
        if self.failing is not None:
            raise self.failing
        key = Secret(next(self._numbers).to_bytes(size_bits // 8, "big"))
        self.given.append(key)
        return str(uuid.uuid4()), key

    def get_keys_with_ids(self, _: str, key_ids: list[str]) -> dict[str, Secret]:
        return {key_id: self.get_key("", 256)[1] for key_id in key_ids}


class Wire:
    """What carries packets here: it notes what it is told, and may refuse to agree under a key."""

    data_path = "a wire"
    idle = 1

    def __init__(self) -> None:
        self.told: list[str] = []
        self.loaded: set[bytes] = set()
        self.disagrees = False

    def load(self, _: str, key: Secret, far: int, *, first: bool) -> None:
        self.told.append(f"load first with {far}" if first else f"load with {far}")
        self.loaded.add(key.reveal())

    def establish(self, _: str) -> None:
        if self.disagrees:
            raise Failed(504, "handshake", "no handshake")

    def turn(self, _: str) -> None:
        self.told.append("turn")

    def forget_others(self) -> None:
        self.told.append("forget")

    def close(self) -> None:
        self.told.append("close")

    def carried(self) -> tuple[int, int]:
        return 1, 2

    def remove(self) -> None:
        self.told.append("remove")


class Far:
    """The other gateway, which does as it is told."""

    sae_id, name = OTHER, "far"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.deaf = False

    def load(self, _: str, way: int) -> int:
        self.told.append(f"load with {way}")
        return 0

    def turn(self, _: str) -> None:
        if self.deaf:
            raise Failed(503, "unreachable", "it does not hear")
        self.told.append("turn")


class End:
    """A tunnel's end with all that it works with."""

    def __init__(self, folder: Path, policy: str, *, leads: bool, deaf: bool = False) -> None:
        self.kme, self.wire, self.far = Keys(), Wire(), Far()
        self.far.deaf = deaf
        self.journal = folder / "journal.jsonl"
        record = Record(Journal(self.journal, "sae"), Secret(bytes(32)))
        parts: Any = {"kme": self.kme, "record": record, "here": "near", "leads": leads, "round_trip_s": 0.0}
        far: Any = self.far
        wire: Any = self.wire
        self.tunnel = Tunnel(Terms("wireguard", EVERY_S, policy), far, wire, **parts)
        self.tunnel.start()

    def says(self) -> Mapping[str, Any]:
        return self.tunnel.to_json()

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return list(journal.read(self.journal, name))


@pytest.fixture
def made() -> Iterator[list[End]]:
    """Ends, which are stopped afterwards."""
    ends: list[End] = []
    yield ends
    for end in ends:
        end.tunnel.stop()


def leading(made: list[End], folder: Path, policy: str = CLOSE) -> End:
    made.append(End(folder, policy, leads=True))
    return made[-1]


def following(made: list[End], folder: Path, policy: str = CLOSE) -> End:
    made.append(End(folder, policy, leads=False))
    return made[-1]


def test_leading_end_brings_both_ends_under_key_after_key(made, tmp_path):
    """It goes first in each handshake; the other end is told to load, then to turn. Each knows the other one's way."""
    end = leading(made, tmp_path)
    end.tunnel.wait(10)

    until(lambda: end.says()["keys"] >= 3)
    assert end.says()["state"] == UP
    assert end.far.told[:4] == ["load with 1", "turn", "load with 1", "turn"]
    assert end.wire.told[:3] == ["load first with 0", "turn", "forget"]


def test_tunnel_is_open_once_the_other_end_has_turned_too(made, tmp_path):
    """What is sent before that comes to an end that has no way back."""
    made.append(End(tmp_path, CLOSE, leads=True, deaf=True))
    tunnel, far = made[-1].tunnel, made[-1].far

    until(lambda: made[-1].says()["problem"] == "it does not hear")
    with pytest.raises(Failed, match="it does not hear"):
        tunnel.wait(0)
    far.deaf = False
    tunnel.wait(10)


def test_no_key_stays_in_memory_once_it_is_loaded(made, tmp_path):
    """Nor after a failure: it is wiped in any case."""
    end = leading(made, tmp_path)
    until(lambda: end.says()["keys"] >= 2)
    end.tunnel.stop()

    assert [len(key) for key in end.kme.given] == [0] * len(end.kme.given)


@pytest.mark.parametrize(("policy", "state"), [(CLOSE, CLOSED), (HOLD, HELD)])
def test_end_whose_key_has_lapsed_closes_or_holds_and_says_why(made, tmp_path, policy, state):
    """As its user wished."""
    end = leading(made, tmp_path, policy)
    end.tunnel.wait(10)
    end.kme.failing = Failed(503, "short_of_material", "QC a-b/1 lacks 32 bytes")

    until(lambda: end.says()["state"] == state)
    until(lambda: end.says()["problem"] == "QC a-b/1 lacks 32 bytes")
    assert ("close" in end.wire.told) == (state == CLOSED)
    assert [e["event"] for e in end.events("tunnel_closed") + end.events("tunnel_held")] == [f"tunnel_{state}"]


def test_end_comes_back_with_the_next_key(made, tmp_path):
    """By itself."""
    end = leading(made, tmp_path)
    end.tunnel.wait(10)
    end.kme.failing = Failed(503, "short_of_material", "none")
    until(lambda: end.says()["state"] == CLOSED)

    end.kme.failing = None
    until(lambda: end.says()["state"] == UP)
    assert end.says()["problem"] is None


def test_key_under_which_the_ends_do_not_agree_is_never_turned_to(made, tmp_path):
    """So they would hold different ones."""
    end = leading(made, tmp_path)
    end.tunnel.wait(10)
    end.wire.disagrees = True
    until(lambda: end.says()["problem"] == "no handshake")

    turned = end.wire.told.count("turn")
    until(lambda: end.says()["state"] == CLOSED)
    assert end.wire.told.count("turn") == turned


def test_following_end_asks_for_no_key_of_its_own(made, tmp_path):
    """It fetches those that it is told of, and its key lapses as well."""
    end = following(made, tmp_path)
    assert end.says()["state"] == "waiting"

    key_id = str(uuid.uuid4())
    assert end.tunnel.load(key_id, 0) == end.wire.idle
    assert end.says()["key_id"] is None
    end.tunnel.turn(key_id)
    assert (end.says()["key_id"], end.says()["state"]) == (key_id, UP)
    until(lambda: end.says()["state"] == CLOSED)
    assert end.far.told == []


def test_tunnel_that_gets_no_first_key_says_what_is_in_the_way(made, tmp_path):
    """Once it has had its time."""
    end = following(made, tmp_path)

    with pytest.raises(Failed, match="no key has come"):
        end.tunnel.wait(0.1)
