"""Two real nodes at the ends of a QC whose device the test plays: what becomes a key, and for how long it lives."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from decisions.parameters import MOST_RATE
from documents.secret import Secret
from mtls.identity import Role
from node.material.blocks import ANSWER_BYTES, Block, boottime, connect, encode_age, read_answer
from node.material.key_store import KeyStore
from node.material.shared_db import SharedDatabase
from telemetry import journal
from testbed.database.postgres import node_url
from testbed.network.loopback import LOOPBACK
from tests.support.foreign import open_session
from tests.support.two_nodes import ALICE, BOB, KEY_BYTES, QC, TwoNodes
from tests.support.waiting import until

SLOT_S, LONG, SHORT = 0.25, 2400, 4  # and TTLs in slots


class Device:
    """A QKD device in its epoch; each end gets of a block what the test says."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._epoch = 1 + secrets.randbelow(1 << 62)
        self._sequence = self._offset = 0
        self._connections: dict[str, socket.socket] = {}

    def make(self, n_bytes: int = 4 * KEY_BYTES, *, to: str = "ab", differently: bool = False) -> None:
        """A block for the ends that are named."""
        payload = secrets.token_bytes(n_bytes)
        for end in to:
            sent = bytes([payload[0] ^ 1]) + payload[1:] if differently and end == "b" else payload
            self._deliver(
                end, Block(QC, self._sequence, self._sequence, self._offset, Secret(sent), epoch=self._epoch,
                           made=boottime())
            )  # fmt: skip
        self._sequence += 1
        self._offset += n_bytes

    def _deliver(self, end: str, block: Block) -> None:
        if end not in self._connections:
            self._connections[end] = connect(self._directory / end)
        connection = self._connections[end]
        connection.sendall(block.encode())
        while (answer := read_answer(connection.recv(ANSWER_BYTES, socket.MSG_WAITALL))) != block.sequence:
            if answer is None:
                connection.sendall(encode_age(boottime() - block.made))

    def stop(self) -> None:
        """Break off all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class Network(TwoNodes):
    """The device of their QC is the test."""

    device: Device

    def renew(self) -> None:
        """The device begins anew."""
        self.device.stop()
        self.device = Device(self.directory)

    def differing(self, node: str) -> list[tuple[int, int]]:
        """Bytes that the node says in its journal that it erased because the other end held others."""
        events = journal.read(self.directory / node / "journal.jsonl", "block_differs")
        return [(e["start"], e["end"]) for e in events]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The ends hold nothing that they agree on."""
    stack = Network(tmp_path_factory.mktemp("agreement"))
    stack.device = Device(stack.directory)
    try:
        stack.start_postgres()
        stack.start_nodes([(QC, "a", "b")], {ALICE: "a", BOB: "b"}, ttl_slots=LONG, slot_s=SLOT_S)
        open_session(stack.configure, (ALICE, BOB), ["a", "b"])
        yield stack
    finally:
        stack.device.stop()
        stack.stop()


@pytest.fixture(autouse=True)
def fresh(network: Network) -> None:
    """Each test begins with an epoch of which both ends hold a block alike, which becomes four keys."""
    network.renew()
    network.device.make()
    until(lambda: network.exchange() == "ok")
    for _ in range(3):
        assert network.exchange() == "ok"


def test_largest_block_that_a_qc_may_make_becomes_keys(network):
    """All that checks its length on the way lets it through: modules, local databases, the shared database."""
    network.device.make(MOST_RATE)

    until(lambda: network.exchange() == "ok")


def test_block_that_differs_becomes_no_key_and_both_ends_say_so(network):
    """A later one that agrees does; what differed is erased and counted."""
    before = len(network.differing("a"))
    network.device.make(differently=True)
    until(lambda: len(network.differing("a")) == len(network.differing("b")) == before + 1)
    assert network.exchange() == "short_of_material"

    network.device.make(KEY_BYTES)

    until(lambda: network.exchange() == "ok")
    assert network.exchange() == "short_of_material"
    assert network.differing("a")[before:] == network.differing("b")[before:] == [(4 * KEY_BYTES, 8 * KEY_BYTES)]


def test_block_that_one_end_missed_becomes_no_key(network):
    """Neither before nor after a later one has agreed."""
    network.device.make(to="a")
    network.device.make(KEY_BYTES)

    until(lambda: network.exchange() == "ok")
    assert network.exchange() == "short_of_material"


def test_device_that_begins_anew_while_one_end_is_away(network):
    """The ends hold different bytes at the same offsets; none of them becomes a key until both know the new epoch."""
    network.device.make()
    network.renew()
    network.device.make(8 * KEY_BYTES, to="a")
    until(lambda: network.exchange() != "ok")
    assert network.exchange() == "short_of_material"

    network.device.make(KEY_BYTES)

    until(lambda: network.exchange() == "ok")
    assert network.exchange() == "short_of_material"


