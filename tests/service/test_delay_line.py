"""The delay line between two real network namespaces, with real traffic."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.processes import Process


class Wire:
    """Three namespaces, held by sleeping processes: ends x and y, and the delay line between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.holders = {
            name: subprocess.Popen(["unshare", "-n", "sleep", "600"], stdin=subprocess.DEVNULL) for name in "xyd"
        }
        self.process: Process | None = None
        time.sleep(0.2)
        for end, ip in (("x", "10.9.0.1"), ("y", "10.9.0.2")):
            pid = self.holders["d"].pid
            self.run(end, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", f"d{end}", "netns", str(pid))
            self.run(end, "ip", "addr", "add", f"{ip}/24", "dev", "eth0")
            self.run(end, "ip", "link", "set", "eth0", "up")
        self.shape(delay_ms=1)

    def enter(self, where: str) -> list[str]:
        """Prefix of a command that runs there."""
        return ["nsenter", "-t", str(self.holders[where].pid), "-n", "--"]

    def run(self, where: str, *command: str) -> str:
        """The output of a command there."""
        return subprocess.run([*self.enter(where), *command], capture_output=True, text=True, check=True).stdout

    def shape(self, back: dict[str, float] | None = None, **there: float) -> None:
        """Write the configuration: x to y, and back (the same if not given)."""
        lines = [{"name": "w", "a": "dx", "b": "dy", "a_to_b": there, "b_to_a": there if back is None else back}]
        (self.directory / "line.json").write_text(json.dumps({"lines": lines, "seed": 1}))

    def start(self) -> None:
        """Start the delay line."""
        program = [sys.executable, "-P", "-m", "testbed.delay_line", str(self.directory / "line.json")]
        self.process = Process("delay-line", [*self.enter("d"), *program], self.directory / "log")
        self.process.wait_ready(10)

    def reread(self) -> None:
        """Have it read its configuration again."""
        self.process.signal(signal.SIGHUP)
        time.sleep(0.1)

    def rtt_ms(self, count: int = 10) -> float | None:
        """Shortest round-trip time of pings from x to y; None if none came back."""
        command = [*self.enter("x"), "ping", "-c", str(count), "-i", "0.02", "-W", "1", "10.9.0.2"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = re.search(r"= ([\d.]+)/", shown)
        return float(found[1]) if found else None

    def carrier(self, end: str) -> bool:
        """Whether that end sees light."""
        return "LOWER_UP" in self.run(end, "ip", "link", "show", "eth0")

    def stop(self) -> None:
        """End everything."""
        if self.process is not None:
            self.process.stop()
        for holder in self.holders.values():
            holder.kill()
            holder.wait()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """The two ends and the line, not started yet."""
    made = Wire(tmp_path)
    yield made
    made.stop()


def eventually(what, timeout_s: float = 5.0) -> bool:
    """Whether `what` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return what()


def test_round_trip_is_the_sum_of_both_directions(wire):
    """Never early; late by scheduling only."""
    wire.shape(delay_ms=20, back={"delay_ms": 40})
    wire.start()

    assert 60 <= wire.rtt_ms() < 75


def test_loss_of_everything_passes_nothing(wire):
    """100 % in one direction is enough."""
    wire.shape(delay_ms=0, loss_percent=100, back={"delay_ms": 0})
    wire.start()

    assert wire.rtt_ms(3) is None


def test_tcp_arrives_unchanged_with_offloads_on(wire, tmp_path):
    """Segments of many kilobytes with checksums still to be made pass through."""
    wire.shape(delay_ms=1)
    wire.start()
    script = (
        "import socket,sys,hashlib\n"
        "s=socket.create_server(('10.9.0.2',7000)); print('up',flush=True); c,_=s.accept(); h=hashlib.sha256(); n=0\n"
        "while d:=c.recv(1<<16): h.update(d); n+=len(d)\n"
        "print(n,h.hexdigest())"
    )
    data = bytes(range(256)) * (1 << 14)
    server = subprocess.Popen([*wire.enter("y"), sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "up\n"

    (tmp_path / "data").write_bytes(data)
    wire.run("x", sys.executable, "-c",
             f"import socket; s=socket.create_connection(('10.9.0.2',7000)); s.sendall(open({str(tmp_path / 'data')!r},'rb').read())")  # fmt: skip  # noqa: E501
    out, _ = server.communicate(timeout=30)

    assert out.split() == [str(len(data)), hashlib.sha256(data).hexdigest()]


def test_sighup_changes_the_shape_of_a_running_line(wire):
    """And a wrong configuration changes nothing, with a line in the log."""
    wire.shape(delay_ms=1)
    wire.start()
    assert wire.rtt_ms() < 20

    wire.shape(delay_ms=30)
    wire.reread()
    assert wire.rtt_ms() >= 60

    wire.shape(delay_ms=-1)
    wire.reread()
    assert wire.rtt_ms() >= 60
    assert "delay_ms" in wire.process.log.read_text()


@pytest.mark.parametrize(("cut", "other"), ["xy", "yx"])
def test_end_that_goes_down_takes_the_light_from_the_other(wire, cut, other):
    """As on a fibre; and it comes back, with traffic."""
    wire.start()
    assert eventually(lambda: wire.rtt_ms(1))

    wire.run(cut, "ip", "link", "set", "eth0", "down")
    assert eventually(lambda: not wire.carrier(other))

    wire.run(cut, "ip", "link", "set", "eth0", "up")
    assert eventually(lambda: wire.carrier(other) and wire.carrier(cut))
    assert eventually(lambda: wire.rtt_ms(1))


@pytest.mark.parametrize("first", ["x", "y"])
def test_both_ends_down_come_back_in_any_order(wire, first):
    """No order of events leaves the line dark."""
    wire.start()
    for end in "xy":
        wire.run(end, "ip", "link", "set", "eth0", "down")

    for end in (first, "xy".replace(first, "")):
        time.sleep(0.1)
        wire.run(end, "ip", "link", "set", "eth0", "up")

    assert eventually(lambda: wire.rtt_ms(1))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "line.json"),
        ('{"lines": 3}', "lines"),
        ('{"lines": [{"name": "w", "a": "dx", "b": "nowhere", "a_to_b": {"delay_ms": 1}, "b_to_a": {"delay_ms": 1}}]}',
         "nowhere"),
    ],
)  # fmt: skip
def test_configuration_that_cannot_be_used_is_one_line(wire, document, said):
    """Exit status 2."""
    (wire.directory / "line.json").write_text(document)
    command = [*wire.enter("d"), sys.executable, "-P", "-m", "testbed.delay_line", str(wire.directory / "line.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
