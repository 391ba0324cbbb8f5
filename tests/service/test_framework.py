"""What the controller's OpenFlow part owes, on os-ken and on Ryu alike; the switches are played by the test."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtls.liveness import DEAD_S
from testbed.machine.namespaces import network_of, threads_in_network
from testbed.machine.processes import Process
from testbed.machine.tools import python_for
from testbed.network.loopback import free_port
from tests.support.followed import World
from tests.support.waiting import until
from tests.support.wire import Wire, Y

OS_KEN, RYU = pytest.param("os-ken"), pytest.param("ryu", marks=pytest.mark.ryu)
FABRIC = {"switches": [{"name": f"s{i}", "dpid": i, "ports": [], "hosts": []} for i in (1, 2)]}
BUSY_MACHINE_S = 5.0


class Forwarding(World):
    """A controller on `framework` that awaits switches."""

    def __init__(self, directory: Path, framework: str, host: str = "127.0.0.1") -> None:
        super().__init__(directory, python_for(framework))
        self.openflow_port = free_port()
        openflow = {"host": host, "port": self.openflow_port, "fabric": FABRIC}
        self.start(openflow=openflow).wait_ready(20)

    def running(self) -> Process:
        """Its process."""
        assert self.process is not None
        return self.process

    def log(self) -> str:
        """What it wrote to its standard error."""
        return self.running().log.read_text()

    def has(self, *switches: str) -> bool:
        """Whether these and no others become connected."""
        return until(lambda: self.operator("status")["switches"] == list(switches))


@pytest.fixture(scope="module", params=[OS_KEN, RYU])
def forwarding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forwarding]:
    """One that the tests share, so they leave it without switches."""
    made = Forwarding(tmp_path_factory.mktemp("forwarding"), request.param)
    yield made
    made.stop()


@pytest.fixture
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Forwarding]:
    """One for a test that ends it."""
    made = Forwarding(tmp_path, request.param)
    yield made
    made.stop()


class Switch:
    """A switch without ports: just enough OpenFlow 1.3 for hello, features, port description and barrier."""

    def __init__(self, port: int, dpid: int, host: str = "127.0.0.1", *, done: bool = True) -> None:
        self.connection = socket.create_connection((host, port), timeout=5)
        self.connection.sendall(struct.pack(">BBHI", 4, 0, 8, 1))
        self._answer(5, struct.pack(">QIBBHII", dpid, 0, 1, 0, 0, 0, 0), kind=6)
        for _ in ("the framework", "our application"):  # each asks for the ports
            self._answer(18, struct.pack(">HHI", 13, 0, 0), kind=19)
        if done:
            self.say_done()

    def say_done(self) -> None:
        """That it has done all that it was told."""
        self._answer(20, b"", kind=21)

    def _answer(self, asked: int, body: bytes, *, kind: int) -> None:
        """Read up to the message of type `asked`, and answer it with one of type `kind`."""
        while True:
            _, found, length, xid = struct.unpack(">BBHI", self._read(8))
            self._read(length - 8)
            if found == asked:
                self.connection.sendall(struct.pack(">BBHI", 4, kind, 8 + len(body), xid) + body)
                return

    def _read(self, n_bytes: int) -> bytes:
        return self.connection.recv(n_bytes, socket.MSG_WAITALL) if n_bytes else b""


_MASTER, _SLAVE, _IS_SLAVE = 2, 3, struct.pack(">HH", 1, 10)


class SwitchOfTwo(Switch):
    """One that is connected to two controllers: it has a master, and a generation of that (OpenFlow 1.3, 6.3.5)."""

    def __init__(self, port: int, dpid: int) -> None:
        super().__init__(port, dpid, done=False)

    def asked_for_role(self) -> tuple[int, int]:
        """The role that the controller asks for next, and in which generation; it gets that."""
        while True:
            _, found, length, xid = struct.unpack(">BBHI", self._read(8))
            body = self._read(length - 8)
            if found == 24:
                self.connection.sendall(struct.pack(">BBHI", 4, 25, length, xid) + body)
                return struct.unpack(">I4xQ", body)

    def refuse_as_slave(self) -> None:
        """Say that what it is told next is not done, because another controller is its master."""
        while True:
            _, found, length, xid = struct.unpack(">BBHI", self._read(8))
            self._read(length - 8)
            if found in (14, 20):  # a flow, or the barrier behind flows
                self.connection.sendall(struct.pack(">BBHI", 4, 1, 12, xid) + _IS_SLAVE)
                return


@pytest.fixture(params=[OS_KEN, RYU])
def of_two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A controller of two, whose database is not there."""
    made = World(tmp_path, python_for(request.param))
    yield made
    made.stop()


