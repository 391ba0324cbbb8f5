"""Two real nodes whose QC has its key material from two KMEs of ours: a second network is the device."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from mtls.identity import Role
from testbed.network.loopback import Stack
from tests.service.test_devices import SLOT_S, TTL_SLOTS, Network
from tests.support.foreign import open_session
from tests.support.two_nodes import ALICE, BOB, QC
from tests.support.waiting import until

LEFT, RIGHT = (str(uuid.uuid4()) for _ in range(2))
LINKS = [("x-y/1", "x", "y")]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Nodes x and y, their controller and their QC."""
    stack = Stack(tmp_path_factory.mktemp("device"))
    try:
        stack.start_postgres()
        stack.start_controller()
        stack.start_nodes(LINKS, {LEFT: "x", RIGHT: "y"})
        stack.start_qcs(LINKS, low=2000, high=2000, slot_s=SLOT_S)
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def network(device: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Nodes a and b, which have keys of the SAEs left and right."""
    stack = Network(tmp_path_factory.mktemp("network"))

    def end(own: str, peer: str, node: str) -> dict[str, Any]:
        return {QC: {
            "url": device.kme(node), "peer_sae": peer, "credentials": device.issue(Role.SAE, own).to_config(),
            "number": 4, "size_bits": 256, "every_s": 0.2,
        }}  # fmt: skip

    try:
        stack.start_postgres()
        stack.start_nodes(
            [(QC, "a", "b")], {ALICE: "a", BOB: "b"}, ttl_slots=TTL_SLOTS, slot_s=SLOT_S,
            devices={"a": end(LEFT, RIGHT, "x"), "b": end(RIGHT, LEFT, "y")},
        )  # fmt: skip
        open_session(stack.configure, (ALICE, BOB), ["a", "b"])
        until(stack.exchanged, else_tell=stack.tell)
        yield stack
    finally:
        stack.stop()


def test_keys_of_our_own_kmes_become_keys_in_the_same_order(network):
    """At both nodes."""
    before = len(network.laid("b"))
    until(lambda: len(network.laid("b")) > before + 8, else_tell=network.tell)
    until(network.exchanged, else_tell=network.tell)

    at_a, at_b = network.laid("a"), network.laid("b")
    assert at_a[: len(at_b)] == at_b


@pytest.mark.parametrize("killed", ["x", "y"])
def test_kme_that_is_killed_and_comes_back_brings_keys_again(network, device, killed):
    """kill -9 while it is asked several times a second; what was laid stays in order, and no key is laid twice."""
    device.nodes[killed].kill()
    node = {"x": "a", "y": "b"}[killed]
    until(lambda: network.state(node)["state"] == "silent", else_tell=network.tell)
    device.start_node(killed).wait_ready()

    before = len(network.laid("b"))
    until(lambda: len(network.laid("b")) > before + 8, else_tell=network.tell)
    until(network.exchanged, else_tell=network.tell)
    at_a, at_b = network.laid("a"), network.laid("b")
    assert [key_id for key_id in at_a if key_id in at_b] == at_b
    assert len(at_b) == len(set(at_b))
    assert not network.events("a", "device_suspected") + network.events("b", "device_suspected")
