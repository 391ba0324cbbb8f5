"""The two ends of a QC with devices, whatever fails between them: the same bytes in the same places, and none twice."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from documents.secret import Secret
from mtls.call import Unreachable
from node.config import Neighbour
from node.devices import following_end
from node.devices.device_end import DeviceEnd
from node.devices.device_kme import Refused, Silent
from node.devices.following_end import FollowingEnd
from node.devices.leading_end import LeadingEnd
from node.devices.offers import told
from node.limits import KEYS_LATE_S
from node.material.key_store import KeyStore
from telemetry.journal import Journal, read

QC = "a-b/1"
KEY = Secret(bytes(range(32)))
WELL, SILENT, REFUSES, LOSES_ANSWER, AGAIN, LIES = FAULTS = ("well", "silent", "refuses", "loses", "again", "lies")


class DeviceInMemory:
    """One end of a device: a fault holds for the next request."""

    def __init__(self) -> None:
        self.twin = self
        self.fault = WELL
        self.waiting: dict[str, bytes] = {}
        self.last: dict[str, bytes] = {}

    def check(self) -> None:
        """It is there unless it is silent."""
        if self.fault == SILENT:
            self.fault = WELL
            raise Silent("no answer")

    def get_keys(self) -> dict[str, Secret]:
        """Two new keys, or the last ones."""
        new = {str(uuid.uuid4()): secrets.token_bytes(16) for _ in range(2)}
        if self.fault == AGAIN and self.last:
            new = self.last
        elif self.fault not in (SILENT, REFUSES):
            self.twin.waiting |= new
            self.last = new
        return self._answered(new)

    def get_keys_with_ids(self, key_ids: Sequence[str]) -> dict[str, Secret]:
        """Those that wait; gone from here then."""
        self.check()
        if self.fault == REFUSES or not set(key_ids) <= self.waiting.keys():
            self.fault = WELL
            raise Refused("not found", for_good=True)
        return self._answered({key_id: self.waiting.pop(key_id) for key_id in key_ids})

    def _answered(self, keys: dict[str, bytes]) -> dict[str, Secret]:
        fault, self.fault = self.fault, WELL
        if fault in (SILENT, LOSES_ANSWER):
            raise Silent("no answer")
        if fault == REFUSES:
            raise Refused("busy", for_good=False)
        change = 1 if fault == LIES else 0
        return {key_id: Secret(bytes([key[0] ^ change]) + key[1:]) for key_id, key in keys.items()}

    def close(self) -> None:
        """Nothing to do."""


class Ends(RuleBasedStateMachine):
    """Node a leads, node b follows; both have their local databases on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.devices = {"a": DeviceInMemory(), "b": DeviceInMemory()}
        self.devices["a"].twin, self.devices["b"].twin = self.devices["b"], self.devices["a"]
        self.stores: dict[str, KeyStore] = {}
        self.journals: list[Journal] = []
        self.ends: dict[str, DeviceEnd] = {}
        self.wire = "well"
        self.copied: set[str] = set()
        for node in "ab":
            self.begin(node)

    def begin(self, node: str) -> None:
        """Its process starts."""
        folder = self.directory / node
        folder.mkdir(exist_ok=True)
        store = self.stores[node] = KeyStore(folder / "local.db", folder / "node.key", ttl_slots=3600)
        journal = Journal(folder / "journal.jsonl", node)
        self.journals.append(journal)
        neighbour = Neighbour(QC, "b" if node == "a" else "a", 1, KEY)
        common: dict[str, Any] = {"every_s": 0.0, "store": store, "journal": journal, "slot_s": 1.0}
        if node == "a":
            self.ends[node] = LeadingEnd(neighbour, self.devices[node], **common)
        else:
            self.ends[node] = FollowingEnd(neighbour, self.devices[node], ask=self.ask, **common)

    def ask(self, body: dict[str, Any]) -> Any:
        """From b to a; request or answer may be lost."""
        wire, self.wire = self.wire, "well"
        if wire == "request lost":
            raise Unreachable("a", "lost")
        leading = self.ends["a"]
        assert isinstance(leading, LeadingEnd)
        answer = leading.answer(told(body)).to_json()
        if wire == "answer lost":
            raise Unreachable("a", "lost")
        return answer

    def rows(self, node: str, query: str) -> list[Any]:
        """Of its local database."""
        database = sqlite3.connect(self.directory / node / "local.db")
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()

    @rule()
    def lead(self) -> None:
        """Node a does what there is to do."""
        self.ends["a"].step()

    @rule()
    def follow(self) -> None:
        """Node b does."""
        self.ends["b"].step()

    @rule(node=st.sampled_from("ab"), fault=st.sampled_from(FAULTS))
    def fault(self, node: str, fault: str) -> None:
        """The device fails at its next request."""
        self.devices[node].fault = fault

    @rule(wire=st.sampled_from(["request lost", "answer lost"]))
    def lose(self, wire: str) -> None:
        """The next message between the nodes is lost."""
        self.wire = wire

    @rule(node=st.sampled_from("ab"))
    def crash(self, node: str) -> None:
        """The node's process ends, and begins anew on what it has on disk."""
        self.stores[node].close()
        self.begin(node)

    @rule(node=st.sampled_from("ab"))
    def copy(self, node: str) -> None:
        """Somebody keeps a copy of its local database."""
        self.stores[node].close()
        shutil.copy(self.directory / node / "local.db", self.directory / f"{node}.copy")
        self.copied.add(node)
        self.begin(node)

    @precondition(lambda self: self.copied)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """The copy is put back; the shared database knows better, so what it holds is erased."""
        node = data.draw(st.sampled_from(sorted(self.copied)))
        self.stores[node].close()
        shutil.copy(self.directory / f"{node}.copy", self.directory / node / "local.db")
        self.copied.remove(node)
        self.begin(node)
        self.stores[node].catch_up(self.stores[node].counted + 1)

    @rule()
    def trust(self) -> None:
        """An operator switches the QC off and on."""
        for enabled in (False, True):
            for node in "ab":
                self.ends[node].set_enabled(enabled)

    @rule()
    def heal(self) -> None:
        """With nothing in the way, new keys come to lie at both ends."""
        self.wire = "well"
        for device in self.devices.values():
            device.fault = WELL
        self.trust()
        if not self.goes_on():
            # A lie of before was found out only now. Or a device that says that it has not what its twin gave is asked
            # for some seconds more.
            offers, suspicion = self.stores["a"].offers(QC), self.stores["a"].suspicion(QC)
            assert offers or suspicion
            self.stores["a"].withdraw(QC, offers)
            self.trust()
            assert self.goes_on()

    def goes_on(self) -> bool:
        """Whether the ends soon hold a further block alike."""
        before = self.common()
        for _ in range(12):
            self.ends["b"].step()
            self.ends["a"].step()
            if self.common() - before:
                return True
        return False

    def common(self) -> set[Any]:
        """Blocks that both ends hold alike."""
        query = "SELECT epoch, start, end, digest FROM block"
        return set(self.rows("a", query)) & set(self.rows("b", query))

    @invariant()
    def what_lies_in_one_place_is_the_same(self) -> None:
        """Of the same epoch, blocks of the two ends are alike, or do not overlap: unless one was erased meanwhile."""
        query = "SELECT epoch, start, end, digest FROM block"
        for epoch, start, end, digest in self.rows("a", query):
            for other in self.rows("b", query):
                overlap = other[0] == epoch and other[1] < end and start < other[2]
                assert not overlap or other == (epoch, start, end, digest)

    @invariant()
    def keys_lie_where_their_ids_say(self) -> None:
        """A node has as many bytes of a device as keys that it remembers."""
        for node in "ab":
            ((generated,),) = self.rows(node, "SELECT coalesce(sum(generated), 0) FROM stream")
            ((laid,),) = self.rows(node, "SELECT count(*) FROM laid")
            assert generated == 16 * laid

    def teardown(self) -> None:
        """Nothing is left."""
        for left in (*self.stores.values(), *self.journals):
            left.close()
        shutil.rmtree(self.directory)


TestEnds = Ends.TestCase
TestEnds.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both, outside of the machine."""
    made = Ends()
    yield made
    made.teardown()


def test_blocks_that_a_device_has_lost_are_given_up_together(ends, monkeypatch):
    """A device that was down may need a moment; but what it has not then it has not later, block after block."""
    now = [1000.0]
    for store in ends.stores.values():
        monkeypatch.setattr(store, "clock", lambda: now[0])
    monkeypatch.setattr(following_end, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ends.follow()
    for _ in range(3):
        ends.lead()
    ends.devices["b"].waiting.clear()
    journal = ends.directory / "b" / "journal.jsonl"

    now[0] += KEYS_LATE_S + 1  # while the device was down
    ends.devices["b"].fault = SILENT
    ends.follow()
    ends.follow()
    assert not read(journal, "device_gap")
    now[0] += KEYS_LATE_S
    for _ in range(4):
        ends.follow()

    assert len(read(journal, "device_gap")) == 3
    assert ends.goes_on()
