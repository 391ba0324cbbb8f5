"""A testbed run as a user starts it, and ways to look inside while it lives."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.support.machines import Machines
from tests.support.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
RUN_PY = ROOT / "testbed" / "run.py"
PYTHON = ROOT / ".venv" / "bin" / "python"


def command(*options: object) -> list[str]:
    """The command line of a run."""
    return ["python3", str(RUN_PY), *map(str, options)]


def finished(*options: object, timeout_s: float = 120, **popen: Any) -> subprocess.CompletedProcess[str]:
    """A run from start to end."""
    return subprocess.run(
        command(*options), capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        **popen,
    )  # fmt: skip


def kill(ending: str) -> bool:
    """Kill the process whose command line ends so; False if there is none."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = (path / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
            if line.endswith(ending):
                os.kill(int(path.name), signal.SIGKILL)
                return True
    return False


def free_ports(number: int) -> int:
    """The first of `number` consecutive ports of 127.0.0.1 that are all free now."""
    for first in range(20_000, 30_000, number):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")


class Running:
    """A run in `directory` with `options`, living until `stop`; `on`: the machines from whose home it is started."""

    def __init__(self, directory: Path, *options: object, on: Machines | None = None) -> None:
        self.directory = directory
        self.output = directory.with_suffix(".out")
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                (on.at_home if on else list)(command("--run-dir", directory, *options)), stdin=subprocess.PIPE,
                stdout=out, stderr=subprocess.STDOUT, env=on.environment if on else None,
            )  # fmt: skip

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> str:
        """Everything printed, once `pattern` is in it."""
        tell = f"{pattern!r} did not appear:\n{{}}".format
        until(
            lambda: re.search(pattern, self.text) or self.process.poll() is not None, timeout_s,
            else_tell=lambda: tell(self.text),
        )  # fmt: skip
        assert re.search(pattern, self.text), tell(self.text)
        return self.text

    def wait_up(self) -> None:
        """Return when the network is up and what was to be opened is open."""
        self.wait_for("'qkd' lists what it knows")

    def cli(self, line: str) -> None:
        """Type a line at the CLI."""
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def say(self, line: str, pattern: str) -> str:
        """Type a line at the CLI; what appears from then on, once `pattern` is in it."""
        before = len(self.text)
        self.cli(line)
        until(lambda: re.search(pattern, self.text[before:]), else_tell=lambda: f"{line}: {self.text[before:]}")
        return self.text[before:]

    @property
    def init(self) -> int:
        """The process ID of the run's first process, as seen from here."""
        return int((self.directory / "init.pid").read_text())

    def fabric(self, *argv: str) -> list[str]:
        """`argv` to be run where the switches are."""
        return ["nsenter", "-t", str(self.init), "-m", "-n", "--", *argv]

    def on(self, host: str, *argv: str) -> list[str]:
        """`argv` to be run on a host."""
        pid = json.loads((self.directory / "hosts.json").read_text())[host]
        return self.fabric("mnexec", "-a", str(pid), *argv)

    def call(self, host: str, *arguments: str) -> list[Any]:
        """The answers to calls made on `host`; see calls.py."""
        script = Path(__file__).with_name("calls.py")
        argv = self.on(host, str(PYTHON), "-P", str(script), str(self.directory), *arguments)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def config(self, name: str) -> Any:
        """One of the run's configuration files."""
        return json.loads((self.directory / "config" / f"{name}.json").read_text())

    def sae(self, node: str, index: int = 0) -> dict[str, Any]:
        """An application of that node: name, id, port."""
        return self.config(f"sae-{node}")["saes"][index]

    def exit(self) -> int:
        """Leave the CLI; the exit status."""
        self.cli("exit")
        self.process.stdin.close()
        return self.process.wait(60 * PATIENCE)

    def stop(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if not self.process.stdin.closed:
            self.process.stdin.close()
