"""Connections carried from one real network namespace into another."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from testbed.machine.forwarder import connections_per_route
from testbed.machine.namespaces import call_in_network, network_of
from testbed.machine.processes import Process, execute
from testbed.network.loopback import free_port
from tests.support.waiting import until


class EchoServer:
    """Sends back what it gets on connections to `listener`, in a thread of its own."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    self._selector.register(connection, selectors.EVENT_READ)
                else:
                    self._echo(key.fileobj)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 16)
            connection.sendall(data)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()


class Border:
    """A namespace of its own (held by a sleeping process), and the forwarder at its border."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        script = "ip link set lo up; echo up; exec sleep 600"
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "up\n"
        self.inside = f"/proc/{self.holder.pid}/ns/net"
        self.network = network_of(self.holder.pid)
        self.port = free_port()
        self.report = directory / "ports.json"
        self.log = directory / "log"
        self.process: Process | None = None
        self._server: EchoServer | None = None

    def start(self, *, most_files: int | None = None, half_open_s: float | None = None) -> Process:
        """Forward loopback:port here to loopback:7000 there, with so many files open at most."""
        here = ["/proc/self/ns/net", "127.0.0.1", self.port]
        routes = [{"listen": here, "connect": [self.inside, "127.0.0.1", 7000]}]
        config = self.directory / "forwarder.json"
        config.write_text(json.dumps({"routes": routes, "report": str(self.report)}))
        limit = [] if most_files is None else ["prlimit", f"--nofile={most_files}"]
        module = ["-m", "testbed.machine.forwarder"]
        if half_open_s is not None:
            script = f"import pathlib, sys, testbed.machine.forwarder as f; f._HALF_OPEN_S = {half_open_s}"
            module = ["-c", f"{script}; sys.exit(f.main(pathlib.Path(sys.argv[1])))"]
        command = [*limit, sys.executable, "-P", *module, str(config)]
        self.process = Process("forwarder", partial(execute, command), self.log)
        return self.process

    def serve_echo(self) -> None:
        """A server there that sends back what it gets, to many at once, and closes after the end."""
        self._server = EchoServer(call_in_network(self.network, lambda: socket.create_server(("127.0.0.1", 7000))))

    def connect(self) -> socket.socket:
        """A client's connection to the forwarder."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def stop_echo(self) -> None:
        """End that server, and so its connections."""
        self._server.stop()
        self._server = None

    def exchange(self) -> float:
        """Have something echoed over a new connection; how long that took, in seconds."""
        started = time.monotonic()
        with self.connect() as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        return time.monotonic() - started

    def sockets(self) -> int:
        """How many sockets the forwarder has open."""
        found = 0
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += str(path.readlink()).startswith("socket:")
        return found

    def stop(self) -> None:
        """End everything."""
        if self.process is not None:
            self.process.stop()
        if self._server is not None:
            self._server.stop()
        os.close(self.network)
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def border(tmp_path: Path) -> Iterator[Border]:
    """A border, nothing started."""
    made = Border(tmp_path)
    yield made
    made.stop()


def test_connection_crosses_the_border_unchanged(border):
    """Both ways, to the last byte, and the end of each direction is passed on."""
    border.serve_echo()
    border.start().wait_ready(10)
    data = bytes(range(256)) * 4096

    with socket.create_connection(("127.0.0.1", border.port), timeout=10) as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
        sender.join()

    assert received == data


def test_nobody_at_the_other_side_is_a_reset(border):
    """And the forwarder goes on: who comes later finds the server that came meanwhile."""
    border.start().wait_ready(10)
    # A client that is slow to see itself connected sees the reset first.
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", border.port), timeout=10) as client,
    ):
        client.recv(1)

    border.serve_echo()
    with socket.create_connection(("127.0.0.1", border.port), timeout=10) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"


def test_port_in_use_is_one_line(border):
    """Names address and port; exit status 2."""
    with socket.create_server(("127.0.0.1", border.port)):
        process = border.start()
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{border.port}"):
            process.wait_ready(10)

    assert process.status == 2


