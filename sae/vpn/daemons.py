"""What a gateway has the machine do: daemons that end with it, tools that are told a secret, routes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sae.client import Failed

_TOOL_S = 10.0
_START_S = 10.0
_LOOK_S = 0.01
_STOP_S = 2.0
_BY_TUNNEL, _WITHOUT = "1", "1000"  # metrics of routes: the lower one is taken
# The kernel ends a daemon when the thread ends that started it: this one lives as long as its process.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="daemons")


def unavailable(message: str) -> Failed:
    """A daemon or a tool does not do what it must."""
    return Failed(503, "daemon", message)


class Daemon:
    """A program that runs until it is stopped, or this process is gone.

    `log`: what it says. `stdin`: a file descriptor, of nothing by default. `name`: for people, that of the command.
    """

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], *, stdin: int = subprocess.DEVNULL,
        name: str | None = None,
    ) -> None:  # fmt: skip
        self._name = name or Path(command[0]).name
        self._log = log
        self._process = _STARTER.submit(self._start, command, env, stdin).result()

    def _start(self, command: Sequence[str], env: Mapping[str, str], stdin: int) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as out:
            try:
                return subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "--", *command], stdin=stdin, stdout=out,
                    stderr=out, env=dict(env),
                )  # fmt: skip
            except OSError as error:
                raise unavailable(f"{self._name} cannot be started: {error.strerror}") from None

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return when it is `ready`; Failed if it ends, or takes too long."""
        deadline = time.monotonic() + _START_S
        while not ready():
            if not self.alive() or time.monotonic() > deadline:
                self.stop()
                lines = self._log.read_text(errors="replace").splitlines() or ["it says nothing"]
                raise unavailable(f"{self._name} does not start: {lines[-1].strip()}")
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def tool(*command: str, secret: bytes | None = None) -> str:
    """What a program printed, once it has ended well; Failed. `secret` goes to its standard input: argv is public."""
    try:
        done = subprocess.run(
            command, input=secret, stdin=subprocess.DEVNULL if secret is None else None, capture_output=True,
            check=False, timeout=_TOOL_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"it had not ended after {_TOOL_S:g} s"
        raise unavailable(f"{command[0]}: {why}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        raise unavailable(f"{' '.join(command[:3])}: {said}")
    return done.stdout.decode()


def protect(inside: str) -> None:
    """Give this host the address that tunnels carry, and have it take packets from whichever of their ends they come.

    Two ways lead to the other end while a key gives way to the next one. Linux drops what comes by the one that it does
    not send by, if it filters by reverse path at all: an interface of a tunnel has no address, so loosely, too.
    """
    tool("ip", "address", "replace", f"{inside}/32", "dev", "lo")
    tool("sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")


def route(theirs: str, device: str, ours: str) -> None:
    """What goes to the protected address `theirs` goes through `device`."""
    tool("ip", "route", "replace", f"{theirs}/32", "dev", device, "src", ours, "metric", _BY_TUNNEL)


def block(theirs: str) -> None:
    """Nothing goes to the protected address `theirs`, as long as no tunnel leads there.

    That holds also when a tunnel's device goes, and its route with it.
    """
    tool("ip", "route", "replace", "unreachable", f"{theirs}/32", "metric", _WITHOUT)
    if tool("ip", "route", "show", f"{theirs}/32", "metric", _BY_TUNNEL).strip():
        tool("ip", "route", "delete", f"{theirs}/32", "metric", _BY_TUNNEL)
