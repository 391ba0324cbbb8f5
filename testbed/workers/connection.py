"""Home's side of the connection to a worker: ssh, requests and answers, and the components that run there."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from documents.checks import Malformed
from mtls import json_text
from scenario.machines import Machine
from scenario.topology_description import one_line
from testbed.machine.processes import ProcessFailed
from testbed.workers import answers
from testbed.workers.hello import ROOT

_NOT_SET_UP, _NO_SSH = 41, 255
_ANSWER_S = 60.0
MOST_MESSAGE_BYTES = 1 << 20  # a chunk of a file has 64 KB, an answer less
_SHOWN = 500  # characters of an error
_KEEP_S = 5.0  # between two signs of life of home


def command(machine: Machine, outside: str | None = None) -> list[str]:
    """What starts a worker: the user's own ssh, also where `sudo` started us. QKD_SSH names another one, with options.

    `outside`: the file of the network namespace to call from.
    """
    python = shlex.quote(f"{machine.root or ROOT}/.venv/bin/python")
    there = (
        f'test -x {python} || exit {_NOT_SET_UP}; if [ "$(id -u)" = 0 ]; then become=; else become="sudo -n"; fi;'
        f' exec $become {python} -P -m testbed.workers --reached "$SSH_CONNECTION"'
    )
    options = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=3", "ServerAliveCountMax=3")
    words = [*shlex.split(os.environ.get("QKD_SSH", "ssh")), "-T", *(w for option in options for w in ("-o", option))]
    if (user := os.environ.get("SUDO_UID")) is not None and os.geteuid() == 0:
        group = os.environ.get("SUDO_GID", user)
        words = ["setpriv", "--reuid", user, "--regid", group, "--init-groups", "--", *words]
    if outside is not None:
        words = ["nsenter", f"--net={outside}", "--", *words]
    return [*words, "--", machine.ssh, f"sh -c {shlex.quote(there)}"]


def why_it_ended(machine: Machine, status: int | None, said: str) -> str:
    """What the end of an ssh tells, with the last that it said. PURE."""
    last = one_line(said.strip().splitlines()[-1])[:_SHOWN] if said.strip() else f"exit status {status}"
    if status == _NOT_SET_UP:
        return f"the testbed is not set up in {machine.root or ROOT} there: run 'make setup' there, or say where: root"
    if "sudo:" in said:
        return f"needs root there: {last}"
    return f"ssh {machine.ssh}: {last}" if status == _NO_SSH else last


class Connection:
    """Requests to the worker `name`, which reads `to_it` and writes `from_it`. Thread-safe.

    `told` gets what comes unasked; ValueError and OSError of it end the connection, as does what no worker sends: a
    worker's root may be anybody. `ended` is called once nothing comes any more, with why; "": the worker has ended it.
    `why` says the same, from before anybody who waits hears of it.
    """

    def __init__(
        self, name: str, to_it: IO[bytes], from_it: IO[bytes], *, told: Callable[[Mapping[str, Any]], None],
        ended: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.hello: Future[Mapping[str, Any]] = Future()
        self._to = to_it
        self._told = told
        self._ended = ended
        self._lock = threading.Lock()
        self._asked: dict[int, tuple[str, Future[Any]]] = {}
        self.why = ""
        self._number = 0
        self._over = threading.Event()
        threading.Thread(target=self._read, args=(from_it,), name=f"from-{name}", daemon=True).start()
        threading.Thread(target=self._keep, name=f"keep-{name}", daemon=True).start()

    def ask(self, what: str, *, within_s: float = _ANSWER_S, **arguments: Any) -> Any:
        """The answer to a request; ProcessFailed."""
        try:
            return self.begin(what, **arguments).result(within_s)
        except TimeoutError:
            raise ProcessFailed(f"machine {self.name}: no answer to {what!r} within {within_s:g} s") from None

    def begin(self, what: str, **arguments: Any) -> Future[Any]:
        """The answer, when it comes."""
        answer: Future[Any] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            if self._over.is_set():
                answer.set_exception(self._lost())
                return answer
            self._asked[number] = what, answer
            with contextlib.suppress(OSError, ValueError):  # who reads notices that it ended
                self._to.write(json.dumps({"id": number, "do": what, **arguments}).encode() + b"\n")
                self._to.flush()
        return answer

    def close(self) -> None:
        """Have the worker end."""
        with self._lock, contextlib.suppress(OSError):
            self._to.close()

    def _lost(self) -> ProcessFailed:
        why = f": {self.why}" if self.why else ""
        return ProcessFailed(f"machine {self.name}: the connection to it has ended{why}")

    def _read(self, lines: IO[bytes]) -> None:
        try:
            while line := lines.readline(MOST_MESSAGE_BYTES + 1):
                self._take(line)
        except (ValueError, OSError) as error:
            self.why = one_line(str(error))[:_SHOWN]
        finally:
            with self._lock:
                self._over.set()
                waiting, self._asked = list(self._asked.values()), {}
            for _, answer in waiting:
                answer.set_exception(self._lost())
            if not self.hello.done():
                self.hello.set_exception(self._lost())
            self._ended(self.why)

    def _take(self, line: bytes) -> None:
        """One message; ValueError for what no worker sends, OSError if there is no room for it."""
        if len(line) > MOST_MESSAGE_BYTES:
            raise ValueError(f"it has sent a message of more than {MOST_MESSAGE_BYTES} bytes")
        try:
            message = json_text.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("it has sent a line that is no JSON") from None
        if not isinstance(message, dict):
            raise ValueError("it has sent no message")
        if "hello" in message:
            if self.hello.done():
                raise ValueError("it has sent a second hello")
            if not isinstance(message["hello"], dict):
                raise ValueError("it has sent a hello that says nothing")
            self.hello.set_result(message["hello"])
        elif "id" in message:
            self._take_answer(message)
        else:
            self._told(message)

    def _take_answer(self, message: Mapping[str, Any]) -> None:
        number = message["id"]
        with self._lock:
            asked = self._asked.get(number) if isinstance(number, int) else None
        if asked is None:
            raise ValueError("it has sent an answer to nothing")
        what, answer = asked
        if ("answer" in message) == ("error" in message):
            raise ValueError(f"it has sent neither an answer nor an error to {what!r}, or both")
        try:
            found = answers.checked(what, message["answer"]) if "answer" in message else None
        except Malformed as error:
            raise ValueError(f"it has sent an answer to {what!r} that is none: {error}") from None
        with self._lock:
            del self._asked[number]
        if "answer" in message:
            answer.set_result(found)
        else:
            why = one_line(str(message["error"]))[:_SHOWN]
            answer.set_exception(ProcessFailed(f"machine {self.name}: {why}"))

    def _keep(self) -> None:
        """A worker of which nobody wants anything for long takes home for gone."""
        while not self._over.wait(_KEEP_S):
            self.begin("clock")


class FarProcess:
    """A component on a worker, as `subprocess.Popen` would show it. `out`: where it is to say that it is ready."""

    pid = -1  # it has none here

    def __init__(self, connection: Connection, name: str, out: int) -> None:
        self._connection = connection
        self._name = name
        self._out = os.dup(out)
        self._status: int | None = None
        self._ready = False
        self._over = threading.Event()
        self.asleep = False

    def ready(self) -> None:
        """It said so; nobody hears it again."""
        if not self._ready and not self._over.is_set():
            self._ready = True
            os.write(self._out, b"ready\n")

    def ended(self, status: int) -> None:
        """It has ended."""
        if not self._over.is_set():
            self._status = status
            self.asleep = False
            os.close(self._out)
            self._over.set()

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended; subprocess.TimeoutExpired after `timeout` seconds."""
        if not self._over.wait(timeout):
            raise subprocess.TimeoutExpired(self._name, timeout or 0.0)
        return self._status or 0

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""
        if self._status is None:
            self._connection.begin("signal", name=self._name, number=int(sig))
            self.asleep = sig == signal.SIGSTOP or (self.asleep and sig != signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class FarPlace:
    """Where components of one host of a worker run (`host` None: where its switches are). See `Worker.start`."""

    def __init__(self, start: Callable[[str, str, Path, int, str | None], FarProcess], host: str | None) -> None:
        self._start = start
        self._host = host

    def start(self, name: str, module: str, config: Path, out: int, err: int) -> FarProcess:  # noqa: ARG002 - it has a log there
        """As `testbed.machine.processes.Place` has it."""
        return self._start(name, module, config, out, self._host)