def test_node_that_begins_anew_says_again_what_it_holds(network):
    """Blocks that came before and after are agreed on."""
    network.device.make(KEY_BYTES)
    network.nodes["b"].kill()
    network.device.stop()
    network.start_node("b").wait_ready()
    network.device.make(KEY_BYTES)

    for _ in range(2):
        until(lambda: network.exchange() == "ok")


@pytest.fixture
def short_lived(network: Network) -> Iterator[None]:
    """Key material, and keys, live for a second."""
    network.set(ttl_slots=SHORT)
    yield
    network.set(ttl_slots=LONG)


def test_silence_of_a_device_keeps_nothing_alive(network, short_lived):
    """Nodes erase and refuse what is too old by their own clocks, though no block has come since."""
    network.device.make()

    until(lambda: network.figure("a", "stored_bytes") == network.figure("b", "stored_bytes") == 0)

    assert network.exchange() == "short_of_material"


@pytest.mark.parametrize("mode", ["basic", "qkp"])
def test_key_lives_for_a_ttl_from_its_making(network, short_lived, mode):
    """At the slave's node, where it waits; what the master's node has made ahead with it is not handed out so late."""
    network.set(mode=mode)
    try:
        network.device.make()
        first = until(lambda: (reply := network.keys()).ok and reply)
        time.sleep(0.75 * SHORT * SLOT_S)  # the TTL itself is what is tested
        network.device.make()
        second = until(lambda: (reply := network.keys()).ok and reply)
        assert network.fetch(second).body == second.body
        time.sleep(0.5 * SHORT * SLOT_S)

        assert network.fetch(first).status == 400
    finally:
        network.set(mode="basic")


def test_local_database_restored_from_an_older_copy_hands_no_key_out_again(network, tmp_path):
    """The shared database knows of a later state: what the copy holds is erased, and new keys are made as before."""
    home = network.directory / "b"
    network.device.make()
    given = until(lambda: (reply := network.keys()).ok and reply)
    until(lambda: network.figure("b", "used_bytes") == network.figure("a", "used_bytes"))  # it waits there
    network.nodes["b"].kill()
    for file in home.glob("local.db*"):
        shutil.copy(file, tmp_path)
    network.start_node("b").wait_ready()
    assert until(lambda: (reply := network.fetch(given)).status != 503 and reply).body == given.body
    network.nodes["b"].stop()

    for file in home.glob("local.db*"):
        file.unlink()
    for file in tmp_path.glob("local.db*"):
        shutil.copy(file, home)
    network.start_node("b").wait_ready()

    assert until(lambda: (reply := network.fetch(given)).status != 503 and reply).status == 400
    assert [e["event"] for e in journal.read(home / "journal.jsonl", "older_copy_erased")] == ["older_copy_erased"]
    assert network.figure("b", "stored_bytes") == 0
    network.device.stop()
    network.device.make()
    until(lambda: network.exchange() == "ok")


def collected_in_the_name_of(network: Network, node: str) -> list[str]:
    """The shared database gives that node, which is dead, what waits for it, and the answer gets lost: the key IDs."""
    home = network.directory / node
    store = KeyStore(home / "local.db", home / "node.key", ttl_slots=LONG, slot_s=SLOT_S)
    url = node_url(node, network.issue(Role.NODE, node), network.database, LOOPBACK, network.database_port)
    shared = SharedDatabase(url, network.schema, node)
    shared.open()
    try:
        shared.enter({QC: "a"})
        found, lost = shared.collect(store.collection)
        assert not lost
        return [i.key_id for i in found]
    finally:
        shared.close()
        store.close()


def test_key_that_a_node_was_about_to_store_when_it_died_is_there_after_its_start(network):
    """The shared database has it down as delivered: it gives the instruction once more, to the same node."""
    network.device.make()
    until(lambda: network.exchange() == "ok")  # both ends have said so, and three keys are left
    network.device.stop()
    network.nodes["b"].kill()
    given = until(lambda: (reply := network.keys()).ok and reply)
    (key,) = given.body["keys"]
    assert key["key_ID"] in collected_in_the_name_of(network, "b")

    network.start_node("b").wait_ready()

    assert until(lambda: (reply := network.fetch(given)).status != 503 and reply).body == given.body
    assert network.fetch(given).status == 400, "once"


def test_account_of_both_ends_adds_up(network):
    """generated = used + expired + differing + stored."""
    network.device.make(differently=True)
    network.device.make()
    until(lambda: network.exchange() == "ok")
    for node in "ab":
        local_db = str(network.directory / node / "local.db")
        command = [sys.executable, "-P", "-m", "node.material.local_db_dump", local_db]
        account = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert len(account["streams"]) > 1
        for s in account["streams"]:
            assert s["generated"] == s["used"] + s["expired"] + s["differing"] + s["stored"]
