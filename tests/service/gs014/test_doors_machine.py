"""The rules of key material, tried by a machine at the doors by which keys leave: GS QKD 014, SKIP and GS QKD 004.

Real KMEs answer; `test_key_material_machine.py` tries what lies below. Nobody gets a key twice, whichever two doors he
takes, nobody gets another SAE's, and both ends get the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from tests.support.gs004_client import Application
from tests.support.gs014_client import NOT_FOUND

SUCCESS, NO_PEER, NOT_OPEN = 0, 3, 9
NODES = {"alice": "a", "adam": "a", "bob": "b", "mallory": "b", "carol": "c"}
_PAIRS = ("alice", "bob"), ("alice", "carol"), ("adam", "mallory")
PAIRS = st.sampled_from([*_PAIRS, *(pair[::-1] for pair in _PAIRS)])
SAES = st.sampled_from(sorted(NODES))
BY_ID = st.sampled_from(("014", "skip"))  # the doors through which a key is fetched by its ID
SIZES = st.sampled_from((64, 256, 1024))
INDEXES = st.integers(0, 4)
EITHER = st.sampled_from((0, 1))
# So many bytes of a key come in no other one, wherever in it.
_WINDOW = 8


@dataclass(frozen=True)
class Key:
    """One that its master has."""

    key_id: str
    key: bytes = field(repr=False)
    master: str
    slave: str


@dataclass(eq=False)
class Stream:
    """One that both of its SAEs have opened: the chunks that each has had, by index, and which of them has closed it.
    """

    ksid: uuid.UUID
    ends: tuple[str, str]
    had: tuple[dict[int, bytes], dict[int, bytes]]
    closed: set[int] = field(default_factory=set)


class Doors:
    """The network as its SAEs see it, and every piece of key material that has left it."""

    def __init__(self, kmes, applications: dict[str, Application]) -> None:
        self.kmes = kmes
        self.applications = applications
        self._left: set[bytes] = set()

    def new(self, key: bytes) -> bytes:
        """That key, no part of which has left before."""
        pieces = {key[i : i + _WINDOW] for i in range(len(key) - _WINDOW + 1)}
        assert not pieces & self._left
        self._left |= pieces
        return key

    def fetch(self, door: str, who: str, master: str, key_id: str) -> tuple[int, bytes | str]:
        """The status of the answer, and the key or the message."""
        sae, asks = self.kmes.saes[who], self.kmes.ids[master]
        if door == "skip":
            answer = sae.call("GET", f"/key/{uuid.UUID(key_id).hex}?remoteSystemID={asks}")
            return answer.status, bytes.fromhex(answer.body["key"]) if answer.status == 200 else answer.message
        answer = sae.fetch(asks, key_id)
        return answer.status, answer.keys[key_id] if answer.status == 200 else answer.message

    def newest_chunk(self, maker: str) -> str:
        """The ID of the key that was the last one to leave the maker's node by GS QKD 004."""
        journal = reversed(self.kmes.journal(NODES[maker]))
        kind = "key_delivered", "gs004"
        return next(event["key_ids"][0] for event in journal if (event["event"], event.get("protocol")) == kind)


