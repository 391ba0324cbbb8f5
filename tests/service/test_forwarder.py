"""Connections carried from one real network namespace into another."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.namespaces import call_in_network, network_of
from testbed.processes import Process
from tests.service.stack import free_port


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
        self.process: Process | None = None

    def start(self) -> Process:
        """Forward loopback:port here to loopback:7000 there."""
        here = ["/proc/self/ns/net", "127.0.0.1", self.port]
        config = self.directory / "forwarder.json"
        config.write_text(json.dumps({"routes": [{"listen": here, "connect": [self.inside, "127.0.0.1", 7000]}]}))
        command = [sys.executable, "-P", "-m", "testbed.forwarder", str(config)]
        self.process = Process("forwarder", command, self.directory / "log")
        return self.process

    def serve_echo(self) -> None:
        """A server there that sends back what it gets, and closes after the end."""
        server = call_in_network(self.network, lambda: socket.create_server(("127.0.0.1", 7000)))

        def run() -> None:
            with server:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        while data := connection.recv(1 << 16):
                            connection.sendall(data)

        threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """End everything."""
        if self.process is not None:
            self.process.stop()
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
    with (
        socket.create_connection(("127.0.0.1", border.port), timeout=10) as client,
        pytest.raises(ConnectionResetError),
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
    done = subprocess.run(
        [sys.executable, "-P", "-m", "testbed.forwarder", str(config)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "routes" in done.stderr
