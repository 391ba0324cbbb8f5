"""An SAE that registers key sessions without end at its node: others there are served as before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtls.call import Caller, Reply
from mtls.identity import Identity, Role
from node.limits import HALF_OPEN_PER_PARTY
from testbed.network.loopback import Stack

LINKS = [("a-b/1", "a", "b")]
ALICE, MALLORY = (str(uuid.UUID(int=i)) for i in (1, 2))
PEERS = [str(uuid.UUID(int=i)) for i in range(10, 30 + HALF_OPEN_PER_PARTY)]


class Network(Stack):
    """Alice and Mallory are at a, all their peers at b."""

    def register(self, saes: Caller, peer: str) -> Reply:
        """That SAE waits for a master."""
        url, body = f"{self.kme('a')}/qkd/v1/key_sessions", {"peer": peer, "side": "slave", "qos": {}}
        return saes.request("POST", url, to=Identity(Role.NODE, "a"), body=body, timeout_s=20)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two nodes and their controller."""
    stack = Network(tmp_path_factory.mktemp("sae"))
    try:
        stack.start_postgres()
        stack.start_controller()
        stack.start_nodes(LINKS, {ALICE: "a", MALLORY: "a"} | dict.fromkeys(PEERS, "b"))
        yield stack
    finally:
        stack.stop()


def test_registrations_without_end_keep_no_other_sae_out(network):
    """The bound of its own is reached before that of its node; an SAE that does not exist is not waited for at all."""
    mallory, alice = network.caller(Role.SAE, MALLORY), network.caller(Role.SAE, ALICE)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda peer: network.register(mallory, peer), PEERS))

    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == len(PEERS) - HALF_OPEN_PER_PARTY
    assert f"registrations of SAE {MALLORY} wait for their other side" in refused[0].message
    stranger = network.register(mallory, str(uuid.uuid4()))
    assert (stranger.status, stranger.message) == (400, "peer: expected the ID of another SAE of this network")
    assert network.register(alice, PEERS[-1]).status == 202
