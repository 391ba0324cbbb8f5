"""The node's end of its QCs when the node ends: devices go on, and the store is closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents.secret import Secret
from node.material.blocks import ANSWER_BYTES, Block, connect, encode_age, read_answer
from node.material.key_store import KeyStore
from node.material.quantum_module import QuantumModule
from telemetry import bugs

QC = "a-b/1"


class Node:
    """A quantum module and the store of its node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.module = QuantumModule(directory / "blocks.sock", {QC: Secret(bytes(32))}, self.store)
        self.slots: list[int] = []
        self.slot_begun = threading.Event()
        self.going_on = threading.Event()
        self.going_on.set()
        self.module.start(self.on_block)

    def on_block(self, _qc: str, slot: int, *_: object) -> None:
        """A slot has begun."""
        self.slot_begun.set()
        assert self.going_on.wait(10)
        self.slots.append(self.store.held()[0].slot)
        assert self.slots[-1] == slot

    def end(self) -> None:
        """As the node's process does."""
        self.module.stop()
        self.store.close()


def hand_over(device: socket.socket, number: int) -> None:
    """The device's block of that number, until it is acknowledged; ConnectionError if the node does not take it."""
    device.sendall(Block(QC, number, number + 1, 16 * number, Secret(bytes(16))).encode())
    while True:
        data = device.recv(ANSWER_BYTES, socket.MSG_WAITALL)
        if not data:
            raise ConnectionResetError
        if read_answer(data) == number:
            return
        device.sendall(encode_age(0.0))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """It accepts devices."""
    made = Node(tmp_path)
    yield made
    made.end()


@pytest.fixture
def device(node: Node) -> Iterator[socket.socket]:
    """It has handed over its first block."""
    with connect(node.directory) as made:
        hand_over(made, 0)
        yield made


def test_block_that_comes_when_the_node_ends_is_not_taken_and_that_is_no_bug(node, device, caplog):
    """The device hands it over again when the node is back."""
    node.end()

    with pytest.raises(ConnectionError):
        hand_over(device, 1)
    assert bugs.MARK not in caplog.text


def test_device_that_comes_when_the_node_ends_is_not_taken_on(node, caplog):
    """Its first block is as late as the next one of another device."""
    node.end()

    with pytest.raises(ConnectionError), connect(node.directory) as late:
        hand_over(late, 0)
    assert bugs.MARK not in caplog.text


def test_block_that_is_being_kept_when_the_node_ends_is_kept(node, device, caplog):
    """The store is closed behind it."""
    node.slot_begun.clear()
    node.going_on.clear()
    device.sendall(Block(QC, 1, 2, 16, Secret(bytes(16))).encode())
    device.recv(ANSWER_BYTES, socket.MSG_WAITALL)
    device.sendall(encode_age(0.0))
    assert node.slot_begun.wait(10)

    ending = threading.Thread(target=node.end)
    ending.start()
    with pytest.raises(ConnectionError):
        hand_over(device, 2)  # which comes too late
    node.going_on.set()
    ending.join(10)

    assert node.slots == [1, 2]
    assert bugs.MARK not in caplog.text