class KeysAtDoors(RuleBasedStateMachine):
    """Five SAEs at three nodes in a row."""

    given = Bundle("given")  # keys that their slaves have not fetched
    taken = Bundle("taken")  # and those that they have
    streams = Bundle("streams")

    def __init__(self, doors: Doors) -> None:
        super().__init__()
        self.doors = doors
        self.open: list[Stream] = []
        self.waiting: list[Key] = []

    def teardown(self) -> None:
        """What was given is still there for its slave, and streams are closed."""
        for key in self.waiting:
            assert self.doors.fetch("014", key.slave, key.master, key.key_id) == (200, key.key)
        for stream in self.open:
            for side in {0, 1} - stream.closed:
                assert self.end(stream, side).close_stream(stream.ksid) == SUCCESS

    def end(self, stream: Stream, side: int) -> Application:
        """The connection of that side."""
        return self.doors.applications[stream.ends[side]]

    # Keys with IDs

    @rule(target=given, pair=PAIRS, size=SIZES, number=st.integers(1, 3))
    def keys_by_014(self, pair: tuple[str, str], size: int, number: int):
        """As a master asks for them."""
        answer = self.doors.kmes.saes[pair[0]].post(self.doors.kmes.ids[pair[1]], {"size": size, "number": number})
        assert (answer.status, len(answer.ids)) == (200, number)
        return multiple(*(self.gave(Key(key_id, key, *pair), size) for key_id, key in answer.keys.items()))

    @rule(target=given, pair=PAIRS, size=SIZES)
    def key_by_skip(self, pair: tuple[str, str], size: int) -> Key:
        """As an encryptor asks for one."""
        path = f"/key?remoteSystemID={self.doors.kmes.ids[pair[1]]}&size={size}"
        answer = self.doors.kmes.saes[pair[0]].call("GET", path)
        assert answer.status == 200
        return self.gave(Key(str(uuid.UUID(answer.body["keyId"])), bytes.fromhex(answer.body["key"]), *pair), size)

    def gave(self, key: Key, size: int) -> Key:
        """A master has it."""
        assert 8 * len(self.doors.new(key.key)) == size
        self.waiting.append(key)
        return key

    @rule(target=taken, key=consumes(given), door=BY_ID)
    def slave_fetches(self, key: Key, door: str) -> Key:
        """Through the same door, or another one: the same bytes."""
        self.waiting.remove(key)
        assert self.doors.fetch(door, key.slave, key.master, key.key_id) == (200, key.key)
        return key

    @rule(key=taken, door=BY_ID)
    def slave_fetches_again(self, key: Key, door: str) -> None:
        """What it has had by any door."""
        assert self.doors.fetch(door, key.slave, key.master, key.key_id) == (400, NOT_FOUND)

    @rule(key=given, who=SAES, door=BY_ID)
    def another_one_fetches(self, key: Key, who: str, door: str) -> None:
        """An SAE that is not its slave: the master itself, one at a site of theirs, or elsewhere. It stays there."""
        if who != key.slave:
            assert self.doors.fetch(door, who, key.master, key.key_id)[0] in (400, 401)

    # Streams

    @rule(target=streams, pair=PAIRS, chunk=st.sampled_from((8, 32)))
    def stream_opens(self, pair: tuple[str, str], chunk: int) -> Stream:
        """At both ends."""
        ids = [self.doors.kmes.ids[name] for name in pair]
        opened = self.doors.applications[pair[0]].open(*ids, chunk=chunk)
        joined = self.doors.applications[pair[1]].open(*ids, ksid=opened.ksid)
        assert (opened.status, joined.status) == (SUCCESS, SUCCESS)
        self.open.append(Stream(opened.ksid, pair, ({}, {})))
        return self.open[-1]

    @rule(stream=streams, side=EITHER, index=INDEXES)
    def chunk(self, stream: Stream, side: int, index: int) -> None:
        """The one that it asked for or the next one that it has not had: the other side's, or a new one."""
        self.get(stream, side, index)

    @rule(target=taken, stream=streams, side=EITHER, door=BY_ID)
    def chunk_is_had_by_both_and_asked_for_by_its_id(self, stream: Stream, side: int, door: str):
        """Made by one side and fetched by the other one: no other door has it any more."""
        made = self.make(stream, side)
        if made is None:
            return multiple()
        index, key = made
        assert self.get(stream, 1 - side, index) == index
        assert self.doors.fetch(door, key.slave, key.master, key.key_id) == (400, NOT_FOUND)
        return key

    @rule(target=taken, stream=streams, side=EITHER, door=BY_ID, who=SAES)
    def chunk_leaves_by_another_door(self, stream: Stream, side: int, door: str, who: str):
        """For who knows its ID and is its slave; then it comes in the stream no more."""
        made = self.make(stream, side)
        if made is None:
            return multiple()
        index, key = made
        if who != key.slave:
            assert self.doors.fetch(door, who, key.master, key.key_id)[0] in (400, 401)
        assert self.doors.fetch(door, key.slave, key.master, key.key_id) == (200, key.key)
        stream.had[1 - side][index] = key.key
        self.get(stream, 1 - side, index)
        return key

    def make(self, stream: Stream, side: int) -> tuple[int, Key] | None:
        """A chunk that no side has had, and its index; None where the stream is closed."""
        if stream.closed:
            return None
        index = self.get(stream, side, max([-1, *stream.had[0], *stream.had[1]]) + 1)
        maker, other = stream.ends[side], stream.ends[1 - side]
        return index, Key(self.doors.newest_chunk(maker), stream.had[side][index], maker, other)

    def get(self, stream: Stream, side: int, wanted: int) -> int:
        """What that side is given: its index, or -1 where there is none."""
        mine, others = stream.had[side], stream.had[1 - side]
        there = next(i for i in range(wanted, wanted + len(mine) + 1) if i not in mine)
        chunk = self.end(stream, side).get(stream.ksid, wanted)
        if side in stream.closed or (stream.closed and there not in others):
            assert chunk.status == NO_PEER
            return -1
        assert (chunk.status, chunk.index) == (SUCCESS, there)
        assert chunk.key == others[there] if there in others else self.doors.new(chunk.key)
        mine[there] = chunk.key
        return there

    @rule(stream=streams, who=SAES)
    def another_one_asks_for_a_chunk(self, stream: Stream, who: str) -> None:
        """Nothing is had by an SAE that is none of the two."""
        if who not in stream.ends:
            assert self.doors.applications[who].get(stream.ksid).status == NO_PEER
            assert self.doors.applications[who].close_stream(stream.ksid) == NOT_OPEN

    @rule(stream=streams, side=EITHER)
    def stream_closes(self, stream: Stream, side: int) -> None:
        """At one end: the other one has what was made, and no more."""
        status = self.end(stream, side).close_stream(stream.ksid)
        assert status == (NOT_OPEN if side in stream.closed else SUCCESS)
        stream.closed.add(side)


@pytest.fixture
def doors(kmes) -> Iterator[Doors]:
    """Each SAE connected to its node; keys live for longer than any test."""
    ttl_slots = kmes.node("a")["parameters"]["ttl_slots"]
    with ExitStack() as opened:
        opened.callback(kmes.set, ttl_slots=ttl_slots)
        kmes.set(ttl_slots=600)
        connections = {
            name: Application(kmes.saes[name].context, kmes.stack.stream_port(node)) for name, node in NODES.items()
        }
        for connection in connections.values():
            opened.callback(connection.hang_up)
        yield Doors(kmes, connections)


def test_rules_of_key_material_hold_at_all_doors_at_once(doors):
    """Whoever asks, in whatever order."""
    # The network lives on between two tries of one failure: there is no shrinking it, and no trying it again next time.
    unrepeatable = settings(
        max_examples=10, stateful_step_count=25, phases=[Phase.generate], database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    run_state_machine_as_test(lambda: KeysAtDoors(doors), settings=unrepeatable)
