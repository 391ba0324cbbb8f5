"""The way of QC blocks to a node on another machine: both its processes, on loopback, with the test at either end."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.material.blocks import connect
from scenario.machines import HOME
from testbed.machine.processes import Process, execute
from testbed.workers.passage import PORT
from tests.support.waiting import until

THERE = "127.7.7.2"
WEST = Identity(Role.MACHINE, "west")


class Passage:
    """Home and west; `node` plays the quantum module of bob, and says back what it hears."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority(folder / "pki")
        east, home = Identity(Role.MACHINE, "east"), Identity(Role.MACHINE, HOME)
        self.home, self.west, self.sae, self.east = (
            authority.issue(identity, stem=f"{identity.role}-{identity.name}")
            for identity in (home, WEST, Identity(Role.SAE, "s"), east)
        )
        for name in ("here", "there"):
            (folder / name).mkdir()
        self.processes = [
            self._start("west", {"credentials": self.west.to_config(), "listen": THERE,
                                 "nodes": {"bob": str(folder / "there")}}),
            self._start("home", {"credentials": self.home.to_config(), "to": {
                "bob": {"folder": str(folder / "here"), "machine": "west", "address": THERE}}}),
        ]  # fmt: skip
        self.node: socket.socket | None = None

    def _start(self, name: str, config: object) -> Process:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config))
        argv = [sys.executable, "-P", "-m", "testbed.workers.passage", str(path)]
        process = Process(name, partial(execute, argv), self.folder / f"{name}.log")
        process.wait_ready(10)
        return process

    def begin_node(self) -> None:
        """Have bob be there."""
        self.node = socket.socket(socket.AF_UNIX)
        (self.folder / "there" / "blocks.sock").unlink(missing_ok=True)
        self.node.bind(str(self.folder / "there" / "blocks.sock"))
        self.node.listen()
        threading.Thread(target=self._say_back, args=(self.node,), daemon=True).start()

    @staticmethod
    def _say_back(node: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with node.accept()[0] as connection:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)

    def call(self, credentials: Credentials, node: str) -> bytes:
        """What somebody with that certificate gets back who sends a line for that node to west."""
        context = credentials.client_context()
        with (
            contextlib.suppress(ConnectionError, ssl.SSLError), socket.create_connection((THERE, PORT), 10) as plain,
            context.wrap_socket(plain, server_hostname=WEST.dns) as connection,
        ):  # fmt: skip
            connection.sendall(f"{node}\nblock".encode())
            return connection.recv(100)
        return b""

    def stop(self) -> None:
        """End both, and the node."""
        for process in self.processes:
            process.stop()
        if self.node is not None:
            self.node.shutdown(socket.SHUT_RDWR)
            self.node.close()


@pytest.fixture
def passage(tmp_path) -> Iterator[Passage]:
    """Up, without the node."""
    found = Passage(tmp_path)
    yield found
    found.stop()


def heard(passage: Passage, data: bytes) -> bytes:
    """What comes back of what an emulator leaves for bob at home."""
    with contextlib.suppress(OSError), connect(passage.folder / "here") as connection:
        connection.sendall(data)
        return connection.recv(1 << 16)
    return b""


def test_block_comes_to_a_node_on_another_machine_and_its_answer_back(passage):
    """By the socket in the node's folder at home, as to a node at home."""
    passage.begin_node()

    assert until(lambda: heard(passage, b"block")) == b"block"


def test_emulator_sees_that_a_node_on_another_machine_is_away(passage):
    """Its connection ends, without an answer; so it keeps the block, and the node has it when it is there."""
    assert heard(passage, b"block") == b""

    passage.begin_node()

    assert until(lambda: heard(passage, b"block")) == b"block"


@pytest.mark.parametrize("who", ["sae", "east", "west"])
def test_nobody_but_home_hands_blocks_to_a_node_of_another_machine(passage, who):
    """No other party of the run, and no other machine; home does."""
    passage.begin_node()

    assert passage.call(getattr(passage, who), "bob") == b""
    assert passage.call(passage.home, "bob") == b"block"


def test_home_reaches_no_node_that_is_not_there(passage):
    """The name is looked up, it is no path."""
    passage.begin_node()

    for name in ("alice", "../there", ""):
        assert passage.call(passage.home, name) == b""