def start_one_of_two(world: World, first: str) -> int:
    """Start it, where the controller `first` is the one to begin: the port for switches."""
    port = free_port()
    here, there = f"https://127.0.0.1:{world.port}", f"https://127.0.0.1:{free_port()}"
    names = {"ctl": here, "ctl2": there} if first == "ctl" else {"ctl2": there, "ctl": here}
    shared = {"url": f"host=127.0.0.1 port={free_port()} user=x dbname=x", "schema": "s", "controllers": names}
    openflow = {"host": "127.0.0.1", "port": port, "fabric": FABRIC}
    world.start(openflow=openflow, shared_store=shared).wait_ready(20)
    return port


def test_first_controller_of_two_has_switches_forward_before_it_leads(of_two):
    """There may be no way to the database without them. No term was heard of yet."""
    switch = SwitchOfTwo(start_one_of_two(of_two, "ctl"), 1)

    roles = [switch.asked_for_role()]
    while roles[-1][0] != _MASTER:
        roles.append(switch.asked_for_role())

    assert roles[-1] == (_MASTER, 0)
    assert roles[:-1] in ([], [(_SLAVE, 0)])  # it may have been connected before
    switch.connection.close()


def test_stand_by_listens_to_switches_and_has_them_forward_when_no_database_answers_for_long(of_two):
    """Their slave at first."""
    switch = SwitchOfTwo(start_one_of_two(of_two, "ctl2"), 1)

    assert [switch.asked_for_role() for _ in range(2)] == [(_SLAVE, 0), (_MASTER, 0)]
    switch.connection.close()


def test_controller_that_lost_a_switch_to_another_one_asks_for_it_again(of_two):
    """Nobody tells it before it is refused something."""
    switch = SwitchOfTwo(start_one_of_two(of_two, "ctl"), 1)
    while switch.asked_for_role()[0] != _MASTER:
        pass

    switch.refuse_as_slave()

    assert switch.asked_for_role() == (_MASTER, 0)
    switch.connection.close()


def test_controller_says_what_it_runs_on(forwarding: Forwarding, request: Any):
    """Name and version in its status."""
    name = request.node.callspec.params["forwarding"]

    assert forwarding.operator("status")["framework"] == {"os-ken": "os-ken 4.2.2", "ryu": "ryu 4.34"}[name]


def test_switch_that_goes_away_is_noticed(forwarding):
    """A connection that ends is not counted as a switch any more; the others are."""
    staying, leaving = (Switch(forwarding.openflow_port, dpid) for dpid in (1, 2))
    assert forwarding.has("s1", "s2")

    leaving.connection.close()

    assert forwarding.has("s1")
    staying.connection.close()
    assert forwarding.has()


def test_switch_counts_once_it_says_that_it_forwards(forwarding):
    """Not when it was told what to forward: a frame that comes before that is lost."""
    quick, slow = Switch(forwarding.openflow_port, 1), Switch(forwarding.openflow_port, 2, done=False)
    assert forwarding.has("s1")

    slow.say_done()

    assert forwarding.has("s1", "s2")
    for switch in (quick, slow):
        switch.connection.close()
    assert forwarding.has()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")
