"""Two network namespaces with the delay line between them, and real traffic over it. Needs root.

The namespaces live as long as the processes that hold them, which end with this one, however it ends.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from testbed.machine.processes import Process, execute
from tests.support.waiting import until

X, Y = "10.9.0.1", "10.9.0.2"
# One connection from x to y: the receiver says what came, the sender sends a file.
RECEIVER = (
    "import socket, hashlib\n"
    "with socket.create_server(('10.9.0.2', 7000)) as s:\n"
    "    print('up', flush=True); c, _ = s.accept()\n"
    "h = hashlib.sha256()\n"
    "while d := c.recv(1 << 16): h.update(d)\n"
    "print(h.hexdigest())"
)
SENDER = (
    "import pathlib, socket, sys\n"
    "with socket.create_connection(('10.9.0.2', 7000)) as s: s.sendall(pathlib.Path(sys.argv[1]).read_bytes())"
)


class Wire:
    """Three namespaces: the ends x and y, and d with the delay line between them."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "line.json"
        self.stats = directory / "stats.json"
        self.answer = directory / "answer.json"
        self.process = None
        ours = Path("/proc/self/ns/net").stat().st_ino
        # cat ends when its standard input does.
        self.holders = {
            name: subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            for name in "xyd"
        }
        for holder in self.holders.values():
            assert until(lambda pid=holder.pid: Path(f"/proc/{pid}/ns/net").stat().st_ino != ours)
        for end, ip in (("x", X), ("y", Y)):
            d = str(self.holders["d"].pid)
            self.run(end, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", f"d{end}", "netns", d)
            self.run(end, "ip", "addr", "add", f"{ip}/24", "dev", "eth0")
            self.set(end, "up")
            self.run(end, "ip", "link", "set", "lo", "up")
        self.shape(delay_ms=1)

    def enter(self, where: str) -> list[str]:
        """Prefix of a command that runs there."""
        return ["nsenter", "-t", str(self.holders[where].pid), "-n", "--"]

    def run(self, where: str, *command: str) -> str:
        """The output of a command there."""
        return subprocess.run([*self.enter(where), *command], capture_output=True, text=True, check=True).stdout

    def set(self, end: str, state: str) -> None:
        """Take that end's interface up or down."""
        self.run(end, "ip", "link", "set", "eth0", state)

    def shape(self, back: dict[str, float] | None = None, **there: float) -> None:
        """Write the configuration: x to y, and back (the same if not given)."""
        line = {"name": "w", "a": "dx", "b": "dy", "a_to_b": there, "b_to_a": there if back is None else back}
        files = {"stats": str(self.stats), "answer": str(self.answer)}
        self.config.write_text(json.dumps({"lines": [line], "seed": 1, **files}))

    def command(self) -> list[str]:
        """What runs the delay line."""
        return [*self.enter("d"), sys.executable, "-P", "-m", "testbed.fibres.delay_line", str(self.config)]

    def change(self, back: dict[str, float] | None = None, **there: float) -> None:
        """Give the running delay line another shape; returns when it has taken it."""
        self.answer.unlink(missing_ok=True)
        self.shape(back, **there)
        self.process.signal(signal.SIGHUP)
        assert until(self.answer.exists)
        assert json.loads(self.answer.read_text()) == {"error": None}

    def start(self) -> None:
        """Start the delay line."""
        self.process = Process("delay-line", partial(execute, self.command()), self.config.with_name("log"))
        self.process.wait_ready(10)

    def rtt_ms(self, count: int = 10) -> float | None:
        """Shortest round-trip time of pings from x to y; None if none came back."""
        command = [*self.enter("x"), "ping", "-c", str(count), "-i", "0.01", "-W", "1", Y]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = re.search(r"= ([\d.]+)/", shown)
        return float(found[1]) if found else None

    def works(self) -> bool:
        """Whether a ping comes back."""
        return self.rtt_ms(1) is not None

    def lit(self, end: str) -> bool:
        """Whether that end sees light."""
        return "LOWER_UP" in self.run(end, "ip", "link", "show", "eth0")

    def transfer(self, data: bytes) -> str:
        """SHA-256, in hex, of what y received after x sent `data` by TCP."""
        file = self.config.with_name("data")
        file.write_bytes(data)
        command = [*self.enter("y"), sys.executable, "-c", RECEIVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
            try:
                assert receiver.stdout.readline() == "up\n"
                self.run("x", sys.executable, "-c", SENDER, str(file))
                return receiver.communicate(timeout=30)[0].strip()
            finally:
                receiver.kill()

    def stop(self) -> None:
        """End everything."""
        if self.process is not None:
            self.process.stop()
        for holder in self.holders.values():
            holder.stdin.close()
            holder.wait()
