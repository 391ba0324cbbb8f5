"""Block frames: what a device sends is what a node has, and no block counts as younger than it is."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import pytest

from documents.secret import Secret
from node.material.blocks import ANSWER_BYTES, BadFrame, Block, encode_age, read_answer, receive

KEY = Secret(bytes(range(32)))
BLOCK = Block("a-b/1", 7, 9, 100, Secret(b"payload"), 2100, epoch=(1 << 63) - 1)


@pytest.fixture
def ends():
    """A connection: the device's end, the node's end."""
    device, node = socket.socketpair()
    device.settimeout(5)
    node.settimeout(5)
    yield device, node
    device.close()
    node.close()


def test_block_arrives_as_it_was_sent_and_is_as_old_as_the_device_says(ends):
    """Its age counts from the moment at which the node asked, however long the answer takes."""
    device, node = ends
    now = [1000.0]

    def be_device() -> None:
        device.sendall(BLOCK.encode())
        assert read_answer(device.recv(ANSWER_BYTES)) is None
        now[0] += 30.0  # the answer is held up
        device.sendall(encode_age(2.5))

    thread = threading.Thread(target=be_device)
    thread.start()
    found = receive(node, lambda: now[0])
    thread.join()

    assert found == BLOCK
    assert found.made == 997.5


def test_age_is_rounded_up():
    """A block must not look younger than it is."""
    assert int.from_bytes(encode_age(0.0001), "big") == 1


@pytest.mark.parametrize("change", [{"slot": 1 << 48}, {"offset": 1 << 62}, {"sequence": 1 << 62}, {"epoch": 1 << 63}])
def test_number_that_leaves_no_room_for_later_ones_is_refused(ends, change):
    """Slots are added up over all epochs, so that they have to be smaller than what is stored."""
    device, node = ends
    device.sendall(replace(BLOCK, **change).encode())

    with pytest.raises(BadFrame, match="out of range"):
        receive(node)


@pytest.mark.parametrize("change", [{"magic": b"XX"}, {"version": b"\x02"}])
def test_frame_of_another_kind_or_version_is_refused(ends, change):
    """A device of another version has no epochs."""
    device, node = ends
    frame = bytearray(BLOCK.encode())
    frame[0:2] = change.get("magic", frame[0:2])
    frame[2:3] = change.get("version", frame[2:3])
    device.sendall(frame)

    with pytest.raises(BadFrame, match="version 3"):
        receive(node)


@pytest.mark.parametrize(
    "change",
    [{"qc": "a-b/2"}, {"epoch": 1}, {"offset": 101}, {"payload": Secret(b"Payload")}, {"payload": Secret(b"payloa")}],
)
def test_digest_is_of_all_that_both_ends_must_have_alike(change):
    """QC, epoch, place and bytes."""
    assert replace(BLOCK, **change).digest(KEY) != BLOCK.digest(KEY)


def test_digest_is_known_only_to_who_has_the_key():
    """And the same for everybody who has it, whatever else came with the block."""
    assert BLOCK.digest(Secret(bytes(32))) != BLOCK.digest(KEY)
    assert replace(BLOCK, sequence=8, slot=10, qber=None).digest(KEY) == BLOCK.digest(KEY)