@pytest.mark.parametrize("framework", [OS_KEN, RYU])
def test_switch_whose_wire_goes_dead_is_noticed(framework, tmp_path):
    """Nothing is said or closed: the controller knows in seconds, and knows the switch again when it comes back."""
    wire = Wire(tmp_path)
    wire.start()
    networks = [network_of(wire.holders[end].pid) for end in "xy"]
    at_x, at_y = (threads_in_network(network, 1, "end") for network in networks)
    made = at_y.submit(Forwarding, tmp_path, framework, Y).result()
    try:
        switches = [at_x.submit(Switch, made.openflow_port, 1, Y).result()]
        assert at_y.submit(made.has, "s1").result()

        wire.change(delay_ms=1, loss_percent=100)

        began = time.monotonic()
        assert at_y.submit(until, lambda: not made.operator("status")["switches"], 60).result()
        assert time.monotonic() - began < DEAD_S + BUSY_MACHINE_S
        wire.change(delay_ms=1)
        switches.append(at_x.submit(Switch, made.openflow_port, 1, Y).result())
        assert at_y.submit(made.has, "s1").result()
        for switch in switches:
            switch.connection.close()
    finally:
        at_y.submit(made.stop).result()
        for pool in (at_x, at_y):
            pool.shutdown()
        for network in networks:
            os.close(network)
        wire.stop()


def test_switch_that_talks_nonsense_is_logged_and_harms_no_other(forwarding):
    """A features reply that ends before its datapath ID: the log has the error, while others stay."""
    good = Switch(forwarding.openflow_port, 1)
    with socket.create_connection(("127.0.0.1", forwarding.openflow_port), timeout=5) as bad:
        bad.sendall(struct.pack(">BBHI", 4, 0, 8, 1) + struct.pack(">BBHI", 4, 6, 8, 2))

        assert until(lambda: "Traceback" in forwarding.log() and "struct.error" in forwarding.log())
    assert forwarding.has("s1")
    good.connection.close()
    assert forwarding.has()


@pytest.mark.parametrize("own", [OS_KEN, RYU], indirect=True)
def test_death_of_the_openflow_part_ends_the_controller(own):
    """Here for want of file descriptors to accept one more switch: status 1, and the log says what died of what."""
    process = own.running()
    used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used, used))

    with contextlib.ExitStack() as held:

        def dead() -> bool:  # more than one connection: descriptors that were in use a moment ago may be free
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_connection(("127.0.0.1", own.openflow_port), timeout=1))
            return not process.alive()

        assert until(dead)

    assert process.status == 1
    assert "Too many open files" in own.log()
    assert "controller: the OpenFlow part died" in own.log()


@pytest.mark.parametrize(
    ("own", "number"),
    [("os-ken", signal.SIGTERM), ("os-ken", signal.SIGINT), pytest.param("ryu", signal.SIGTERM, marks=pytest.mark.ryu)],
    indirect=["own"],
)
def test_signal_ends_the_controller_at_once(own, number):
    """Though the framework's threads would not end by themselves."""
    process = own.running()

    process.signal(number)

    assert until(lambda: not process.alive())
    assert process.status == 0


def test_controller_that_is_started_on_a_full_disk_ends_and_says_so(tmp_path):
    """Its framework's threads run by then; whoever started it may try again when there is room."""
    world = World(tmp_path)
    folder = tmp_path / "ctl"
    folder.mkdir()
    config = world.write(openflow={"host": "127.0.0.1", "port": free_port(), "fabric": FABRIC})
    full = 'mount -t tmpfs -o size=4k full "$0" && head -c 4096 /dev/zero > "$0/full" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", full, str(folder), world.python, "-P", "-m", "controller", str(config)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=40)

    assert done.returncode == 1
    assert "controller: the machine refuses: " in done.stderr
    assert "Traceback" not in done.stderr