@pytest.mark.parametrize(
    "document", ["{}", '{"routes": [{}]}', '{"routes": [{"listen": ["/proc/self/ns/net", "::1", 0], "connect": []}]}']
)
def test_malformed_configuration_is_one_line(border, document):
    """Exit status 2."""
    config = border.directory / "bad.json"
    config.write_text(document)
    command = [sys.executable, "-P", "-m", "testbed.machine.forwarder", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "routes" in done.stderr


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process may have 8192 files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(8192, before[1])))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_port_0_is_any_free_port(border):
    """Which one it is stands in the report by the time the forwarder is ready."""
    border.port = 0
    border.serve_echo()
    border.start().wait_ready(10)
    (border.port,) = json.loads(border.report.read_text())["ports"]

    assert border.port > 1023
    border.exchange()


def test_fixed_port_is_reported_too(border):
    """As it was asked for."""
    border.start().wait_ready(10)

    assert json.loads(border.report.read_text()) == {"ports": [border.port]}


def test_thousands_of_silent_clients_hold_up_nobody(border, many_files):
    """Two thousand connections say nothing; the next one is served at once, and the silent ones still are after it."""
    border.serve_echo()
    border.start().wait_ready(10)
    silent = [border.connect() for _ in range(2000)]
    try:
        assert until(lambda: border.sockets() > 4000)
        assert border.exchange() < 1
        silent[0].sendall(b"y")
        assert silent[0].recv(1) == b"y"
    finally:
        for client in silent:
            client.close()

    until(lambda: border.sockets() < 10, else_tell=lambda: "a socket is left")
    assert border.log.read_text() == ""


def test_beyond_the_limit_the_most_silent_connection_is_closed(border):
    """With 96 files there is room for 16 connections: of 16 the one without traffic for the longest makes room."""
    border.serve_echo()
    border.start(most_files=96).wait_ready(10)
    clients = []
    for _ in range(16):
        clients.append(border.connect())
        clients[-1].sendall(b"a")
        assert clients[-1].recv(1) == b"a"
    clients[0].sendall(b"b")
    assert clients[0].recv(1) == b"b"

    border.exchange()

    with pytest.raises(ConnectionResetError):
        clients[1].recv(1)
    for client in (clients[0], *clients[2:]):
        client.sendall(b"c")
        assert client.recv(1) == b"c"
    for client in clients:
        client.close()
    assert border.log.read_text() == ""


def test_server_that_closes_ends_its_client_and_no_socket_is_left(border):
    """The client reads the end, closes, and the forwarder holds nothing of it."""
    border.serve_echo()
    border.start().wait_ready(10)
    before = border.sockets()
    for _ in range(50):
        with border.connect() as client:
            client.sendall(b"x")
            client.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda client=client: client.recv(10), b"")) == b"x"

    assert until(lambda: border.sockets() == before)


def test_client_that_stays_when_its_server_has_gone_is_closed_after_a_while(border):
    """Half a connection is kept for those who may still send; a dead client's would be kept for ever."""
    border.serve_echo()
    border.start(half_open_s=0.5).wait_ready(10)
    before = border.sockets()
    with border.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        border.stop_echo()
        assert client.recv(1) == b""
        assert border.sockets() == before + 2
        assert until(lambda: border.sockets() == before)


def test_clients_that_reset_leave_no_socket_and_no_word(border):
    """In the middle of an exchange, and before it has begun."""
    border.serve_echo()
    border.start().wait_ready(10)
    before = border.sockets()
    for number in range(100):
        client = border.connect()
        if number % 2:
            client.sendall(bytes(100_000))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    assert until(lambda: border.sockets() == before)
    border.exchange()
    assert border.log.read_text() == ""


@pytest.mark.parametrize(
    ("descriptors", "routes", "connections"), [(65_536, 1, 4096), (65_536, 11, 2976), (1024, 11, 43), (64, 11, 8)]
)
def test_routes_share_the_descriptors(descriptors, routes, connections):
    """Two for each connection, some for the forwarder itself; a few connections in any case, and never too many."""
    assert connections_per_route(descriptors, routes) == connections
